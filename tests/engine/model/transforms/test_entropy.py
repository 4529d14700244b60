"""`attention_entropy`: heads outside their band are penalized; a weight of zero changes nothing.

Jha and Reagen, "Entropy-Guided Attention for Private LLMs", 2025.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.backbones.causal import Causal
from sensorium.engine.checkpoint import load_model
from sensorium.engine.model.transforms import apply_steps
from sensorium.engine.model.transforms.context import TransformContext
from sensorium.engine.recipe import parse_recipe, parse_transforms
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.tests.engine.model.transforms.transform_recipes import LLAMA, recipe

HEADS = [(layer, head) for layer in range(4) for head in range(4)]


def decoder(**options: Any) -> Causal:
    torch.manual_seed(0)
    model = Causal(tokenizer=Bytes(), name="tiny-llama", options=LLAMA["options"])
    if options:
        step = {"type": "attention_entropy", **options}
        apply_steps(model, parse_transforms(repr([step]), "t"), "t", TransformContext())
    return model


def queries(model: Any) -> list[Tensor]:
    """The maps to queries, all heads of a layer each."""
    return [block.self_attn.q_proj.weight for block in model.blocks()]


def terms(model: Causal, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model(*args, **kwargs)
    popped = model.pop_auxiliary()
    assert popped is not None
    return popped


def test_uniform_attention_has_the_largest_entropy_and_is_penalized_outside_its_band() -> None:
    """Without queries a position looks everywhere alike: a share of 1, whatever it sees."""
    for threshold, expected in ((0.95, 0.0), (0.5, 0.25)):
        model = decoder(weight=2.0, margin=0.1, threshold=threshold)
        with torch.no_grad():
            for weight in queries(model):
                weight.zero_()
        loss, logged = terms(model, torch.randn(2, 9, 16))
        torch.testing.assert_close(loss, torch.tensor(2 * expected), atol=1e-5, rtol=0)
        assert all(abs(float(logged[f"entropy_{i}.{j}"]) - 1) < 1e-5 for i, j in HEADS)


def test_a_weight_of_zero_changes_no_gradient_and_logs_each_head() -> None:
    plain, watched = decoder(), decoder(weight=0.0)
    embeds = torch.randn(2, 7, 16)
    for model in (plain, watched):
        loss = model(embeds).square().sum()
        popped = model.pop_auxiliary()
        (loss if popped is None else loss + popped[0]).backward()
    pairs = zip(queries(plain), queries(watched), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
    assert popped is not None
    assert {f"entropy_{i}.{j}" for i, j in HEADS} < popped[1].keys()


def test_padding_and_what_stands_before_change_nothing() -> None:
    model = decoder(weight=1.0)
    embeds = torch.randn(2, 7, 16)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    whole = terms(model, embeds, mask)
    longer = torch.cat([embeds, torch.full((2, 3, 16), 9.0)], 1)
    padded = terms(model, longer, torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1))
    before = Features(embeds[:, :3], mask[:, :3])
    split = terms(model, embeds[:, 3:], mask[:, 3:], context=before)
    for other in (padded, split):
        torch.testing.assert_close(other[0], whole[0])
        torch.testing.assert_close(other[1], whole[1])


@pytest.mark.parametrize(("weight", "inside"), [(1.0, True), (0.0, False)])
def test_a_head_that_looks_everywhere_is_brought_into_its_band(weight: float, inside: bool) -> None:
    """The control is a weight of zero: the same steps leave the head as it was."""
    model = decoder(weight=weight, margin=0.1, threshold=0.5)
    model.entropy_band.thresholds.requires_grad_(False)
    with torch.no_grad():
        queries(model)[1][:4] = 1e-2 * torch.randn(4, 16)  # head 0 of layer 1
    embeds = torch.randn(4, 12, 16)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    first = float(terms(model, embeds)[1]["entropy_1.0"])
    for _ in range(60):
        optimizer.zero_grad()
        loss = terms(model, embeds)[0] + 0 * queries(model)[0].sum()
        loss.backward()
        optimizer.step()
    last = float(terms(model, embeds)[1]["entropy_1.0"])
    assert first > 0.95
    assert (last < 0.8) is inside, last


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of rows in the current folder."""
    monkeypatch.chdir(tmp_path)
    lines = [{"text": f"a {word}", "answer": f"the {word}"} for word in ("cat", "dog", "cow", "ox")]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


@pytest.mark.usefixtures("rows")
def test_thresholds_are_learned_saved_and_loaded() -> None:
    step = {"type": "attention_entropy", "weight": 1.0, "margin": 0.0}
    model = train(parse_recipe(recipe({"transforms": [step]})), Path("run"), show=False)
    band = model.backbone.entropy_band.thresholds
    assert not torch.equal(band, torch.full_like(band, 0.5))
    assert torch.equal(load_model("run").backbone.entropy_band.thresholds, band)
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert any("entropy_3.3" in key for line in lines for key in line)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("part", "sections", "words"),
    [
        (
            {"type": "seq2seq", "name": "tiny-t5", "options": {}},
            {},
            "expected a decoder of one stack",
        ),
        ({}, {"activation_checkpointing": True}, "set train.activation_checkpointing: false"),
    ],
)
def test_what_cannot_be_watched_is_refused(part: Any, sections: Any, words: str) -> None:
    step = {"type": "attention_entropy"}
    values = recipe({**part, "transforms": [step]})
    values["train"] |= sections
    with pytest.raises(ConfigError, match=words):
        check(parse_recipe(values))
