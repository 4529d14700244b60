"""`python -m sensorium.scripts.coverage causal seq2seq masked`: run all rows, write the table."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from . import decoders, encoders, table
from .forks import Report, run_rows

KINDS = (*decoders.NAMES, *encoders.NAMES)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="kinds, or single rows such as causal/llama")
    parser.add_argument("--out", type=Path, default=Path("runs/coverage.json"))
    parser.add_argument("--page", type=Path, help="write the results as Markdown")
    parser.add_argument("--about", default="", help="how --out was made; for --page")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--steps", nargs="+", help="run these steps alone")
    parser.add_argument("--again", action="store_true", help="keep other rows of --out")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a row")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows: list[str] = []
    for name in options.rows or KINDS:
        rows += [name] if "/" in name else _module(name).rows(name)
    results: dict[str, dict[str, str]] = {}
    if options.again and options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run = functools.partial(examine, chosen=options.steps)
    for row, steps in run_rows(rows, run, jobs=options.jobs, seconds=options.seconds):
        results[row] = steps
        bad = {k: v for k, v in steps.items() if v.split(":")[0] not in ("ok", "n/a")}
        print(row, *(f"\n  {step}: {result}" for step, result in bad.items()), flush=True)
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.page is not None:
        known = [row for kind in KINDS for row in _module(kind).rows(kind)]
        table.write(results, options.page, known, options.about)


def _module(row: str) -> ModuleType:
    """Return the module that runs a kind, or a row of it."""
    return decoders if row.partition("/")[0] in decoders.NAMES else encoders


def examine(row: str, report: Report, chosen: Sequence[str] | None = None) -> None:
    """Run all steps of a row, or the chosen ones, and report each."""
    _module(row).examine(row, report, chosen)


if __name__ == "__main__":
    main(sys.argv[1:])
