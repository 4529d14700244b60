"""From the results of all rows to a Markdown page: how many rows pass each step, and what fails.

The page lists what ran: which rows have a result, with which steps, and which ended at a
limit of time or memory.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from .results import Row, passes, status
from .steps import OK

LIBRARIES = ("transformers", "torch", "timm", "open_clip_torch", "monai", "peft")
CORE = (
    "build", "gradient", "logits", "ids", "causal", "padding", "inputs", "train",
    "forward", "library_tokens", "batches", "places", "limit", "process",
)  # fmt: skip
"""Steps that a row must pass to be sound, where its kind has them."""
STATUSES = (OK, "refused", "error", "wrong", "limit", "n/a")


def page(results: Mapping[str, Row], known: Collection[str] = ()) -> str:
    """Return the page of all rows. known: every row that there is."""
    names = (*results, *(row for row in known if row not in results))
    kinds = list(dict.fromkeys(row.partition("/")[0] for row in names))
    lines = _head(results.values(), len(set(names)))
    sections: list[str] = []
    for kind in kinds:
        rows = [row for row in results.values() if row.kind == kind]
        absent = [name for name in names if name.startswith(f"{kind}/") and name not in results]
        lines.append(_summary(kind, rows, len(absent)))
        sections += _section(kind, rows, [name.partition("/")[2] for name in absent])
    lines += ["", "## Why rows do not pass", "", "| rows | step and reason |", "|---|---|"]
    lines += [f"| {count} | {_cell(cause)} |" for cause, count in _causes(results.values())]
    return "\n".join([*lines, *sections]) + "\n"


def _head(rows: Collection[Row], count: int) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    ends = sorted(datetime.datetime.fromtimestamp(row.ended, datetime.UTC) for row in rows)
    when = " to ".join(f"{ends[i]:%Y-%m-%d %H:%M}" for i in (0, -1)) if ends else "no time"
    seconds = ", ".join(f"{value:.0f}" for value in sorted({row.seconds for row in rows})) or "0"
    lines = [
        "# Coverage",
        "",
        "Which classes compose, step by step: every class is built tiny and random, put behind an",
        "image stream, and compared with the library's own call on the same weights. Made by",
        f"`make coverage`; rows ran from {when} UTC, each on the code of its time,",
        f"with {versions}.",
        "",
        "A step is `ok`; `wrong` (no error, other numbers); `refused` (in one line, before",
        "anything runs); `error`; `limit` (time or memory ran out, which says nothing of the",
        "class); or `n/a` (the architecture or the library has no such thing).",
        "",
        f"{len(rows)} of {count} rows have a result. A row had {seconds} s of processor time and",
        "3 GB.",
    ]
    partial = Counter(" ".join(row.chosen) for row in rows if row.chosen)
    for steps, number in sorted(partial.items()):
        lines.append(f"{number} rows ran these steps alone: {steps}.")
    if ended := [row.row for row in rows if "limit" in map(status, row.steps.values())]:
        lines.append(f"At a limit ended {len(ended)} rows: {', '.join(sorted(ended))}.")
    lines += [
        "",
        "Of the rows that the library itself runs, these are sound (right numbers, gradients, no",
        "leak, training) and pass every step that applies; the target is 95 %.",
        "",
        "| kind | rows | not run | the library runs | sound | every step | wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    return lines


def runnable(row: Row) -> bool:
    """Return whether the library itself runs a row, and the row ended within its limits."""
    return row.steps.get("library") == OK


def _summary(kind: str, rows: Collection[Row], absent: int) -> str:
    runs = [row for row in rows if runnable(row)]
    sound = sum(passes(row.steps, CORE) for row in runs)
    whole = sum(passes(row.steps) for row in runs)
    wrong = sum("wrong" in map(status, row.steps.values()) for row in rows)
    shares = [f"{n} ({n / len(runs):.1%})" if runs else "0" for n in (sound, whole)]
    counts = (kind, len(rows) + absent, absent, len(runs), *shares, wrong)
    return f"| {' | '.join(map(str, counts))} |"


def _causes(rows: Iterable[Row]) -> list[tuple[str, int]]:
    """Return what keeps rows that the library runs from passing, the commonest first."""
    causes: Counter[str] = Counter()
    for row in rows:
        if not runnable(row):
            continue
        bad = [(n, r) for n, r in row.steps.items() if status(r) not in (OK, "n/a")]
        causes.update({f"{n}: {_general(r, row.name)}" for n, r in bad[:1]})
    return causes.most_common()


def _general(result: str, name: str) -> str:
    """Return a reason without what differs from row to row: names, numbers and values."""
    result = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "NAME", result)
    result = re.sub(r"\(?built from config.*", "", result)
    result = re.sub(r"'[^']*'|`[^`]*`", "...", result)
    return re.sub(r"\d[\d.e+-]*", "N", result)[:160]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _section(kind: str, rows: Collection[Row], absent: Collection[str]) -> list[str]:
    lines = ["", f"## {kind}", ""]
    lines += [
        "| step | ok | refused | error | wrong | limit | n/a |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(name for row in rows for name in row.steps):
        counts = Counter(status(row.steps[name]) for row in rows if name in row.steps)
        cells = " | ".join(str(counts[s]) for s in STATUSES)
        lines.append(f"| {name} | {cells} |")
    passed = [row.name for row in rows if runnable(row) and passes(row.steps)]
    if passed:
        lines += ["", f"Every step that applies pass {len(passed)}: {', '.join(sorted(passed))}."]
    skipped = [row for row in rows if not runnable(row) and passes(row.steps)]
    if skipped:
        names = ", ".join(sorted(row.name for row in skipped))
        lines += ["", f"The library has none that runs so ({len(skipped)}): {names}."]
    if absent:
        lines += ["", f"Not run ({len(absent)}): {', '.join(absent)}."]
    failed = [row for row in rows if not passes(row.steps)]
    if failed:
        lines += ["", "| class | what does not pass |", "|---|---|"]
    for row in sorted(failed, key=lambda row: row.name):
        bad = [f"{n}: {r}" for n, r in row.steps.items() if status(r) not in (OK, "n/a")]
        lines.append(f"| {row.name} | {_cell('<br>'.join(bad))} |")
    return lines


def write(results: Mapping[str, Row], path: Path, known: Collection[str] = ()) -> None:
    """Write the page; the arguments are those of `page`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results, known), encoding="utf-8")
