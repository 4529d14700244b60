"""The contract of every audio encoder."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from safetensors.torch import load_file, save_file

from sensorium.modalities.audio import AUDIO
from sensorium.modalities.audio.read import Sound
from sensorium.modalities.base import Encoder, Features, ReadError

SMALL = {"dim": 16, "heads": 2, "kernel": 5, "mels": 20, "depth": 2, "expand": 2}

WIDE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 4],
}
LAYER = {**WIDE, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BERT = {"model_type": "wav2vec2-bert", "feature_projection_input_dim": 40}
WHISPER = {
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 20,
    "max_source_positions": 50,
}
PATCHES = {"num_mel_bins": 36, "max_length": 66, **{k: WIDE[k] for k in list(WIDE)[:4]}}
HTSAT = {
    "model_type": "clap_audio_model",
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

BUNDLE = {
    "extractor_conv_layer_config": [[16, 10, 5], [16, 8, 8], [16, 4, 4]],
    "encoder_embed_dim": 32,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 48,
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "conformer": ("logmel_conformer", {**SMALL, "mask_token": True}),
    "conformer front": ("logmel_conformer", {**SMALL, "front": 2, "normalize": "fixed"}),
    "conformer level": ("logmel_conformer", {**SMALL, "subsample": 8, "normalize": "level"}),
    "bundle group": ("torchaudio_bundle", {"name": "WAV2VEC2_BASE", "options": BUNDLE}),
    "bundle layer": ("torchaudio_bundle", {"name": "HUBERT_LARGE", "options": BUNDLE}),
    "torchaudio": ("torchaudio_conformer", SMALL),
    "whisper": ("whisper", {"config": WHISPER}),
    "wav2vec2 group": ("wav2vec2", {"config": {"model_type": "wav2vec2", **WIDE}}),
    "wav2vec2 layer": ("wav2vec2", {"config": {"model_type": "wav2vec2", **LAYER}}),
    "hubert": ("wav2vec2", {"config": {"model_type": "hubert", **LAYER}}),
    "wavlm": ("wav2vec2", {"config": {"model_type": "wavlm", **LAYER}}),
    "w2v-bert": ("wav2vec2", {"config": {**BERT, **{k: WIDE[k] for k in list(WIDE)[:4]}}}),
    "data2vec": ("wav2vec2", {"config": {"model_type": "data2vec-audio", **LAYER}}),
    "unispeech": ("wav2vec2", {"config": {"model_type": "unispeech", **LAYER}}),
    "unispeech-sat": ("wav2vec2", {"config": {"model_type": "unispeech-sat", **LAYER}}),
    "wav2vec2-conformer": ("wav2vec2", {"config": {"model_type": "wav2vec2-conformer", **LAYER}}),
    "ast": ("ast", {"config": {"model_type": "audio-spectrogram-transformer", **PATCHES}}),
    "clap": ("clap", {"config": HTSAT, "processor": SECOND}),
    "clap embedding": ("clap", {"config": HTSAT, "processor": SECOND, "output": "embedding"}),
    "clap fused": (
        "clap",
        {
            "config": {**HTSAT, "enable_fusion": True, "aff_block_r": 2},
            "processor": {**SECOND, "truncation": "fusion"},
        },
    ),
}

UNUSED: dict[str, tuple[str, ...]] = {  # parameters that need what only some tasks give
    "conformer": ("mask_token",),
    **{c: ("model.masked_spec_embed",) for c, (name, _) in CASES.items() if name == "wav2vec2"},
    "wav2vec2-conformer": ("model.masked_spec_embed", "model.encoder.pos_conv_embed"),
}
SECONDS = (0.5, 0.31, 0.42)


def kind(case: str) -> type[Encoder]:
    module, _, name = AUDIO.encoders[CASES[case][0]].partition(":")
    found: type[Encoder] = getattr(importlib.import_module(module), name)
    return found


def make(case: str) -> Encoder:
    torch.manual_seed(0)
    options = CASES[case][1]
    return kind(case)(**kind(case).resolve(options)).eval()


def sound(number: int, seconds: float = 0.4, rate: int = 16000) -> Sound:
    rng = np.random.default_rng(number)
    time = np.arange(round(seconds * rate)) / rate
    sweep = np.sin(2 * np.pi * (200 + 900 * number + 2000 * rng.random() * time) * time)
    noise = rng.normal(0, 0.02, time.shape)
    return Sound((0.3 * sweep + noise)[None].astype(np.float32), rate)


def batch(encoder: Encoder, seconds: tuple[float, ...] = SECONDS) -> dict[str, torch.Tensor]:
    sounds = [sound(i, s) for i, s in enumerate(seconds)]
    return encoder.collate([encoder.processor.prepare(s) for s in sounds])


def leaves(features: Features) -> list[torch.Tensor]:
    return [features.tokens, *([] if features.pooled is None else [features.pooled])]


def test_every_encoder_of_the_catalogue_is_tried() -> None:
    assert {name for name, _ in CASES.values()} == set(AUDIO.encoders)


@pytest.mark.parametrize("case", CASES)
def test_shapes_grid_and_mask(case: str) -> None:
    encoder = make(case)
    features = encoder(**batch(encoder))
    assert features.tokens.shape[::2] == (3, encoder.dim)
    assert features.pooled is None or features.pooled.shape == (3, encoder.dim)
    lengths = features.lengths.tolist()
    assert torch.equal(
        features.mask, torch.arange(features.mask.shape[1]) < features.lengths[:, None]
    )
    assert not features.tokens[~features.mask].any()
    if case == "clap embedding":
        assert features.tokens.shape[1] == 1
        return
    assert features.step and features.origin and features.grid
    assert encoder.blocks()
    if len(features.grid) == 1:
        assert lengths[0] == max(lengths) == features.mask.shape[1] and min(lengths) == lengths[1]
        for length, seconds in zip(lengths, SECONDS, strict=True):
            last = features.origin[0] + (length - 1) * features.step[0]
            assert seconds - 2 * features.step[0] - 0.02 < last < seconds + features.step[0]


@pytest.mark.parametrize("case", CASES)
def test_padding_changes_nothing(case: str) -> None:
    """Where an encoder says so; where it does not, equal lengths are batched."""
    encoder = make(case)
    seconds = SECONDS if encoder.batch_invariant else (0.4, 0.4, 0.4)
    many = encoder(**batch(encoder, seconds))
    for i, length in enumerate(seconds):
        one = encoder(**encoder.collate([encoder.processor.prepare(sound(i, length))]))
        real = many.tokens[i : i + 1, : one.tokens.shape[1]]
        assert torch.allclose(real, one.tokens, atol=1e-5)
        assert many.lengths[i] == one.lengths[0]
        if one.pooled is not None and many.pooled is not None:
            assert torch.allclose(many.pooled[i : i + 1], one.pooled, atol=1e-5)
    assert not torch.allclose(many.tokens[0, :4], many.tokens[1, :4], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_what_lies_in_padding_changes_nothing(case: str) -> None:
    encoder = make(case)
    if not encoder.batch_invariant:
        pytest.skip("reads padding, and says so")
    given = batch(encoder)
    key = next(k for k in given if k != "mask")
    if "mask" not in given or given["mask"].shape != given[key].shape[:2]:
        pytest.skip("pads nothing: it hears a window of one length")
    torn = {**given, key: given[key].clone()}
    torn[key][~given["mask"]] = 1e4
    assert torch.allclose(encoder(**torn).tokens, encoder(**given).tokens, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_every_parameter(case: str) -> None:
    encoder = make(case)
    for parameter in encoder.parameters():  # a branch that begins at zero hides those before it
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    features = encoder(**batch(encoder))
    sum((t * torch.randn_like(t)).sum() for t in leaves(features)).backward()
    lost = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not [n for n in lost if not n.startswith(UNUSED.get(case, ("-",)))]
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("case", CASES)
def test_the_meta_device_gives_the_same_shapes(case: str) -> None:
    real = make(case)
    given = batch(real)
    with torch.device("meta"):
        encoder = make(case)
    assert all(p.is_meta for p in encoder.parameters())
    found, want = encoder(**{k: v.to("meta") for k, v in given.items()}), real(**given)
    assert found.tokens.is_meta
    assert [t.shape for t in leaves(found)] == [t.shape for t in leaves(want)]
    assert (found.grid, found.step, found.origin) == (want.grid, want.step, want.origin)


@pytest.mark.parametrize("case", CASES)
def test_state_comes_back_from_safetensors(case: str, tmp_path: Path) -> None:
    encoder, path = make(case), tmp_path / "state.safetensors"
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, path)
    torch.manual_seed(1)
    other = kind(case)(**kind(case).resolve(CASES[case][1])).eval()
    given = batch(encoder)
    assert not torch.equal(other(**given).tokens, encoder(**given).tokens)
    other.load_state_dict(load_file(path))
    for a, b in zip(leaves(other(**given)), leaves(encoder(**given)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", CASES)
def test_processors_are_small_values(case: str) -> None:
    processor = make(case).processor
    first = processor.prepare(sound(0))
    data = pickle.dumps(processor)
    assert len(data) < 4000
    again = pickle.loads(data)
    assert json.loads(json.dumps(again.settings())) == json.loads(json.dumps(processor.settings()))
    for key, value in again.prepare(sound(0)).items():
        assert torch.equal(value, first[key])


def test_no_samples_is_one_line() -> None:
    for case in CASES:
        processor = make(case).processor
        with pytest.raises(ReadError, match=r"no samples|0 ms"):
            processor.prepare(Sound(np.zeros((1, 0), np.float32), 16000))


@pytest.mark.parametrize("case", CASES)
def test_hidden_layers(case: str) -> None:
    encoder = make(case)
    if "layers" not in encoder.supports:
        pytest.skip("not supported")
    given = batch(encoder)
    plain, deep = encoder(**given), encoder(**given, layers=(0, -1, -2))
    for a, b in zip(leaves(plain), leaves(deep), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(deep.layers) == 3
    assert all(torch.equal(f.mask, plain.mask) for f in deep.layers)
    again = encoder(**given, layers=(-2, -1))
    assert torch.equal(deep.layers[1].tokens, again.layers[1].tokens)
    assert torch.equal(deep.layers[2].tokens, again.layers[0].tokens)
    with pytest.raises(ValueError, match="layer 99"):
        encoder(**given, layers=(99,))


@pytest.mark.parametrize("case", CASES)
def test_a_tap_replaces_a_layer(case: str) -> None:
    encoder = make(case)
    if "layer_hooks" not in encoder.supports:
        pytest.skip("not supported")
    given, plain = batch(encoder), encoder(**batch(encoder))
    same = encoder(**given, layer_hooks={0: lambda tokens, mask: tokens})
    assert torch.equal(same.tokens, plain.tokens)
    tapped = encoder(
        **given, layer_hooks={-1: lambda tokens, mask: tokens * 0 + mask.unsqueeze(-1)}
    )
    assert torch.equal(tapped.tokens, plain.mask.unsqueeze(-1).expand_as(plain.tokens).float())


@pytest.mark.parametrize("case", CASES)
def test_silence_is_finite(case: str) -> None:
    encoder = make(case)
    silent = Sound(np.zeros((2, 6400), np.float32), 16000)
    features = encoder(**encoder.collate([encoder.processor.prepare(silent)]))
    assert features.tokens.isfinite().all()


def test_torchaudios_conformer_is_torchaudios() -> None:
    """The same tokens as its class gives for the same input, and padding that it reads."""
    encoder = make("torchaudio")
    seen: list[torch.Tensor] = []
    encoder.enter.register_forward_hook(lambda part, args, output: seen.append(output))
    given = batch(encoder)
    features = encoder(**given)
    want, lengths = encoder.model(seen[0], features.lengths)
    assert torch.equal(lengths, features.lengths)
    assert torch.allclose(features.tokens[features.mask], want[features.mask], atol=1e-6)
    alone = encoder(**encoder.collate([encoder.processor.prepare(sound(1, SECONDS[1]))]))
    beside = features.tokens[1, : alone.tokens.shape[1]]
    assert not torch.allclose(beside, alone.tokens[0], atol=1e-3)


def test_a_bundle_is_the_model_that_torchaudio_builds() -> None:
    encoder = make("bundle layer")
    peer = torchaudio.models.wav2vec2_model(
        **{**torchaudio.pipelines.HUBERT_LARGE._params, **BUNDLE}
    ).eval()
    peer.load_state_dict(encoder.model.state_dict())
    given = batch(encoder)
    features = encoder(**given, layers=(0, 1))
    want, lengths = peer(given["wave"], given["mask"].sum(1))
    assert torch.equal(lengths, features.lengths)
    assert torch.allclose(features.tokens[features.mask], want[features.mask], atol=1e-5)
    hidden, _ = peer.extract_features(given["wave"], given["mask"].sum(1))
    for found, state in zip(features.layers, hidden[:2], strict=True):
        assert torch.allclose(found.tokens[features.mask], state[features.mask], atol=1e-5)


def test_mistakes_with_bundles_are_one_line() -> None:
    build = kind("bundle group")
    with pytest.raises(ValueError, match="no bundle 'WAV2VEC2_BAS'; did you mean 'WAV2VEC2_BASE'"):
        build(name="WAV2VEC2_BAS")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="options: torchaudio cannot build WAV2VEC2_BASE so"):
        build(name="WAV2VEC2_BASE", options={"wide": 3})  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="as a pickle, which is not read"):
        make("bundle group").load()
