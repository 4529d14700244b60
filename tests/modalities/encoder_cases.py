"""A small case of every kind of encoder: options of a recipe, and cells to encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sensorium.engine.recipe import find
from sensorium.modalities.base import Encoder, Features
from sensorium.modalities.groups import collate, encode_by_group
from sensorium.testing.encoders import EncoderContract
from sensorium.tests.modalities.image_encoder_cases import BOXES, IMAGE, LAYERS, Case, hf, units_of

SMALL = {"dim": 16, "heads": 2, "kernel": 5, "mels": 20, "depth": 2, "expand": 2}
SPEECH = {
    **LAYERS,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 4],
}
NORMED = {**SPEECH, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 20,
    "max_source_positions": 50,
}
PAIR = {
    "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48,
    "decoder_layers": 1, "vocab_size": 20,
}  # fmt: skip
WINDOW = {**WHISPER, "num_mel_bins": 80, "max_source_positions": 100}
HTSAT = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "spec_size": 128,
    "num_mel_bins": 32,
    "window_size": 4,
    "projection_dim": 24,
}
SECOND = {
    "feature_extractor_type": "ClapFeatureExtractor",
    "feature_size": 32,
    "sampling_rate": 16000,
    "hop_length": 160,
    "max_length_s": 1,
    "fft_window_size": 512,
    "frequency_max": 8000,
    "truncation": "rand_trunc",
}
FUSION = {"enable_fusion": True, "aff_block_r": 2}
BUNDLE = {
    "extractor_conv_layer_config": [[16, 10, 5], [16, 8, 8], [16, 4, 4]],
    "encoder_embed_dim": 32,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 48,
}
WAV2VEC2 = ("hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "wav2vec2-conformer")
AUDIO: dict[str, Case] = {
    "tokens": units_of(hf("wav2vec2", **SPEECH)),
    "tokens of one span": units_of(hf("wav2vec2", **SPEECH), deduplicate=False),
    "conformer": ("logmel_conformer", {**SMALL, "mask_token": True}),
    "conformer front": ("logmel_conformer", {**SMALL, "front": 2, "normalize": "fixed"}),
    "conformer causal": (
        "logmel_conformer",
        {**SMALL, "front": 1, "normalize": "fixed", "causal": True},
    ),
    "conformer level": ("logmel_conformer", {**SMALL, "subsample": 8, "normalize": "level"}),
    "bundle group": ("torchaudio_bundle", {"name": "WAV2VEC2_BASE", "options": BUNDLE}),
    "bundle layer": ("torchaudio_bundle", {"name": "HUBERT_LARGE", "options": BUNDLE}),
    "torchaudio": ("torchaudio_conformer", SMALL),
    "whisper": ("whisper", hf("whisper", **WHISPER)),
    "wav2vec2 group": ("wav2vec2", hf("wav2vec2", **SPEECH)),
    "wav2vec2 layer": ("wav2vec2", hf("wav2vec2", **NORMED)),
    "wav2vec2 quantizer": ("wav2vec2", hf("wav2vec2", **NORMED) | {"quantizer": True}),
    "w2v-bert": ("wav2vec2", hf("wav2vec2-bert", feature_projection_input_dim=40, **LAYERS)),
    **{name: ("wav2vec2", hf(name, **NORMED)) for name in WAV2VEC2},
    "ast": ("ast", hf("audio-spectrogram-transformer", num_mel_bins=36, max_length=66, **LAYERS)),
    "any SEW": ("transformers", hf("sew", **SPEECH, squeeze_factor=2)),
    "any pair": ("transformers", hf("speech_to_text", **PAIR)),
    "any window": ("transformers", hf("qwen2_audio_encoder", **WINDOW)),
    "clap": ("clap", {**hf("clap_audio_model", **HTSAT), "processor": SECOND}),
    "clap embedding": (
        "clap",
        {**hf("clap_audio_model", **HTSAT), "processor": SECOND, "output": "embedding"},
    ),
    "clap fused": (
        "clap",
        {
            **hf("clap_audio_model", **HTSAT, **FUSION),
            "processor": {**SECOND, "truncation": "fusion"},
        },
    ),
}
CUBE = {"size": (16, 16, 16), "patch": (8, 8, 8), "dim": 24, "depth": 3, "heads": 2}
SLICE = {"type": "image/patches", "size": 16, "patch_size": 8, "dim": 24}
DENSE = {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]}
NARROW = {"widen_factor": 0.125}
MONAI_VIT = {
    "img_size": (16, 16, 16), "patch_size": (8, 8, 8), "hidden_size": 24, "mlp_dim": 32,
    "num_layers": 2, "num_heads": 2,
}  # fmt: skip
UNETR = {"img_size": (32, 32, 32), "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}
SENET = {"layers": (1, 1, 1, 1), "inplanes": 8}
MRI: dict[str, Case] = {
    "vit3d": ("vit3d", CUBE),
    "vit3d with a stem": ("vit3d", {**CUBE, "stem": [4, 8], "registers": 2, "contrasts": 3}),
    "vit3d of flat patches": ("vit3d", {**CUBE, "patch": (8, 8, 4), "layer_scale": None}),
    "monai DenseNet": (
        "monai",
        {"name": "DenseNet121", "options": DENSE, "size": (16, 16, 16)},
    ),
    "monai ResNet": (
        "monai",
        {"name": "resnet10", "options": NARROW, "size": (32, 32, 32), "contrasts": 2},
    ),
    "monai ViT": ("monai", {"name": "ViT", "options": MONAI_VIT, "size": (16, 16, 16)}),
    "monai ViT, CLS": (
        "monai",
        {"name": "ViT", "options": {**MONAI_VIT, "classification": True}, "size": (16, 16, 16)},
    ),
    "monai UNETR": (
        "monai",
        {"name": "UNETR", "options": {"feature_size": 4, **UNETR}, "size": (32, 32, 32)},
    ),
    "monai SwinUNETR": (
        "monai",
        {"name": "SwinUNETR", "options": {"feature_size": 12}, "size": (32, 32, 32)},
    ),
    "monai MedNeXt": (
        "monai",
        {"name": "MedNeXt", "options": {"init_filters": 4}, "size": (32, 32, 32)},
    ),
    "monai SENet": ("monai", {"name": "SEResNet50", "options": SENET, "size": (32, 32, 32)}),
    "monai HighResNet": ("monai", {"name": "HighResNet", "size": (8, 8, 8)}),
    "slices": ("slices", {"encoder": SLICE, "size": (16, 16, 6), "heads": 2}),
    "slices, sagittal": (
        "slices",
        {
            "encoder": SLICE, "size": (6, 16, 12), "axis": 0, "every": 2, "heads": 2,
            "contrasts": 3,
        },
    ),
}  # fmt: skip
MRI_MASK: dict[str, Case] = {"mask": ("mask", {})}
IMAGE_MASK: dict[str, Case] = {"mask": ("mask", {})}
ACTION: dict[str, Case] = {
    "state linear": ("state", {"dim": 16}),
    "state perceptron": ("state", {"dim": 16, "hidden": 24}),
    "state deep": ("state", {"dim": 16, "hidden": 24, "depth": 2}),
    "trajectory": ("trajectory", {"dim": 16, "depth": 3, "heads": 2}),
}
TOKENIZER = {"tokenizer": {"type": "bpe", "size": 300}, "max_length": 64}
DECODER = {**LAYERS, "max_position_embeddings": 96}
BERT = {**hf("bert", **DECODER), **TOKENIZER}
TEXT: dict[str, Case] = {
    "hashed": ("hashed", {"features": 24, "dim": 16}),
    "fallback": ("fallback", {"encoder": {"type": "transformers", **BERT}}),
    "characters": ("characters", {"encoder": {"type": "transformers", **BERT}, "char_dim": 8}),
    "rendered": ("rendered", {"dim": 16, "depth": 3, "heads": 2, "fonts": []}),
    "transformers": ("transformers", BERT),
    "transformers with a head": ("transformers", {**BERT, "lm_head": True}),
    "causal_lm": ("causal_lm", {**hf("llama", **DECODER), **TOKENIZER}),
    "bag_of_words": ("bag_of_words", TOKENIZER),
    "averaging": ("averaging", {**TOKENIZER, "dim": 24, "depth": 3, "bigrams": 50}),
    "sequence_classifier": ("sequence_classifier", BERT),
    "vocabulary": (
        "vocabulary",
        {"encoder": {"type": "text/transformers", **BERT, "lm_head": True}},
    ),
}
TRANSFORMER = {"d_model": 16, "num_attention_heads": 2, "ffn_dim": 32, "num_hidden_layers": 2}
PATCHED = {"num_input_channels": 2, "context_length": 64, "patch_length": 8, "patch_stride": 8}
FORECASTER = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "context_length": 57, "prediction_length": 4, "input_size": 2, "num_time_features": 1,
}  # fmt: skip
TIMESFM = {
    "patch_length": 16, "context_length": 64, "hidden_size": 32, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
SERIES: dict[str, Case] = {
    "patches": ("patches", {"patch": 8, "dim": 16, "depth": 3, "heads": 2}),
    "patches that overlap": ("patches", {"patch": 8, "stride": 4, "dim": 16, "heads": 2}),
    "segments": ("segments", {"segment": 8}),
    "tokens": ("tokens", {"tokenizer": {"type": "byte_pairs", "merges": 20}, "dim": 16}),
    "any PatchTST": ("transformers", hf("patchtst", **TRANSFORMER, **PATCHED)),
    "any PatchTSMixer": ("transformers", hf("patchtsmixer", d_model=16, num_layers=2, **PATCHED)),
    "any TimesFM": ("transformers", hf("timesfm", **TIMESFM)),
    "any TimesFM 2.5": ("transformers", hf("timesfm2_5", **TIMESFM)),
    "any Informer": ("transformers", hf("informer", **FORECASTER)),
    "any Autoformer": ("transformers", hf("autoformer", **FORECASTER)),
    "any time series": ("transformers", hf("time_series_transformer", **FORECASTER)),
}
CASES = {
    "action": ACTION, "audio": AUDIO, "boxes": BOXES, "image": IMAGE, "image_mask": IMAGE_MASK,
    "mri": MRI, "mri_mask": MRI_MASK, "series": SERIES, "text": TEXT,
}  # fmt: skip
SLOW = ("monai SwinUNETR", "monai UNETR")
EACH = [
    pytest.param(modality, name, marks=pytest.mark.slow if name in SLOW else ())
    for modality, cases in CASES.items()
    for name in cases
]
UNUSED = {  # parameters that need what only pre-training gives, or lie behind the chosen layer
    "timm layer": ("model.blocks.2", "model.norm", "model.fc_norm"),
    "transformers with a head": ("model.cls",),
    "patches that overlap": ("missing",),  # every patch was measured
    "hf layer": ("model.layers.2", "model.layernorm"),
    "hf PVT layer": (
        *(f"model.encoder.{name}.{i}" for i in (1, 2, 3) for name in ("patch_embeddings", "block")),
        "model.encoder.layer_norm",
    ),
    "hf Swin layer": ("model.encoder.layers.1", "model.layernorm"),
    **dict.fromkeys(("timm EVA", "timm BEiT"), ("model.fc_norm",)),
    **dict.fromkeys(("hf DINOv2", "hf registers", "hf DINOv3"), ("model.embeddings.mask_token",)),
    **{
        name: ("model.masked_spec_embed",)
        for name, (kind, _) in AUDIO.items()
        if kind == "wav2vec2"
    },
    "wav2vec2 quantizer": ("model.masked_spec_embed", "heads"),
    "wav2vec2-conformer": ("model.masked_spec_embed", "model.encoder.pos_conv_embed"),
}
TEXTS = ["a red robot", "the small robot pushes a blue puck to the goal, slowly", "né <image> кот"]


def examples(modality: str) -> list[Any]:
    """Three cells, different in size where the signal may be."""
    rng = np.random.default_rng(0)
    match modality:
        case "action":
            return [rng.normal(2, 3, (steps, 5)).astype(np.float32) for steps in (4, 2, 1)]
        case "audio":
            return [sound(i, seconds) for i, seconds in enumerate((0.5, 0.31, 0.42))]
        case "boxes":
            return [[[1, 2, 30, 40]], [[0, 0, 9, 9], [5, 5, 50, 60]], [[7, 8, 9, 10]]]
        case "image":
            return [
                rng.integers(0, 256, size, np.uint8)
                for size in ((48, 60, 3), (60, 20, 3), (9, 9, 3))
            ]
        case "image_mask":
            return [rng.integers(0, 2, shape, np.uint8) for shape in ((8, 6), (5, 9), (7, 7))]
        case "mri":
            shapes, wide = ((20, 22, 18), (3, 4, 5), (22, 20, 18)), np.diag([4.0, 4.0, 4.0, 1.0])
            return [{"array": rng.uniform(1, 9, shape), "affine": wide} for shape in shapes]
        case "mri_mask":
            shapes = ((5, 6, 7), (8, 3, 4), (6, 6, 6))
            return [{"array": rng.random(s) < 0.5, "affine": np.eye(4)} for s in shapes]
        case "series":
            values = rng.normal(size=(3, 2, 64))
            values[0, :, 8:20] = np.nan  # a gap
            return [{"values": row, "rate": 10.0} for row in values]
        case "text":
            return TEXTS
    return []


def sound(number: int, seconds: float, rate: int = 16000) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    time = np.arange(round(seconds * rate)) / rate
    sweep = np.sin(2 * np.pi * (200 + 900 * number + 2000 * rng.random() * time) * time)
    wave = 0.3 * sweep + rng.normal(0, 0.02, time.shape)
    return {"array": wave.astype(np.float32), "sampling_rate": rate}


def contract(modality: str, name: str, cells: Sequence[Any] | None = None) -> EncoderContract:
    """Return a case, built and with its cells read."""
    kind, options = CASES[modality][name]
    cells = examples(modality) if cells is None else cells
    result = EncoderContract(find(f"{modality}_encoder", kind, "here"), modality, cells)
    result.build(options)
    return result


def build(modality: str, name: str) -> Encoder:
    """Return the encoder of a case, in `eval()`."""
    return contract(modality, name).encoder


def encode(encoder: Encoder, raws: Sequence[Any], **options: Any) -> Features:
    """Encode raw values in one batch, those of different shapes apart if the encoder wants that."""
    inputs = collate(encoder, [encoder.processor.prepare(raw) for raw in raws])
    return encode_by_group(inputs, lambda tensors, rows: encoder(**tensors, **options))
