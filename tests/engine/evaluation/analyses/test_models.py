"""Analyses of whole models: identities, and planted structure that they must find."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.evaluation import evaluate
from sensorium.engine.evaluation.analyses import Subject, analyze
from sensorium.engine.evaluation.analyses.activations import router_statistics
from sensorium.engine.evaluation.analyses.circuits import channel
from sensorium.engine.evaluation.analyses.models import (
    fit_model_vectors,
    routed_accuracy,
)
from sensorium.engine.model import FeatureCacher, Model
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.evaluation.analyses.analyzed import RECIPE, Subjects

Rows = list[dict[str, Any]]


def by(rows: Rows, key: str) -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in rows}


@pytest.mark.parametrize("name", ["logme", "probe", "abx", "isotropy"])
def test_every_layer_has_a_row(subject: Subjects, name: str) -> None:
    options = {"target": "word"} if name != "isotropy" else {}
    rows = analyze(subject("digit", limit=40), name, options)
    names = [row["layer"] for row in rows]
    assert names == [*(f"layer {i}" for i in range(len(names) - 2)), "output", "connector"]
    for row in rows:
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))


def test_features_come_from_the_cache_the_second_time(
    subject: Subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = subject("digit").features("image")

    def never(*_: Any) -> None:
        raise AssertionError("the encoder ran")

    monkeypatch.setattr(FeatureCacher, "_encode", never)
    again = subject("digit").features("image")
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values)


def test_layers_are_those_of_the_encoder(subject: Subjects, model: Model) -> None:
    """Not the connector's, nor in another order."""
    each = subject("digit")
    vectors = each.features("image")
    encoder = model.stream("image").encoder
    batch = next(each.batches())
    inputs = batch.streams.get("image") or {}
    if inputs:
        with torch.no_grad():
            out = encoder(**inputs["main"], hidden_states=(0,))
        expected = out.hidden_states[0].pool().double().numpy()
        np.testing.assert_allclose(vectors["layer 0"][: len(expected)], expected, atol=1e-5)


def test_similarity_of_layers_is_a_table_of_pairs(subject: Subjects) -> None:
    rows = analyze(subject("digit"), "similarity", {})
    assert all(0 <= row["cka"] <= 1 + 1e-9 for row in rows)
    names = {row["first"] for row in rows} | {row["second"] for row in rows}
    assert len(rows) == len(names) * (len(names) - 1) / 2


def test_ablating_nothing_changes_nothing(subject: Subjects) -> None:
    rows = analyze(subject(), "ablation", {"heads": [], "feed_forward": False})
    assert len(rows) == 1
    assert rows[0]["without"] == "nothing"
    assert rows[0]["loss_change"] == 0
    assert rows[0]["logit_change"] == 0


def test_each_head_and_feed_forward_is_taken_out_once(subject: Subjects) -> None:
    rows = by(analyze(subject(limit=8), "ablation", {}), "without")
    heads = {f"head {i}.{h}" for i in range(2) for h in range(2)}
    assert rows.keys() == {"nothing", "feed-forward 0", "feed-forward 1"} | heads
    assert all(row["logit_change"] > 0 for key, row in rows.items() if key != "nothing")


def test_a_dead_head_is_found(make_subject: Callable[..., Subject]) -> None:
    each = make_subject({}, task="caption", limit=6)
    decoder = each.decoder()
    output: Any = [m for n, m in decoder.named_modules() if n.endswith("o_proj")][1]
    output.weight.data[:, :8] = 0  # the first head of the second layer writes nothing
    rows = by(analyze(each, "ablation", {"feed_forward": False}), "without")
    assert rows["head 1.0"]["logit_change"] == 0
    assert all(rows[f"head {name}"]["logit_change"] > 0 for name in ("0.0", "0.1", "1.1"))


def test_heads_of_an_encoder_can_be_taken_out(subject: Subjects) -> None:
    rows = analyze(subject("digit", limit=8), "ablation", {"part": "image", "layers": [0]})
    assert len(rows) > 2
    assert any(row["loss_change"] != 0 for row in rows[1:])


def test_a_planted_channel_ranks_first(make_subject: Callable[..., Subject]) -> None:
    each = make_subject({}, task="caption")
    maps = dict(each.decoder().named_modules())

    def find(layer: int, name: str) -> Any:
        return next(m for n, m in maps.items() if f"layers.{layer}." in n and n.endswith(name))

    direction = torch.nn.functional.normalize(torch.randn(16), dim=0)
    output, query = find(0, "o_proj").weight.data, find(1, "q_proj").weight.data
    output[:, 8:] += 4 * torch.outer(direction, torch.ones(8))  # head 0.1 writes one direction
    query[:8] += 4 * torch.outer(torch.ones(8), direction)  # the queries of head 1.0 read it
    first = analyze(each, "composition", {"top": 5})[0]
    assert (first["from"], first["to"], first["by"]) == ("0.1", "1.0", "query")
    assert first["component"] > 0.9
    assert first["score"] > 1.5 * first["random"]


def test_composition_is_its_definition() -> None:
    reader, writer = torch.randn(5, 5), torch.randn(5, 5)
    score, share = channel(reader, writer)
    norm = torch.linalg.norm
    assert score == pytest.approx(float(norm(reader @ writer) / norm(reader) / norm(writer)))
    assert 1 / 5 < share <= 1
    assert channel(reader, torch.outer(writer[0], writer[1]))[1] == pytest.approx(1)


