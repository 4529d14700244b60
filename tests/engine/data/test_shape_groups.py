"""Encoders whose features padding changes: each row has the features that it has alone, in
training, evaluation, the cache, embedding and the pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.engine.data import Collator, TaskDataset, batches, sequential_batches, task_dataset
from sensorium.engine.embedding import embed, index_metadata
from sensorium.engine.embedding.data_spec import DataSpec
from sensorium.engine.index import open_index
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import FeatureCacher, Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import read_metrics
from sensorium.modalities.audio.read import Sound
from sensorium.modalities.base import Features, Source
from sensorium.tasks.batch import Batch

SPEECH = {
    "model_type": "wav2vec2",
    "feat_extract_norm": "group",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 4],
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("feat_proj_dropout", "layerdrop"), 0.0),
}
STEPS = (4000, 9000, 4000, 6500, 9000, 5000)


class Sounds(Source):
    """Noise of a few lengths, in 16 kHz."""

    columns = ("audio", "word")

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return len(STEPS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        samples = np.random.default_rng(index).normal(0, 0.1, (1, STEPS[index]))
        return {"audio": Sound(samples.astype(np.float32), 16000), "word": "ab"[index % 2]}

    def fingerprint(self) -> str:
        return f"sounds {STEPS}"


def recipe(*, freeze: bool, cached: bool = True, steps: int = 0, **task: Any) -> dict[str, Any]:
    data = {split: {"source": f"{__name__}:Sounds"} for split in ("train", "test")}
    return {
        "inputs": {
            "audio": {
                "modality": "audio",
                "encoder": {"type": "wav2vec2", "config": SPEECH, "freeze": freeze},
                "connector": "mlp",
            }
        },
        "tasks": {
            "word": {"type": "classification", "input": "audio", "target": "word", "data": data}
            | task
        },
        "train": {"steps": steps, "batch_size": 6, "optimizer": {"lr": 0.01}, "log_every": 1},
        "cache": {"features": cached},
    }


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("groups")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def model() -> Model:
    result = build(parse_recipe(recipe(freeze=True)))
    assert not result.stream("audio").encoder.batch_invariant
    return result


@pytest.fixture(scope="module")
def alone(model: Model) -> list[Tensor]:
    """`[T_i, D]` the encoder's features of each row by itself."""
    encoder, result = model.stream("audio").encoder.eval(), []
    for row in Sounds():
        with torch.no_grad():
            features = encoder(**encoder.collate([encoder.processor.prepare(row["audio"])]))
        result.append(features.tokens[0])
    return result


def dataset(model: Model, training: bool = False) -> TaskDataset:
    return task_dataset(model.plan, model.encoders(), "word", Sounds(), training=training)


def batch_of(model: Model, rows: TaskDataset) -> Batch:
    (batch,) = batches({"word": rows}, sequential_batches(rows, 6), Collator(model.encoders()))
    return batch


def assert_alone(features: Features, alone: list[Tensor]) -> None:
    assert features.lengths.tolist() == [len(tokens) for tokens in alone]
    for tokens, mask, row_tokens in zip(features.tokens, features.mask, alone, strict=True):
        torch.testing.assert_close(tokens[mask], row_tokens, rtol=0, atol=1e-5)
        assert not tokens[~mask].any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_features_are_those_of_the_row_alone(
    model: Model, alone: list[Tensor], training: bool, cached: bool
) -> None:
    rows = dataset(model, training)
    if cached:
        FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 6).attach([rows])
    batch = batch_of(model, rows)
    assert ("audio" in batch.features) == cached
    with torch.no_grad():
        assert_alone(model.train(training).context(batch).encode("audio.encoder"), alone)


def test_geometry_is_that_of_the_cache(model: Model) -> None:
    rows = dataset(model)
    plain = model.context(batch_of(model, rows)).encode("audio.encoder")
    FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 6).attach([rows])
    stored = batch_of(model, rows).features["audio"]
    assert (plain.grid, plain.spacing, plain.origin) == (stored.grid, stored.spacing, stored.origin)
    assert torch.equal(plain.mask, stored.mask)


