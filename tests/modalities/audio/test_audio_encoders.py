"""Audio encoders beyond the common contract: time, silence, padding, and the libraries' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from encoder_cases import AUDIO, BUNDLE, build, encode, examples
from torch import Tensor

from sensorium.engine.recipe import find
from sensorium.modalities.audio.read import Sound, read
from sensorium.modalities.base import Encoder, ReadError

SOUNDS = [read(cell) for cell in examples("audio")]
SECONDS = [sound.seconds for sound in SOUNDS]


def batch(encoder: Encoder, sounds: list[Sound]) -> dict[str, Tensor]:
    return encoder.collate([encoder.processor.prepare(sound) for sound in sounds])


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", AUDIO)
def test_tokens_lie_where_they_sound(name: str) -> None:
    encoder = build("audio", name)
    features = encode(encoder, SOUNDS)
    if name == "clap embedding":
        assert features.tokens.shape[1] == 1
        return
    if name == "tokens":  # runs of a unit are one token
        assert features.grid is None and features.codes is not None
        return
    assert features.grid and features.spacing and features.origin
    assert encoder.blocks() or features.codes is not None  # a table of codes has no blocks
    if len(features.grid) > 1:
        return  # patches of a spectrogram
    lengths = features.lengths.tolist()
    assert max(lengths) == features.mask.shape[1] and np.argsort(lengths).tolist() == [1, 2, 0]
    for length, seconds in zip(lengths, SECONDS, strict=True):
        last = features.origin[0] + (length - 1) * features.spacing[0]
        assert seconds - 2 * features.spacing[0] - 0.02 < last < seconds + features.spacing[0]


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", AUDIO)
def test_what_lies_in_padding_changes_nothing(name: str) -> None:
    encoder = build("audio", name)
    if not encoder.batch_invariant:
        pytest.skip("reads padding, and says so")
    inputs = batch(encoder, SOUNDS)
    key = next(k for k in inputs if k != "mask")
    if "mask" not in inputs or inputs["mask"].shape != inputs[key].shape[:2]:
        pytest.skip("pads nothing: it hears a window of one length")
    torn = {**inputs, key: inputs[key].clone()}
    torn[key][~inputs["mask"]] = 1e4 if inputs[key].is_floating_point() else 1
    assert torch.allclose(encoder(**torn).tokens, encoder(**inputs).tokens, atol=1e-5)


@pytest.mark.parametrize("name", AUDIO)
def test_a_hook_replaces_the_last_layer(name: str) -> None:
    encoder = build("audio", name)
    if "layer_hooks" not in encoder.supports:
        pytest.skip("not supported")

    def ones(tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens * 0 + mask.unsqueeze(-1)

    features = encode(encoder, SOUNDS, layer_hooks={-1: ones})
    assert torch.equal(features.tokens, features.mask[..., None].expand_as(features.tokens).float())


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", AUDIO)
def test_silence_is_finite_and_nothing_is_refused(name: str) -> None:
    encoder = build("audio", name)
    silent = Sound(np.zeros((2, 6400), np.float32), 16000)
    assert encode(encoder, [silent]).tokens.isfinite().all()
    with pytest.raises(ReadError, match=r"no samples|0 ms"):
        encoder.processor.prepare(Sound(np.zeros((1, 0), np.float32), 16000))


def test_torchaudios_conformer_is_torchaudios() -> None:
    """The same tokens as its class gives for the same input, and padding that it reads."""
    encoder = build("audio", "torchaudio")
    seen: list[torch.Tensor] = []
    encoder.enter.register_forward_hook(lambda part, args, output: seen.append(output))
    inputs = batch(encoder, SOUNDS)
    features = encoder(**inputs)
    want, lengths = encoder.model(seen[0], features.lengths)
    assert torch.equal(lengths, features.lengths)
    assert torch.allclose(features.tokens[features.mask], want[features.mask], atol=1e-6)
    alone = encoder(**encoder.collate([encoder.processor.prepare(SOUNDS[1])]))
    beside = features.tokens[1, : alone.tokens.shape[1]]
    assert not torch.allclose(beside, alone.tokens[0], atol=1e-3)


def test_a_bundle_is_the_model_that_torchaudio_builds() -> None:
    encoder = build("audio", "bundle layer")
    peer = torchaudio.models.wav2vec2_model(
        **{**torchaudio.pipelines.HUBERT_LARGE._params, **BUNDLE}
    ).eval()
    peer.load_state_dict(encoder.model.state_dict())
    inputs = batch(encoder, SOUNDS)
    features = encoder(**inputs, hidden_states=(0, 1))
    want, lengths = peer(inputs["wave"], inputs["mask"].sum(1))
    assert torch.equal(lengths, features.lengths)
    assert torch.allclose(features.tokens[features.mask], want[features.mask], atol=1e-5)
    hidden, _ = peer.extract_features(inputs["wave"], inputs["mask"].sum(1))
    for result, state in zip(features.hidden_states, hidden[:2], strict=True):
        assert torch.allclose(result.tokens[features.mask], state[features.mask], atol=1e-5)


def test_mistakes_with_bundles_are_one_line() -> None:
    cls: Any = find("audio_encoder", "torchaudio_bundle", "here")
    with pytest.raises(ValueError, match="no bundle 'WAV2VEC2_BAS'; did you mean 'WAV2VEC2_BASE'"):
        cls(name="WAV2VEC2_BAS")
    with pytest.raises(ValueError, match="options: torchaudio cannot build WAV2VEC2_BASE so"):
        cls(name="WAV2VEC2_BASE", options={"wide": 3})
    with pytest.raises(ValueError, match="as a pickle, which is not read"):
        build("audio", "bundle group").load()