@pytest.mark.slow
def test_dropping_needs_a_budget(subject: Subjects) -> None:
    """No share rises above the budget, a larger budget never drops less, and what is dropped is
    small: random weights lose little by half of their activations."""
    small = by(analyze(subject(limit=8), "sparsity", {"percent": 0.0, "rounds": 4}), "layer")
    large = by(analyze(subject(limit=8), "sparsity", {"percent": 50.0, "rounds": 4}), "layer")
    assert small.keys() == {"all", "0", "1"}
    for name, row in large.items():
        assert row["perplexity_ratio"] <= 1.5 + 1e-6
        assert row["sparsity"] >= small[name]["sparsity"]
    assert large["all"]["sparsity"] > 0.5


def test_units_that_are_never_active_are_sparse(make_subject: Callable[..., Subject]) -> None:
    each = make_subject({}, task="caption", limit=6)
    for name, module in each.decoder().named_modules():
        if name.endswith(("gate_proj", "up_proj")):
            module.weight.data[:12] = 0  # half of the 24 units
    row = analyze(each, "sparsity", {"percent": 0.0})[0]
    assert row["sparsity"] >= 0.5 - 1 / 24


def test_routers_that_choose_by_token_are_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(8, (200,), generator=generator)
    positions = torch.arange(200) % 20
    by_id = torch.nn.functional.one_hot(ids % 4, 4).float()
    seen = router_statistics(by_id, ids, positions, positions >= 10)
    assert seen["by_token"] == 1
    assert seen["by_chance"] < 0.7
    assert seen["balance"] > 0.95
    one = router_statistics(torch.tensor([[1.0, 0.0]] * 200), ids, positions, positions >= 10)
    assert (one["balance"], one["busiest"]) == (0, 1)
    assert one["late_drop"] == 1  # what is beyond capacity is what comes last


def test_routers_of_a_mixture(make_subject: Callable[..., Subject]) -> None:
    decoder = {
        "type": "causal",
        "tokenizer": "bytes",
        "weights": "none",
        "config": {**_mixtral(), "model_type": "mixtral"},
    }
    rows = analyze(make_subject({"backbone": decoder}, task="caption"), "routers", {})
    assert [row["layer"] for row in rows] == [0, 1]
    assert all(1 / 4 <= row["busiest"] <= 1 and 0 < row["balance"] <= 1 for row in rows)


def _mixtral() -> dict[str, Any]:
    return {**RECIPE["backbone"]["options"], "num_local_experts": 4}


def test_a_model_without_routers_is_refused(subject: Subjects) -> None:
    with pytest.raises(ConfigError, match="has no routers"):
        analyze(subject(), "routers", {})


@pytest.mark.slow
def test_texts_are_recovered_from_wider_vectors(subject: Subjects, model: Model) -> None:
    before = {k: v.clone() for k, v in model.decoders.state_dict().items()}
    options = {"sizes": [1, 48], "texts": 3, "steps": 60, "tokens": 3}
    small, large = analyze(subject(), "inversion", options)
    assert large["loss"] < small["loss"]
    assert large["words"] >= small["words"]
    assert large["random"] < 0.5
    for name, value in model.decoders.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in model.parameters())


def test_routing_beats_the_best_single_model() -> None:
    generator = torch.Generator().manual_seed(0)
    skills, questions = torch.randn(6, 4, generator=generator), torch.randn(800, 4)
    correct = ((skills @ questions.T) > 0).long()
    vectors = fit_model_vectors(correct[:, :500], questions[:500], dim=8)
    held = correct[:, 500:]
    best = float(held.float().mean(1).max())
    assert routed_accuracy(vectors.route(questions[500:]), held) > best + 0.1
    others = vectors.vectors.weight[:5].detach().clone()
    projection = vectors.project.weight.detach().clone()
    vectors.add_model(questions[:500], correct[5, :500])
    assert torch.equal(vectors.vectors.weight[:5], others)
    assert torch.equal(vectors.project.weight, projection)
    forecast = (vectors(questions[500:])[-1] > 0).long()
    assert float((forecast == correct[5, 500:]).float().mean()) > 0.8


@pytest.mark.slow
def test_runs_are_routed(home: Path) -> None:
    recipe = {**RECIPE, "tasks": {"digit": RECIPE["tasks"]["digit"]}}
    recipe.pop("backbone", None)
    recipe["inputs"] = {"image": {**RECIPE["inputs"]["image"]}}
    recipe["inputs"]["image"].pop("connector")
    for seed in (0, 1):
        run = home / f"run{seed}"
        settings = {**recipe, "train": {**recipe["train"], "steps": 4 + seed, "seed": seed}}
        model = train(parse_recipe(settings), run, show=False)
        evaluate(model, folder=run, input_ablation=False)
    subject = Subject.of(model, limit=40)
    rows = by(analyze(subject, "model_vectors", {"runs": ["run0", "run1"]}), "model")
    assert rows.keys() == {"run0", "run1", "routed", "any"}
    assert rows["any"]["accuracy"] >= max(r["accuracy"] for r in rows.values()) - 1e-9
    with pytest.raises(ConfigError, match="sensorium evaluate nowhere"):
        analyze(subject, "model_vectors", {"runs": ["nowhere"]})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("logm", {}, "logme"),
        ("logme", {"targt": "word"}, "target"),
        ("logme", {"target": "nothing"}, "no column 'nothing'"),
        ("probe", {"folds": "many"}, "folds"),
        ("ablation", {"part": "sound"}, "no 'sound'"),
        ("alignment", {}, "expected two"),
    ],
)
def test_mistakes_are_one_line(
    subject: Subjects, name: str, options: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        analyze(subject("digit"), name, options)
    assert "\n" not in str(caught.value)
