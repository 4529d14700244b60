"""Fisher information of layers: its definition, planted structure, and tuning the best layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sensorium.engine.evaluation.analyses import Subject, analyze
from sensorium.engine.model.parameters.selectors import select
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.evaluation.analyses.analyzed import LLAMA, RECIPE, Subjects


def test_it_is_the_mean_square_of_the_gradients_of_rows(subject: Subjects, tmp_path: Path) -> None:
    each = subject(limit=5)
    file = tmp_path / "fisher.safetensors"
    rows = analyze(each, "fisher", {"save": str(file)})
    decoder = each.decoder().requires_grad_(True)
    expected = {name: torch.zeros_like(p) for name, p in decoder.named_parameters()}
    for batch in each.batches(1):
        decoder.zero_grad()
        each.model(batch).total.backward()
        for name, parameter in decoder.named_parameters():
            expected[name] += parameter.grad.square() / 5
    decoder.zero_grad()
    decoder.requires_grad_(False)
    saved = load_file(file)
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value)
    by_layer = {row["layer"]: row["fisher"] for row in rows}
    for index in range(2):
        total = sum(float(v.sum()) for n, v in expected.items() if f"layers.{index}." in n)
        assert by_layer[index] == pytest.approx(total, rel=1e-4)
    assert [row["fisher"] for row in rows] == sorted(by_layer.values(), reverse=True)
    assert 0 < sum(row["share"] for row in rows) <= 1


def test_a_layer_that_writes_nothing_has_the_least(make_subject: Callable[..., Subject]) -> None:
    each = make_subject({}, task="caption", limit=4)
    layer = next(m for n, m in each.decoder().named_modules() if n.endswith("layers.1"))
    for name, parameter in layer.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            parameter.data.zero_()
    full = copy.deepcopy(layer.state_dict())
    assert analyze(each, "fisher", {})[0]["layer"] == 0
    assert all(torch.equal(full[name], value) for name, value in layer.state_dict().items())


def test_a_part_that_the_loss_does_not_read_is_named(subject: Subjects) -> None:
    with pytest.raises(ConfigError, match="the loss of digit does not depend on backbone"):
        analyze(subject("digit", limit=2), "fisher", {"part": "backbone"})


@pytest.mark.slow
def test_the_best_layer_alone_learns_more_than_the_worst(
    make_subject: Callable[..., Subject],
) -> None:
    """Four layers, of which the last two read next to nothing."""
    backbone = {**RECIPE["backbone"], "options": {**LLAMA, "num_hidden_layers": 4}}
    each = make_subject({"backbone": backbone}, task="caption", limit=8)
    decoder = each.decoder()
    torch.manual_seed(0)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.3)
        elif "layers.2." in name or "layers.3." in name:
            parameter.data.fill_(1e-3)
    start = copy.deepcopy(decoder.state_dict())
    rows = analyze(each, "fisher", {})
    losses = []
    for layer in (rows[0]["layer"], rows[-1]["layer"]):
        decoder.load_state_dict(start)
        chosen = select(decoder, {"layers": [layer]}, "backbone.train_only")
        trained = [p for name, p in decoder.named_parameters() if name in chosen]
        optimizer = torch.optim.Adam(trained, lr=0.01)
        for parameter in trained:
            parameter.requires_grad_(True)
        for _ in range(5):
            for batch in each.batches(8):
                optimizer.zero_grad()
                each.model(batch).total.backward()
                optimizer.step()
        decoder.requires_grad_(False)
        losses.append(each.loss())
        for name, value in decoder.state_dict().items():
            assert torch.equal(value, start[name]) or name in chosen
    assert losses[0] < losses[1]


def test_a_tied_table_is_saved_under_both_names(
    make_subject: Callable[..., Subject], tmp_path: Path
) -> None:
    """A merge reads both, and would write one over the other."""
    options = {**LLAMA, "tie_word_embeddings": True}
    each = make_subject(
        {"backbone": {**RECIPE["backbone"], "options": options}}, task="caption", limit=2
    )
    analyze(each, "fisher", {"save": str(tmp_path / "fisher.safetensors")})
    saved = load_file(tmp_path / "fisher.safetensors")
    every = dict(each.decoder().named_parameters(remove_duplicate=False))
    assert saved.keys() == every.keys() > dict(each.decoder().named_parameters()).keys()
    tied = [saved[n] for n in every if n.endswith(("embed_tokens.weight", "lm_head.weight"))]
    assert len(tied) == 2 and torch.equal(*tied) and tied[0].any()
