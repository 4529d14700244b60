"""How heads attend: planted heads of known sharpness, and the two masks of a prompt."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sensorium.engine.evaluation.analyses import Subject, analyze
from sensorium.engine.evaluation.analyses.circuits import attention_statistics
from sensorium.tests.engine.evaluation.analyses.analyzed import Subjects, recipe

STATISTICS = ("entropy", "peak", "even", "first")


def test_statistics_are_their_definitions() -> None:
    """Of a causal row of three positions: the first sees itself alone and is left out."""
    rows = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]
    other = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]
    sums = attention_statistics(torch.tensor([[rows, other]]))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(3)
    expected = [[1 + entropy, 1.25, 1 / 2 + 1 / 3, 0.5, 2], [2, 5 / 6, 5 / 6, 5 / 6, 2]]
    torch.testing.assert_close(sums, torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)


def test_heads_that_look_everywhere_and_at_one_place(
    make_subject: Callable[..., Subject],
) -> None:
    each = make_subject({}, task="caption", limit=4)
    maps = dict(each.decoder().named_modules())
    query = next(m for n, m in maps.items() if "layers.0." in n and n.endswith("q_proj"))
    key = next(m for n, m in maps.items() if "layers.0." in n and n.endswith("k_proj"))
    query.weight.data[:8] = 0  # head 0.0 has equal scores
    query.weight.data[8:] *= 1e3  # one score of head 0.1 is far above the others
    key.weight.data[8:] *= 1e3
    before = {(r["layer"], r["head"]): r for r in analyze(each, "attention", {})}
    even, sharp = before[0, 0], before[0, 1]
    assert even["entropy"] == pytest.approx(1)
    assert even["peak"] == pytest.approx(even["even"])
    assert even["first"] == pytest.approx(even["even"])
    assert sharp["entropy"] < 0.1
    assert sharp["peak"] > 0.9
    assert before.keys() == {(layer, head) for layer in range(2) for head in range(2)}


def test_a_prefix_mask_shows_a_prompt_more(make_subject: Callable[..., Subject]) -> None:
    """One seed: the same weights under the causal mask and under one of prompts as a prefix."""

    def rows(attention: str) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        tasks = recipe()["tasks"]
        tasks["caption"]["attention"] = attention
        return analyze(make_subject({"tasks": tasks}, task="caption", limit=4), "attention", {})

    causal, prefix = rows("causal"), rows("prefix")
    assert [row["even"] for row in prefix] < [row["even"] for row in causal]
    for row in (*causal, *prefix):
        assert row["peak"] >= row["even"] - 1e-6
        assert 0 <= row["entropy"] <= 1 + 1e-6


def test_heads_of_an_encoder(subject: Subjects) -> None:
    rows = analyze(subject("digit", limit=4), "attention", {"part": "image"})
    assert len(rows) > 2
    assert all(0 < row[name] <= 1 + 1e-6 for row in rows for name in STATISTICS)
