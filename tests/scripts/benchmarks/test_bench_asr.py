"""The benchmark of recognisers: its bare loop says what `generate` says, rows keep their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sensorium.backbones.causal import Causal
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.scripts.benchmarks.asr import benchmark
from sensorium.scripts.benchmarks.asr.systems import Row, SystemOutput, _loop

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


@pytest.mark.parametrize("lengths", [[5], [5, 5], [3, 7, 5]])
def test_the_bare_loop_says_what_generate_says(lengths: list[int]) -> None:
    torch.manual_seed(0)
    backbone = Causal(tokenizer=Bytes(), name="tiny-llama", options=SIZES).eval()
    torch.nn.init.normal_(backbone.head.weight, std=0.5)
    context = Features.pad([torch.randn(n, 32) for n in lengths])
    expected = backbone.generate(context, max_new_tokens=12, do_sample=False).tolist()
    eos = Bytes.eos_id

    def cut(row: Sequence[int]) -> list[int]:
        return [*row][: [*row].index(eos)] if eos in row else [*row]

    with torch.no_grad():
        bare = _loop(backbone, context, 12)
    assert [cut(row) for row in bare] == [cut(row) for row in expected]


def rows(tokens: Sequence[int]) -> list[Row]:
    features = Features.dense(torch.zeros(1, 2, 4))
    return [Row(None, {"text": f"row {n}"}, n, 2.0, features) for n in tokens]


@pytest.mark.parametrize("size", [1, 2, 8])
def test_rows_go_in_batches_of_like_lengths_and_come_back_in_order(size: int) -> None:
    test_rows, seen = rows([30, 50, 40, 28, 60]), list[list[int]]()

    def way(some: Sequence[Row]) -> SystemOutput:
        seen.append([row.tokens for row in some])
        count = len(some)
        texts = [row.target["text"] for row in some]
        return SystemOutput(texts, [row.tokens for row in some], [1.0] * count, [0.5] * count)

    result = benchmark.over(test_rows, size, way)
    assert result.texts == [row.target["text"] for row in test_rows]
    assert result.passes == [row.tokens for row in test_rows]
    assert [n for batch in seen[1:] for n in batch] == sorted(row.tokens for row in test_rows)


def test_speed_is_the_ratio_of_its_own_parts() -> None:
    test_rows = rows([40, 60])
    slow = SystemOutput(["", ""], [50, 50], [103.0, 103.0], [3.0, 3.0])
    fast = SystemOutput(["", ""], [4, 4], [11.0, 11.0], [3.0, 3.0])
    line = benchmark.speed(test_rows, slow, fast)
    assert "(3.00 + 50.0 x 2.00) / (3.00 + 4.0 x 2.00)" in line
    assert f"= {103 / 11:.2f};" in line and f"{(103 / 4.44 - 3) / 2:.1f} passes" in line
    assert "under 2 on this machine" in benchmark.speed(test_rows, fast, slow)


def test_the_table_and_the_differences() -> None:
    test_rows = rows([30, 45])
    right = SystemOutput(["row 30", "row 45"], [1, 1], [2.0, 2.0], [1.0, 1.0])
    wrong = SystemOutput(["row 31", "row 45"], [9, 9], [8.0, 8.0], [1.0, 1.0])
    errors = benchmark.Errors(test_rows, "basic")
    ways = {"token by token (generate)": wrong, "diffusion with prior": right}
    lines = benchmark.table(test_rows, ways, errors)
    assert "| 25.0 (" in lines[2] and "| 0.0 (" in lines[3] and "| 4.00 |" in lines[3]
    assert benchmark.compared(right, wrong, errors).startswith("-25.00 points")
    assert len(benchmark.lengths(test_rows, ways, errors)) == 4
    assert np.isfinite(errors.of(right)[0]).all()
