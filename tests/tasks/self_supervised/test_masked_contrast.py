"""Masked contrastive learning: transformers' loss of wav2vec 2.0, masks, negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sensorium.engine.checkpoint.exchange.parts import export_part
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.modalities.audio.encoders.wav2vec2 import Wav2Vec2
from sensorium.modalities.audio.read import Sound
from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.self_supervised.masked_contrast import (
    MaskedContrast,
    contrast,
    draw_mask,
    draw_negatives,
)
from sensorium.testing.context import StubContext

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 4],
    "num_codevectors_per_group": 8,
    "codevector_dim": 16,
    "proj_codevector_dim": 12,
    "num_negatives": 7,
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.0),
    **dict.fromkeys(("activation_dropout", "feat_quantizer_dropout", "final_dropout"), 0.0),
}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
KINDS = {
    "wav2vec2": ("Wav2Vec2", LAYER),
    "wav2vec2-conformer": ("Wav2Vec2Conformer", LAYER),
}


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def sounds(lengths: tuple[int, ...] = (9_600, 6_400, 8_000)) -> list[Sound]:
    rng = np.random.default_rng(0)
    return [Sound(rng.normal(0, 0.1, (1, n)).astype(np.float32), 16_000) for n in lengths]


@pytest.fixture(
    scope="module",
    params=["wav2vec2", pytest.param("wav2vec2-conformer", marks=pytest.mark.slow)],
)
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of pre-training, as transformers writes it."""
    name, more = KINDS[request.param]
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **more})
    getattr(transformers, f"{name}ForPreTraining")(config).save_pretrained(path)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(path)
    return path


def opened(path: Path, **options: Any) -> Wav2Vec2:
    encoder = Wav2Vec2(**Wav2Vec2.resolve({"name": str(path), **options}))
    encoder.load()
    return encoder


class Live(StubContext):
    """Encodes a batch of sounds by a real encoder."""

    def __init__(self, part: Any, inputs: dict[str, torch.Tensor]) -> None:
        super().__init__({})
        self.part, self.inputs = part, inputs

    def encode(self, stream: str, view: str = "main", **options: Any) -> Features:
        if stream.endswith(".targets"):
            targets: Features = self.part.targets(**self.inputs)
            return targets
        features: Features = self.part(**self.inputs, **options)
        return features


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_transformers(folder: Path, training: bool) -> None:
    """Of a checkpoint, on the same masks and negatives: both parts, and the gradients."""
    encoder = opened(folder, quantizer=True).train(training)
    peer: Any = transformers.AutoModelForPreTraining.from_pretrained(folder).train(training)
    peer.config.mask_time_prob = peer.config.mask_feature_prob = 0.0
    inputs = encoder.collate([encoder.processor.prepare(sound) for sound in sounds()])
    task = MaskedContrast(input="audio", mask_length=3, negatives=7).train(training)
    context = Live(encoder, inputs)
    torch.manual_seed(1)
    loss = task.loss(Batch.of("task", ["a", "b", "c"], []), context)

    same = torch.Generator().manual_seed(0)
    masked = task.masks(encoder.targets(**inputs), [same] * 3)
    places, others = draw_negatives(masked, 7, [same] * 3)
    indices = torch.zeros(masked.numel(), 7, dtype=torch.long)
    indices[places] = places[others]
    torch.manual_seed(1)
    peer.set_gumbel_temperature(2.0)
    output = peer(
        inputs["values"],
        attention_mask=inputs["mask"].long(),
        mask_time_indices=masked,
        sampled_negative_indices=indices.view(*masked.shape, 7),
    )
    assert loss.count == int(masked.sum())
    torch.testing.assert_close(loss.total, output.loss, rtol=1e-4, atol=1e-4)
    for part in ("contrastive", "diversity"):
        theirs = getattr(output, f"{part}_loss")
        torch.testing.assert_close(loss.parts[part], theirs, rtol=1e-4, atol=1e-4)
    loss.total.backward()
    output.loss.backward()
    ours = {**dict(encoder.model.named_parameters()), **dict(encoder.heads.named_parameters())}
    prefix = f"{peer.base_model_prefix}."
    for name, parameter in peer.named_parameters():
        gradient = ours[name.removeprefix(prefix)].grad
        assert (gradient is None) == (parameter.grad is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-4)


def test_the_encoder_keeps_the_keys_of_its_own_model(folder: Path, tmp_path: Path) -> None:
    """What pre-training leaves opens as the encoder that CTC reads; a plain checkpoint has no
    quantizer, and says so."""
    encoder = opened(folder, quantizer=True)
    encoder.model.save_pretrained(tmp_path)
    encoder.config.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    plain = opened(tmp_path)
    assert set(plain.model.state_dict()) == set(encoder.model.state_dict())
    assert not len(plain.heads) and "quantizer" not in plain.supports
    whole: Any = transformers.AutoModelForPreTraining.from_pretrained(folder)
    base = whole.base_model.state_dict()
    assert all(torch.equal(base[name], value) for name, value in plain.model.state_dict().items())
    with pytest.raises(ValueError, match=r"lacks \d+ weights of \w+ForPreTraining"):
        opened(tmp_path, quantizer=True)


