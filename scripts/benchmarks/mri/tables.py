"""The tables that `mri_benchmark` prints, as lines of markdown."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sensorium.engine.recipe import WEIGHTS
from sensorium.modalities.mri.phantom import Phantom
from sensorium.scripts.benchmarks.mri.bootstrap import (
    BootstrapMetric,
    compared,
    format_interval,
    verdict,
)
from sensorium.scripts.benchmarks.mri.metrics import COLUMNS, Truth
from sensorium.scripts.benchmarks.mri.runs import (
    FEATURES,
    GROUNDED,
    NOTHING,
    PLAIN,
    RANDOM,
    SLICES,
    Bench,
    answers,
    spent,
)
from sensorium.tasks.text import Facts

Row = dict[str, BootstrapMetric]
Figures = dict[float, dict[str, Row]]
"""By share of the labels, then by row: a measure a column."""

NAMES = {
    GROUNDED: "frozen, aligned with grounding",
    PLAIN: "frozen, aligned without grounding",
    RANDOM: "frozen at random weights",
    SLICES: "slices, without pretrained weights, frozen",
    NOTHING: "the same network from nothing, end to end",
    "majority": "majority or mean",
    "histogram": "intensity histogram",
    "blocks": "block means",
}
DIGITS = {"ventricle": 3, "hd95": 1}
PROBES = {"cls": "its class token", "mean": "the mean of its tokens"}
REQUIRED = ("sequence", "ventricle", "dice", "box", "recall")
MIN_ROWS = 0.75
"""Of the lesions' sides with grounding."""
CONSTANT = "No focal lesion."
SERIES = 4
"""Of a study."""
MOST = 400
"""Training reports that are looked at for the usual one."""


def table(results: Figures, truth: Truth, drawn: np.ndarray) -> Iterator[str]:
    """Yield a line a row and share of the labels; probes of the class token and the mean below
    theirs."""
    yield "| labels | row | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|---|" + "---|" * len(COLUMNS)
    for share, rows in results.items():
        for name, row in rows.items():
            cells = [format_interval(row.get(c), drawn, DIGITS.get(c, 2)) for c in COLUMNS]
            yield f"| {100 * share:g} % | {NAMES[name]} | " + " | ".join(cells) + " |"
            for probe in (p for p in PROBES if p in row):
                line = [format_interval(row[probe], drawn), *["-"] * (len(COLUMNS) - 1)]
                yield f"| {100 * share:g} % | - {PROBES[probe]} | " + " | ".join(line) + " |"
    chance = [f"{truth.chance[c]:.3g}" if c in truth.chance else "-" for c in COLUMNS]
    yield "| | chance | " + " | ".join(chance) + " |"


def comparisons(results: Figures, truth: Truth, drawn: np.ndarray) -> Iterator[str]:
    """Differences of aligned encoders to the random one, on the same resamples."""
    yield "| labels | figure | with grounding - random | | without grounding - random | | chance |"
    yield "|---|---|---|---|---|---|---|"
    for share, rows in results.items():
        for column in REQUIRED:
            cells = []
            for name in (GROUNDED, PLAIN):
                pair = rows[name][column], rows[RANDOM][column]
                difference, low, high = compared(*pair, drawn)
                cells += [f"{difference:+.3f} ({low:+.3f} to {high:+.3f})", verdict(*pair, drawn)]
            chance = f"{truth.chance[column]:.3g}"
            yield (
                f"| {100 * share:g} % | {COLUMNS[column]} | " + " | ".join([*cells, chance]) + " |"
            )


def side_table(results: Figures, drawn: np.ndarray) -> Iterator[str]:
    """Whether the side is stated as often as it must be."""
    for share, rows in results.items():
        with_, without = rows[GROUNDED]["side"], rows[PLAIN]["side"]
        reached = "reached" if with_.over(drawn)[0] >= MIN_ROWS else "not reached"
        yield (
            f"- {100 * share:g} %: {format_interval(with_, drawn)} with grounding "
            f"({MIN_ROWS} {reached}), "
            f"{format_interval(without, drawn)} without; chance 0.5"
        )


def own_reports(bench: Bench, truth: Truth, drawn: np.ndarray) -> Iterator[str]:
    """Reports found by the alignments' own projections, no head between."""
    for stage, name in (("align_grounded", GROUNDED), ("align", PLAIN)):
        rows = answers(bench.out / stage, "match", bench.split)
        figure = truth.measures({"recall": rows})["recall"]
        interval = format_interval(figure, drawn)
        yield f"- {NAMES[name]}: study recall@5 {interval} by its own projections"


def report_table(bench: Bench, truth: Truth, drawn: np.ndarray) -> Iterator[str]:
    """F1 of the facts of generated reports, beside texts that look at nothing."""
    rows = answers(bench.out / "report", "report", bench.split)
    references = [row.target["references"][0] for row in rows]
    usual = usual_report(truth.facts, bench.sizes.subjects)
    texts_of = {
        "generated": [row.prediction["text"] for row in rows],
        f"always `{CONSTANT}`": [CONSTANT] * len(rows),
        f"always `{usual}`": [usual] * len(rows),
        "another study's": references[-SERIES:] + references[:-SERIES],
    }
    results = {name: truth.reports_of(texts, rows) for name, texts in texts_of.items()}
    first = next(iter(results.values()))
    yield "| reports | fact F1 | generated better by |\n|---|---|---|"
    for name, figure in results.items():
        difference, low, high = compared(first, figure, drawn)
        better = "" if figure is first else f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
        yield f"| {name} | {format_interval(figure, drawn)} | {better} |"
    scores = truth.facts.scores(texts_of["generated"], references)
    parts = ", ".join(f"{name[5:]} {value:.2f}" for name, value in scores.items())
    yield f"\nOf the references that state a fact, generated reports state the same: {parts}."


def usual_report(facts: Facts, subjects: int) -> str:
    """Return the report of the training split that shares the most facts with the others: the
    strongest text that looks at nothing."""
    source = Phantom(subjects=subjects)
    texts = [source[i]["description"] for i in range(min(len(source), MOST))]
    stated = [facts.of(text) for text in texts]

    def f1(number: int) -> float:
        right = sum(facts.agreeing(stated[number], other) for other in stated)
        return 2 * right / sum(len(stated[number]) + len(other) for other in stated)

    return texts[max(range(len(texts)), key=f1)]


def cached_head(bench: Bench, encoder: str) -> str:
    """Return the cost of a head whose encoder's features are cached, and how large its file is."""
    folder = bench.out / encoder / "sequence-100"
    times, size = spent(folder), (folder / WEIGHTS).stat().st_size
    first = spent(bench.out / encoder / FEATURES)
    return (
        f"A head on {bench.rows(1.0):,} cached volumes: {times.cpu:.1f} s of CPU time "
        f"({times.wall:.1f} s), its file {size / 1024:.0f} KiB; the encoder's pass before: "
        f"{first.cpu:.1f} s ({first.wall:.1f} s)."
    )