@pytest.mark.slow
@pytest.mark.quick_share(3)
@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_embeddings_are_those_of_the_row_alone(
    model: Model, alone: list[Tensor], home: Path, batch_size: int
) -> None:
    stream = model.stream("audio").eval()
    with torch.no_grad():
        ends = [stream(Features.dense(tokens[None])) for tokens in alone]
        expected = torch.cat([F.normalize(end.pool(), dim=-1) for end in ends])
    sounds = [row["audio"] for row in Sounds()]
    torch.testing.assert_close(Pipeline(model).embed(audio=sounds), expected, rtol=0, atol=1e-5)
    place = str(home / f"index-{batch_size}")
    embed(
        model, index_metadata(model, "audio", "run", ()), DataSpec(Sounds(), "", "{}"), place,
        batch_size=batch_size,
    )  # fmt: skip
    stored = {row["key"]: row["vector"] for row in open_index(place).where(None, ["key", "vector"])}
    result = torch.tensor([stored[str(i)] for i in range(len(STEPS))])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_predictions_do_not_depend_on_the_batch(model: Model) -> None:
    sounds = [row["audio"] for row in Sounds()]
    pipeline = Pipeline(model)
    together = pipeline.generate("word", audio=sounds)
    for prediction, sound in zip(together, sounds, strict=True):
        single = pipeline.generate("word", audio=sound)
        assert prediction["scores"] == pytest.approx(single["scores"], abs=1e-5)


def gradients(model: Model, batches_: list[Batch]) -> dict[str, Tensor]:
    model.train().zero_grad()
    for batch in batches_:
        model(batch).total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_gradients_are_the_sum_of_those_of_the_rows() -> None:
    model = build(parse_recipe(recipe(freeze=False)))
    rows, collate = dataset(model), Collator(model.encoders())
    items = [rows.prepare(i) for i in range(len(STEPS))]
    together = gradients(model, [collate("word", items)])
    apart = gradients(model, [collate("word", [item]) for item in items])
    assert together.keys() == apart.keys()
    assert any(name.startswith("streams.audio.encoder") for name in together)
    for name, value in apart.items():
        scale = float(value.abs().max()) + 1e-3
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-4 * scale, msg=name)


@pytest.mark.parametrize("chunk", [1, 2, 4, 6])
def test_chunks_change_nothing(chunk: int) -> None:
    model = build(parse_recipe(recipe(freeze=False)))
    batch, result = batch_of(model, dataset(model)), []
    for rows in (None, chunk):
        model.train().zero_grad()
        features = model.context(batch).encode("audio", chunk=rows)
        (features.tokens * torch.arange(features.tokens.shape[1])[:, None]).sum().backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        result.append((features, grads))
    (whole, expected), (chunked, grads) = result
    assert torch.equal(whole.mask, chunked.mask) and whole.grid == chunked.grid
    torch.testing.assert_close(chunked.tokens, whole.tokens, rtol=0, atol=1e-5)
    for name, value in expected.items():
        scale = float(value.abs().max()) + 1e-3
        torch.testing.assert_close(grads[name], value, rtol=0, atol=1e-4 * scale, msg=name)


def test_masks_over_tokens_are_refused(model: Model) -> None:
    batch = batch_of(model, dataset(model))
    hidden = torch.zeros(6, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match="token_mask: the samples differ in shape"):
        model.context(batch).encode("audio.encoder", token_mask=hidden)


def test_check_walks_rows_of_different_shapes() -> None:
    report = check(parse_recipe(recipe(freeze=False, steps=1)))
    assert next(s for s in report.components if s.where == "inputs.audio.encoder").shape


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(runner: Any) -> None:
    """Processes hold different numbers of groups."""
    shutil.copy(__file__, runner.folder / "grouped.py")
    data = {"train": {"source": "grouped:Sounds"}, "test": None}
    one = runner.changed(recipe(freeze=False, steps=3), {"tasks": {"word": {"data": data}}})
    runner.train(one, "one")
    done = runner.go(runner.changed(one, {"train": {"batch_size": 3}}), "two", processes=2)
    assert done.returncode == 0, done.stderr
    result, expected = ([loss for *_, loss in runner.losses(name)] for name in ("two", "one"))
    assert result == pytest.approx(expected, abs=1e-5)


def test_cached_and_uncached_runs_agree(home: Path) -> None:
    losses = {}
    for cached in (True, False):
        folder = home / f"run-{cached}"
        train(parse_recipe(recipe(freeze=True, cached=cached, steps=4)), folder, show=False)
        losses[cached] = [line["loss"] for line in read_metrics(folder) if "loss" in line]
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)
