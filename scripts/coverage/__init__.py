"""Coverage: which classes of transformers, timm, open_clip and MONAI compose, step by step."""
