"""Text: tokenizers, and encoders that read it."""

READ = "sensorium.modalities.text.read:read"
EXAMPLE = "sensorium.modalities.text.read:example"
PREVIEW = "sensorium.modalities.text.read:preview"

ENCODERS = {
    "causal_lm": "sensorium.modalities.text.causal_lm:CausalLM",
    "open_clip": "sensorium.modalities.text.open_clip:OpenClipText",
    "transformers": "sensorium.modalities.text.transformers:TransformersText",
}

AUGMENTS: dict[str, str] = {}

SOURCES: dict[str, str] = {}

TOKENIZERS = {
    "bpe": "sensorium.modalities.text.tokenizers:BPE",
    "bytes": "sensorium.modalities.text.tokenizers:Bytes",
    "characters": "sensorium.modalities.text.characters:Characters",
    "own": "sensorium.modalities.text.tokenizers:Own",
}