def melodies(seed: int) -> list[Sound]:
    """Six sounds of eight tones each, in random order."""
    rng = np.random.default_rng(seed)
    hertz = rng.choice([200, 400, 800, 1600, 3200], (6, 8)).repeat(1200, 1)
    waves = 0.3 * np.sin(2 * np.pi * hertz.cumsum(1) / 16_000).astype(np.float32)
    return [Sound(wave[None], 16_000) for wave in waves]


@pytest.mark.parametrize("folder", ["wav2vec2"], indirect=True)
def test_continued_training_tells_tones_apart(folder: Path) -> None:
    """On melodies that it has not heard, from the checkpoint's weights; in noise, where no token
    says anything of another, it does not help."""
    encoder = opened(folder, quantizer=True)
    task = MaskedContrast(input="audio", mask_length=3, negatives=7)

    def inputs(sounds: list[Sound]) -> dict[str, torch.Tensor]:
        return encoder.collate([encoder.processor.prepare(sound) for sound in sounds])

    batch = Batch.of("task", list("abcdef"), [])
    unheard, noise = inputs(melodies(99)), inputs(sounds((9_600,) * 6))

    def accuracy(values: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            rows = task.eval().predict(batch, Live(encoder.eval(), values))
        metrics = task.metrics()
        metrics.update(rows, [{}] * len(rows))
        return metrics.compute()["accuracy"]

    before = accuracy(unheard)
    optimizer = torch.optim.AdamW(encoder.parameters(), 1e-3)
    for step in range(40):
        context = Live(encoder.train(), inputs(melodies(step)))
        context.generator.manual_seed(step)
        loss = task.train().loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    after = accuracy(unheard)
    assert after > before + 0.2 and after > accuracy(noise) + 0.2


@pytest.mark.parametrize("folder", ["wav2vec2"], indirect=True)
def test_ctc_reads_what_it_leaves(folder: Path, tmp_path: Path) -> None:
    """The exported encoder begins a recipe of CTC with its weights, mask token and all."""

    def stream(**options: Any) -> dict[str, Any]:
        encoder = {"type": "wav2vec2", "weights": "pretrained", **options}
        return {"audio": {"modality": "audio", "encoder": encoder}}

    task = {"type": "masked_contrast", "input": "audio"}
    inputs = stream(name=str(folder), quantizer=True)
    model = build(parse_recipe({"inputs": inputs, "tasks": {"listen": task}}))
    export_part(model, "encoder", "hf", tmp_path / "hf")
    again = opened(tmp_path / "hf")
    state = model.stream("audio").encoder.model.state_dict()
    assert state.keys() == again.model.state_dict().keys() and "masked_spec_embed" in state
    rows = {"train": {"source": "sounds", "split": "train", "count": 4}}
    ctc = {"type": "ctc", "tokenizer": "characters", "target": "{caption}", "data": rows}
    recipe = parse_recipe({"inputs": stream(name=str(tmp_path / "hf")), "tasks": {"read": ctc}})
    encoder = build(recipe).stream("audio").encoder
    assert encoder.model.state_dict().keys() == state.keys()
    assert all(torch.equal(state[n], v) for n, v in again.model.state_dict().items())


def test_a_model_without_that_loss_is_refused() -> None:
    config = {"model_type": "hubert", **SIZES}
    with pytest.raises(ValueError, match="no contrastive loss for hubert"):
        Wav2Vec2(config=config, quantizer=True)


@pytest.mark.parametrize("length", [*range(1, 6), 17, 200])
def test_masks_are_spans_of_real_tokens(length: int) -> None:
    for generator in generators(20):
        row = torch.zeros(length, dtype=torch.bool)
        draw_mask(row, 0.65, 10, generator)
        text = "".join("x" if masked else " " for masked in row.tolist())
        assert min(map(len, text.split()), default=0) >= min(10, length)
        assert sum(row.tolist()) >= min(length, 2)


def test_half_of_the_tokens_are_masked() -> None:
    """49 % with the paper's 0.065 spans a token of length 10."""
    shares = []
    for generator in generators(100):
        row = torch.zeros(500, dtype=torch.bool)
        draw_mask(row, 0.65, 10, generator)
        shares.append(float(row.float().mean()))
    assert abs(np.mean(shares) - 0.49) < 0.02


def test_negatives_are_other_masked_tokens_of_the_row() -> None:
    masked = torch.rand(4, 30, generator=generators(1)[0]) < 0.4
    masked[2] = False
    places, others = draw_negatives(masked, 200, generators(4))
    assert torch.equal(places, masked.flatten().nonzero()[:, 0])
    assert torch.equal(places[others] // 30, (places // 30)[:, None].expand(-1, 200))
    assert (places[others] != places[:, None]).all() and masked.flatten()[places[others]].all()
    row = others[places // 30 == 0]
    assert len(row[0].unique()) == int(masked[0].sum()) - 1  # each of them is drawn


def test_an_equal_vector_is_no_negative() -> None:
    quantized = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    logits = contrast(quantized, quantized, torch.arange(3), torch.tensor([[1], [2], [0]]), 0.1)
    assert contrast(quantized, quantized, torch.tensor([2]), torch.tensor([[0]]), 1.0)[0, 1] < 0
    assert logits[0].tolist() == [10.0, float("-inf")] and logits[1:].isfinite().all()
