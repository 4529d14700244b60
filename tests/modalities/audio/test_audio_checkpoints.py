"""Checkpoints in transformers' own format: what our encoders give is what transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sensorium.modalities.audio.encoders.ast import AST
from sensorium.modalities.audio.encoders.clap import Clap
from sensorium.modalities.audio.encoders.wav2vec2 import Wav2Vec2
from sensorium.modalities.audio.encoders.whisper import Whisper
from sensorium.modalities.audio.read import Sound
from sensorium.modalities.base import Encoder, ReadError

LAYERS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
CONV = {
    **LAYERS,
    "vocab_size": 12,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 4],
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 20,
    "max_source_positions": 100,
    "vocab_size": 60,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
HTSAT = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "spec_size": 128,
    "num_mel_bins": 32,
    "window_size": 4,
}
CLAP_STEPS = {
    "feature_size": 32,
    "sampling_rate": 16000,
    "hop_length": 160,
    "max_length_s": 1,
    "fft_window_size": 512,
    "frequency_max": 8000,
    "truncation": "rand_trunc",
}


def sounds(*seconds: float) -> list[Sound]:
    rng = np.random.default_rng(0)
    return [
        Sound(rng.normal(0.02, 0.1, (1, round(s * 16000))).astype(np.float32), 16000)
        for s in seconds
    ]


def arrays(*seconds: float) -> list[np.ndarray]:
    return [s.samples[0] for s in sounds(*seconds)]


def saved(kind: str, folder: Path, steps: Any, **config: Any) -> Any:
    """A checkpoint of a random model of transformers, and that model."""
    torch.manual_seed(5)
    built = getattr(transformers, kind)
    model = built(built.config_class(**config)).eval()
    model.save_pretrained(folder)
    steps.save_pretrained(folder)
    return model


def loaded(kind: type[Encoder], folder: Path, **options: Any) -> Encoder:
    section = {"name": str(folder), **options}
    assert kind.has_pretrained_weights(section)
    torch.manual_seed(6)
    encoder = kind(**kind.resolve(section)).eval()
    encoder.load()
    return encoder


def batch(encoder: Encoder, *seconds: float) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.processor.prepare(s) for s in sounds(*seconds)])


CTC: dict[str, tuple[str, dict[str, Any]]] = {
    "group": ("Wav2Vec2ForCTC", CONV),
    "layer": ("Wav2Vec2ForCTC", {**CONV, **STABLE}),
    "hubert": ("HubertForCTC", {**CONV, **STABLE}),
    "wavlm": ("WavLMForCTC", {**CONV, **STABLE}),
}


@pytest.mark.parametrize("case", CTC)
def test_logits_of_a_ctc_model(case: str, tmp_path: Path) -> None:
    kind, config = CTC[case]
    layered = case != "group"
    steps = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=layered, do_normalize=True)
    model = saved(kind, tmp_path, steps, **config)
    encoder = loaded(Wav2Vec2, tmp_path)
    lengths = (0.5, 0.3) if layered else (0.5, 0.5)
    inputs = steps(arrays(*lengths), sampling_rate=16000, padding=True, return_tensors="pt")
    want = model(**inputs).logits
    features = encoder(**batch(encoder, *lengths))
    result = model.lm_head(features.tokens)
    assert features.tokens.shape[1] == want.shape[1]
    for row, length in enumerate(features.lengths):
        assert torch.allclose(result[row, :length], want[row, :length], atol=1e-5)
    if layered:
        assert encoder.batch_invariant
        assert features.lengths[1] < features.lengths[0]


def test_logits_of_w2v_bert(tmp_path: Path) -> None:
    steps = transformers.SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20)
    config = {**LAYERS, "feature_projection_input_dim": 40, "vocab_size": 12}
    model = saved("Wav2Vec2BertForCTC", tmp_path, steps, **config)
    encoder = loaded(Wav2Vec2, tmp_path)
    inputs = steps(arrays(0.5, 0.3), sampling_rate=16000, padding=True, return_tensors="pt")
    want = model(**inputs).logits
    features = encoder(**batch(encoder, 0.5, 0.3))
    for row, length in enumerate(features.lengths):
        assert length == inputs["attention_mask"][row].sum()
        result = model.lm_head(features.tokens[row, :length])
        assert torch.allclose(result, want[row, :length], atol=1e-5)


def test_states_of_whisper(tmp_path: Path) -> None:
    steps = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    model = saved("WhisperForConditionalGeneration", tmp_path, steps, **WHISPER)
    encoder = loaded(Whisper, tmp_path)
    for seconds in ((0.5, 1.3), (2.0, 1.995), (0.03, 1.0)):
        inputs = steps(arrays(*seconds), sampling_rate=16000, return_tensors="pt").input_features
        mine = batch(encoder, *seconds)
        assert torch.equal(mine["values"], inputs)  # also the silence that no sample holds
        want = model.model.encoder(inputs, output_hidden_states=True)
        features = encoder(**mine, hidden_states=(0, -1))
        assert features.lengths.tolist() == [int(np.ceil(s * 50 - 1e-9)) for s in seconds]
        for row, length in enumerate(features.lengths):
            real = slice(0, int(length))
            for result, state in (
                (features.tokens, want.last_hidden_state),
                (features.hidden_states[0].tokens, want.hidden_states[1]),
            ):
                assert torch.allclose(result[row, real], state[row, real], atol=1e-5)
    assert features.spacing == (0.02,)


def test_a_sample_of_whisper_holds_the_sound_alone(tmp_path: Path) -> None:
    config = {"model_type": "whisper", **WHISPER}
    processor = Whisper(config=config).processor
    assert processor.prepare(sounds(0.5)[0])["values"].shape[0] < 60
    with pytest.raises(ReadError, match=r"2.1 s of sound; expected at most 2 s"):
        processor.prepare(sounds(2.1)[0])


def test_states_of_ast(tmp_path: Path) -> None:
    steps = transformers.ASTFeatureExtractor(num_mel_bins=36, max_length=66)
    config = {**LAYERS, "num_mel_bins": 36, "max_length": 66}
    model = saved("ASTForAudioClassification", tmp_path, steps, **config)
    encoder = loaded(AST, tmp_path)
    inputs = steps(arrays(0.5, 0.3), sampling_rate=16000, return_tensors="pt")
    want = model.audio_spectrogram_transformer(**inputs)
    features = encoder(**batch(encoder, 0.5, 0.3))
    assert torch.allclose(features.pooled, want.pooler_output, atol=1e-5)
    times, bands = features.grid
    patches = want.last_hidden_state[:, 2:].unflatten(1, (bands, -1))  # bands come first there
    mine = features.tokens.unflatten(1, (times, bands))
    assert torch.allclose(mine[0], patches[0].transpose(0, 1)[:times], atol=1e-5)
    assert features.lengths[1] < features.lengths[0] == times * bands
    with pytest.raises(ReadError, match="cut it by start and end"):
        encoder.processor.prepare(sounds(0.8)[0])


@pytest.mark.parametrize("output", ["tokens", "embedding"])
def test_vectors_of_clap(output: str, tmp_path: Path) -> None:
    steps = transformers.ClapFeatureExtractor(**CLAP_STEPS)
    text = {**LAYERS, "vocab_size": 50, "max_position_embeddings": 20}
    model = saved(
        "ClapModel", tmp_path, steps, audio_config=HTSAT, text_config=text, projection_dim=24
    )
    encoder = loaded(Clap, tmp_path, output=output)
    inputs = steps(arrays(0.5, 0.3), sampling_rate=16000, return_tensors="pt")
    want = model.audio_model(**inputs)
    features = encoder(**batch(encoder, 0.5, 0.3))
    vector = want.pooler_output
    if output == "embedding":
        vector = model.audio_projection(vector)
        assert torch.equal(features.tokens[:, 0], features.pooled)
    else:
        times, bands = features.grid
        cells = features.tokens.unflatten(1, (times, bands))
        assert torch.allclose(cells.permute(0, 3, 2, 1), want.last_hidden_state, atol=1e-5)
    assert torch.allclose(features.pooled, vector, atol=1e-5)
    with pytest.raises(ReadError, match="at most 1 s"):
        encoder.processor.prepare(sounds(1.2)[0])


def group(folder: Path) -> Any:
    steps = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    return saved("Wav2Vec2ForCTC", folder, steps, **CONV)


def test_a_base_kind_reads_padding_and_says_so(tmp_path: Path) -> None:
    group(tmp_path)
    encoder = loaded(Wav2Vec2, tmp_path)
    assert not encoder.batch_invariant
    alone, beside = encoder(**batch(encoder, 0.3)), encoder(**batch(encoder, 0.3, 0.5))
    length = int(alone.lengths[0])
    assert not torch.allclose(alone.tokens[0], beside.tokens[0, :length], atol=1e-3)


def test_a_task_masks_tokens_and_nothing_else_does(tmp_path: Path) -> None:
    group(tmp_path)
    noises = ("attention_dropout", "activation_dropout", "feat_proj_dropout", "hidden_dropout")
    encoder = loaded(Wav2Vec2, tmp_path, config=dict.fromkeys((*noises, "layerdrop"), 0.0))
    inputs = batch(encoder, 0.4, 0.4)
    plain = encoder(**inputs)
    assert torch.allclose(encoder.train()(**inputs).tokens, plain.tokens, atol=1e-6)
    hidden = torch.zeros_like(plain.mask)
    hidden[:, 3] = True
    assert not torch.allclose(encoder.eval()(**inputs, token_mask=hidden).tokens, plain.tokens)
    assert "token_mask" in encoder.supports


def test_a_checkpoint_without_a_weight_is_refused(tmp_path: Path) -> None:
    group(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = {k: v for k, v in load_file(path).items() if "layers.1.feed_forward" not in k}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 4 weights of Wav2Vec2Model, encoder"):
        loaded(Wav2Vec2, tmp_path)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    group(tmp_path)
    with pytest.raises(ValueError, match="found model_type 'wav2vec2', expected whisper"):
        Whisper(**Whisper.resolve({"name": str(tmp_path)}))
    with pytest.raises(ValueError, match="nowhere has no model or no feature extractor"):
        Whisper.resolve({"name": f"local-dir:{tmp_path}/nowhere"})
    with pytest.raises(ValueError, match="found model_type None"):
        Whisper()
    with pytest.raises(ValueError, match="makes 3000 frames, the model takes 200"):
        Whisper(
            config={"model_type": "whisper", **WHISPER},
            processor={
                "feature_extractor_type": "WhisperFeatureExtractor",
                "feature_size": 20,
                "sampling_rate": 16000,
                "hop_length": 160,
                "chunk_length": 30,
            },
        )
    with pytest.raises(ValueError, match="carries no pretrained weights"):
        Whisper(config={"model_type": "whisper", **WHISPER}).load()
    assert not Whisper.has_pretrained_weights({"config": {"model_type": "whisper"}})
    assert not Whisper.has_pretrained_weights({"name": f"local-dir:{tmp_path.parent}"})
    with pytest.raises(ReadError, match="at least one window"):
        loaded(Wav2Vec2, tmp_path).processor.prepare(sounds(0.01)[0])
