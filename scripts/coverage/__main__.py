"""`python -m sensorium.scripts.coverage causal seq2seq masked`: run all rows, write the table.

Each row that ends is a line of `--out`. Rows that have a line are not run again, unless they are
named singly or `--rerun` names their result; the last line of a row counts.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from . import decoders, encoders, table
from .forks import Report, preload, run_rows
from .results import Row, append, latest, read, status

KINDS = (*decoders.NAMES, *encoders.NAMES)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="kinds, or single rows such as causal/llama")
    parser.add_argument("--out", type=Path, default=Path("runs/coverage.jsonl"))
    parser.add_argument("--page", type=Path, help="write the results as Markdown")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--steps", nargs="+", help="run these steps alone")
    parser.add_argument(
        "--rerun", nargs="+", default=(), metavar="STATUS",
        help="run rows again of which a step is one of wrong, refused, error, limit; or all",
    )  # fmt: skip
    parser.add_argument("--only-page", action="store_true", help="run nothing, write --page")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a row, processor time")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    done = latest(read(options.out))
    rows = [] if options.only_page else chosen_rows(options.rows or KINDS, done, options.rerun)
    run = functools.partial(examine, chosen=options.steps)
    if len(rows) > 20:
        preload(("causal/llama", "vision/clip", "audio/hubert"), run)
    for name, steps in run_rows(rows, run, jobs=options.jobs, seconds=options.seconds):
        row = Row(name, steps, tuple(options.steps or ()), options.seconds, time.time())
        append(options.out, row)
        bad = {k: v for k, v in steps.items() if status(v) not in ("ok", "n/a")}
        print(name, *(f"\n  {step}: {result}" for step, result in bad.items()), flush=True)
    if options.page is not None:
        known = [row for kind in KINDS for row in _module(kind).rows(kind)]
        table.write(latest(read(options.out)), options.page, known)


def chosen_rows(names: Sequence[str], done: dict[str, Row], rerun: Sequence[str] = ()) -> list[str]:
    """Return the rows to run: those named singly, and of each kind those that have no result or
    one that `rerun` names."""
    rows: list[str] = []
    for name in names:
        if "/" in name:
            rows.append(name)
            continue
        for row in _module(name).rows(name):
            statuses = (
                {status(result) for result in done[row].steps.values()} if row in done else set()
            )
            if row not in done or "all" in rerun or statuses & set(rerun):
                rows.append(row)
    return rows


def _module(row: str) -> ModuleType:
    """Return the module that runs a kind, or a row of it."""
    return decoders if row.partition("/")[0] in decoders.NAMES else encoders


def examine(row: str, report: Report, chosen: Sequence[str] | None = None) -> None:
    """Run all steps of a row, or the chosen ones, and report each."""
    _module(row).examine(row, report, chosen)


if __name__ == "__main__":
    main(sys.argv[1:])
