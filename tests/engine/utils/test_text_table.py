"""Tables for a terminal: one formatter for the check, metrics, hits, rollouts and stores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sensorium.engine.embedding import format_hits
from sensorium.engine.index import Hit
from sensorium.engine.rollout import format_summaries
from sensorium.engine.rollout.metrics import Episode, summary
from sensorium.engine.training.dry_run import ComponentSummary, Report
from sensorium.engine.utils import format_table


def test_columns_are_as_wide_as_their_cells_and_numbers_end_in_line() -> None:
    rows = [("name", "count", "of"), ("a", "1,234", "x y"), ("longer", "7", "")]
    assert format_table(rows, right=(1,)).splitlines() == [
        "name    count  of",
        "a       1,234  x y",
        "longer      7",
    ]


def test_rows_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError):
        format_table([("a", "b"), ("c",)])


CHECK = """\
part                  type    gives        parameters  trained
inputs.image.encoder  timm    [B, 16, 96]     467,616        0  frozen
tasks.digit.head      linear  [B, 1, 10]          970      970
weights: 1,874,344 bytes in float32, 468,586 in int8
a step of digit: 2.87 GFLOP, about 0.092 GB"""
HITS = """\
   score   key  age
1  0.5000  a    3
2  0.2500  b"""
ROLLOUTS = """\
environment  success  95 %            at the end  steps to it  jerk, commands  jerk, hand  \
steps/s, model  steps/s  calls  undecodable
a/x          1.000    0.207 to 1.000  0.000       1            -               -           \
-               -        -      -
mean         1.000"""


def check() -> str:
    stages = [
        ComponentSummary("inputs.image.encoder", "timm", "[B, 16, 96]", 467616, 0, "frozen"),
        ComponentSummary("tasks.digit.head", "linear", "[B, 1, 10]", 970, 970),
    ]
    return str(Report(stages, flops={"digit": 2.87e9}, memory={"digit": 9.2e7}))


def hits() -> str:
    return format_hits([Hit(0.5, {"key": "a", "age": 3}), Hit(0.25, {"key": "b", "age": None})])


def rollouts() -> str:
    figures = summary([Episode(0, success=[True, False])])
    return format_summaries({"a/x": figures, "a/y": figures})


@pytest.mark.parametrize(("render", "text"), [(check, CHECK), (hits, HITS), (rollouts, ROLLOUTS)])
def test_each_table_is_laid_out(render: Callable[[], str], text: str) -> None:
    lines = [line for line in render().splitlines() if not line.startswith("a/y")]
    assert lines == text.splitlines()
