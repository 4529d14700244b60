"""The encoders of images at their smallest, for the contract of encoders."""

from __future__ import annotations

from typing import Any

Case = tuple[str, dict[str, Any]]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
}
COCA = {**CLIP, "vision_cfg": {**CLIP["vision_cfg"], "attn_pooler_heads": 4}}
RESNET = {"vision_cfg": {"image_size": 64, "width": 8, "layers": [1, 1, 1, 1]}}
TOWER = {"vision_cfg": {"timm_model_name": "test_convnext"}}
LAYERS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
HF = {**LAYERS, "image_size": 32, "patch_size": 8}
PIPELINE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
CONV = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "image_size": 64}
SWIN = {"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
HIERA = {
    "image_size": [32, 32], "embed_dim": 16, "depths": [1, 2, 1], "num_heads": [1, 2, 2],
    "num_query_pool": 2, "masked_unit_size": [4, 4], "masked_unit_attention": [True, True, False],
}  # fmt: skip
STAGES = {"depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
QWEN = {"depth": 2, "embed_dim": 32, "hidden_size": 24, "num_heads": 2, "patch_size": 8}
NATIVE = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8, "min_pixels": 1024,
    "max_pixels": 4096,
}  # fmt: skip
LARGE = {**PIPELINE, "size": {"height": 64, "width": 64}}
PVT = {"image_size": 64, "num_attention_heads": [1, 1, 2, 2], **STAGES}
TIMM_HIERA = {
    "img_size": 64, "embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1,
    "mask_unit_size": (8, 8),
}  # fmt: skip
TIMM_SWIN = {
    "img_size": 64, "embed_dim": 12, "depths": (1, 1, 1), "num_heads": (1, 2, 2), "window_size": 4,
}  # fmt: skip
EVA = {"img_size": 28, "embed_dim": 48, "depth": 2, "num_heads": 3}
CLIPS = {"num_frames": 4, "tubelet_size": [2, 8, 8]}
JEPA = {
    "frames_per_clip": 4, "crop_size": 32, "patch_size": 8, "pred_hidden_size": 32,
    "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1,
}  # fmt: skip
PATCHES = {"size": 32, "patch_size": 8, "dim": 24}


def hf(model_type: str, **more: Any) -> dict[str, Any]:
    return {"config": {"model_type": model_type, **more}}


def units_of(options: dict[str, Any], **more: Any) -> Case:
    """Return the case of units of a random wav2vec2."""
    encoder = {"type": "wav2vec2", "weights": "none", **options}
    units = {"type": "units", "codes": 6, "encoder": encoder, **more}
    return "tokens", {"tokenizer": units, "dim": 16}


BOXES: dict[str, Case] = {"tokens": ("tokens", {"tokenizer": "coordinates", "dim": 16})}
IMAGE: dict[str, Case] = {
    "patches": ("patches", PATCHES),
    "patches with a stem": ("patches", {**PATCHES, "stem": [8, 16]}),
    "tokens": ("tokens", {"tokenizer": {"type": "vq", "codes": 8, "patch": 8}, "dim": 16}),
    "pixels": ("pixels", {"size": 8}),
    "native": ("native", {"patch": 8, "dim": 16, "depth": 3, "heads": 2, "max_patches": 40}),
    "frames": ("frames", {"encoder": {"type": "patches", **PATCHES}}),
    "timm ViT": ("timm", {"name": "vit_tiny_patch16_224", "options": VIT}),
    "timm convolution": ("timm", {"name": "test_convnext"}),
    "timm grey": ("timm", {"name": "test_vit", "options": {"in_chans": 1, "img_size": 32}}),
    "timm layer": ("timm", {"name": "vit_tiny_patch16_224", "options": VIT, "layer": -2}),
    "open_clip ViT": ("open_clip", {"name": "ViT-B-32", "options": CLIP}),
    "open_clip vector": (
        "open_clip",
        {"name": "ViT-B-32-quickgelu", "options": CLIP, "output": "embedding"},
    ),
    "open_clip ResNet": ("open_clip", {"name": "RN50", "options": RESNET}),
    "open_clip CoCa": ("open_clip", {"name": "coca_ViT-B-32", "options": COCA}),
    "open_clip timm": ("open_clip", {"name": "convnext_base", "options": TOWER}),
    "hf ViT": ("transformers", hf("vit", **HF)),
    "hf layer": ("transformers", {**hf("vit", **HF), "layer": -2}),
    "hf DINOv2": ("transformers", hf("dinov2", **HF)),
    "hf registers": ("transformers", {**hf("dinov2_with_registers", **HF), "processor": PIPELINE}),
    "hf DINOv3": ("transformers", hf("dinov3_vit", num_register_tokens=2, **HF)),
    "hf DINOv3 ConvNeXt": (
        "transformers",
        {**hf("dinov3_convnext", **CONV), "processor": PIPELINE},
    ),
    "hf CLIP": ("transformers", hf("clip", vision_config=HF)),
    "hf SigLIP": ("transformers", hf("siglip", vision_config=HF)),
    "hf SigLIP 2": (
        "transformers",
        hf("siglip2_vision_model", **LAYERS, patch_size=8, num_patches=16),
    ),
    "hf BLIP, a tower without a class": (
        "transformers",
        hf("blip", vision_config={**HF, "initializer_range": 0.02}),
    ),
    "hf Qwen2-VL": (
        "transformers",
        {**hf("qwen2_vl", vision_config=QWEN), "processor": NATIVE},
    ),
    "hf Idefics 3": ("transformers", {**hf("idefics3_vision", **HF), "processor": PIPELINE}),
    "hf ConvNeXt": ("transformers", hf("convnext", **CONV)),
    "hf MAE": ("transformers", hf("vit_mae", **HF)),
    "hf Hiera": ("transformers", {**hf("hiera", **HIERA), "processor": PIPELINE}),
    "hf PVT": ("transformers", {**hf("pvt", **PVT), "processor": LARGE}),
    "hf PVT layer": ("transformers", {**hf("pvt", **PVT), "processor": LARGE, "layer": 0}),
    "hf Swin layer": ("transformers", {**hf("swin", image_size=32, **SWIN), "layer": 0}),
    "hf PoolFormer": ("transformers", {**hf("poolformer", **STAGES), "processor": LARGE}),
    "hf SegFormer": (
        "transformers",
        {**hf("segformer", num_attention_heads=[1, 1, 2, 2], **STAGES), "processor": PIPELINE},
    ),
    "hf TimeSformer": ("transformers", hf("timesformer", num_frames=4, **HF)),
    "hf VideoMAE": ("transformers", hf("videomae", num_frames=4, **HF)),
    "hf ViViT": ("transformers", hf("vivit", **CLIPS, **HF)),
    "hf V-JEPA 2": (
        "transformers",
        {**hf("vjepa2", **JEPA, **LAYERS), "processor": PIPELINE},
    ),
    "timm Hiera": ("timm", {"name": "hiera_tiny_224", "options": TIMM_HIERA}),
    "timm Swin": ("timm", {"name": "swin_tiny_patch4_window7_224", "options": TIMM_SWIN}),
    "timm EVA": ("timm", {"name": "eva02_tiny_patch14_224", "options": EVA}),
    "timm BEiT": ("timm", {"name": "beit_base_patch16_224", "options": VIT}),
    "hf Swin": ("transformers", hf("swin", image_size=32, **SWIN)),
}
