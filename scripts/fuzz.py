"""python scripts/fuzz.py [--cases 60000] [--seed 0] [--only nifti,dicom] [--case nifti:1234]

Damages small valid files of every format that is read, and reads them: NIfTI, DICOM, pictures,
sounds, CSV, JSON, Parquet, tar shards and recipes. Each case has a result, or a ReadError or
ConfigError of one line; anything else is a failure, whose case is printed: another exception, a
message of several lines, a killed process, more memory or time than such a file may take. The
exit code is 1 if there is one. A case depends on the seed and its number alone; `--case` runs one
again, with its traceback and its file.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sensorium.engine.utils import ConfigError, derive_seed, format_table
from sensorium.modalities.base import ReadError
from sensorium.scripts.fuzzing import FORMATS, Files, Mutation, blind

MEMORY = 4 * 2**30
"""Bytes beyond those of the imported libraries that a case may take."""
SECONDS = 20.0
"""Of computing that a case may take; the first one, which imports libraries, may take more."""
CHUNK = 2000
"""Cases of a process; a new one begins with an empty cache."""
MAX_LINE = 1000


class Slow(BaseException):
    """A case took longer than `SECONDS`."""


def damaged(name: str, number: int, seed: int, files: list[Files]) -> Files:
    """Return the files of a case: one of them is changed."""
    rng = np.random.default_rng(derive_seed(seed, name, number))
    valid = files[int(rng.integers(len(files)))]
    names = sorted(valid)
    chosen = names[int(rng.integers(len(names)))]
    known = FORMATS[name].mutations
    mutate: Mutation = blind
    if known and rng.random() < 0.6:
        mutate = known[int(rng.integers(len(known)))]
    try:
        content = mutate(valid[chosen], rng)
    except Exception:  # the library that writes refuses what should be written
        content = blind(valid[chosen], rng)
    return {**valid, chosen: content}


def run_case(name: str, files: Files, folder: Path, seconds: float = SECONDS) -> str:
    """Return `read`, `refused`, or the fault in the refusal of a case's files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    try:
        with _time_limit(seconds):
            FORMATS[name].read(folder)
    except (ReadError, ConfigError) as error:
        lines = str(error).splitlines()
        if name != "recipe" and len(lines) != 1:  # a recipe has a line for each mistake
            return f"{len(lines)} lines: {str(error)[:80]!r}"
        if max(map(len, lines), default=0) > MAX_LINE:
            return f"a line of {max(map(len, lines))} characters: {str(error)[:80]!r}"
        return "too much memory" if "MemoryError" in str(error) else "refused"
    except Slow:
        return f"slower than {seconds:g} s"
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.name}"
    return "read"


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Slow

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def work(name: str, start: int, stop: int, seed: int, folder: Path) -> None:
    """Run cases in this process; write a line a case, first its number, then its outcome."""
    os.environ["SENSORIUM_CACHE"] = str(folder / "cache")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    valid = FORMATS[name].files()
    for files in valid:  # triggers late imports
        outcome = run_case(name, files, folder / "case", 10 * SECONDS)
        assert outcome == "read", f"{name}: {sorted(files)} is whole, and is {outcome}"
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with (folder / "outcomes").open("a", encoding="utf-8", buffering=1) as out:
        for number in range(start, stop):
            out.write(f"{number}\t")
            outcome = run_case(name, damaged(name, number, seed, valid), folder / "case")
            out.write(f"{outcome}\n".replace("\t", " "))


def fuzz(name: str, cases: int, seed: int) -> dict[str, list[int]]:
    """Return the cases of a format by their outcome, run in processes of `CHUNK` cases."""
    outcomes: dict[str, list[int]] = defaultdict(list)
    start = 0
    while start < cases:
        stop = min(cases, start + CHUNK)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            words = [f"--work={name}:{start}:{stop}", f"--seed={seed}", f"--folder={folder}"]
            process = subprocess.run(
                [sys.executable, "-m", "sensorium.scripts.fuzz", *words],
                stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace",
            )  # fmt: skip
            path = Path(folder, "outcomes")
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if not lines:
            raise RuntimeError(f"{name}: no case ran: {process.stderr[-2000:]}")
        for line in lines:
            number, _, outcome = line.partition("\t")
            outcomes[outcome or f"the process ended with {process.returncode}"].append(int(number))
        start = int(lines[-1].partition("\t")[0]) + 1
    return outcomes


def main(
    cases: Annotated[int, typer.Option(min=1, help="of all formats together")] = 60_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    only: Annotated[str, typer.Option(help="these formats, with commas")] = "",
    case: Annotated[str, typer.Option(help="FORMAT:NUMBER: run one again")] = "",
    work_on: Annotated[str, typer.Option("--work", hidden=True)] = "",
    folder: Annotated[Path, typer.Option(hidden=True)] = Path("fuzz-case"),
) -> None:
    """Read damaged files; print how many were read, refused in one line, or neither."""
    if work_on:
        faulthandler.enable()
        name, start, stop = work_on.split(":")
        return work(name, int(start), int(stop), seed, folder)
    if case:
        return show(case, seed, folder)
    names = [name for name in FORMATS if not only or name in only.split(",")]
    total = sum(FORMATS[name].share for name in names)
    rows: list[tuple[str, ...]] = [("format", "cases", "read", "refused", "failed")]
    failures = 0
    for name in names:
        count = max(1, round(cases * FORMATS[name].share / total))
        outcomes = fuzz(name, count, seed)
        counts = Counter({outcome: len(numbers) for outcome, numbers in outcomes.items()})
        failed = count - counts["read"] - counts["refused"]
        failures += failed
        rows.append((name, *map(str, (count, counts["read"], counts["refused"], failed))))
        for outcome, numbers in sorted(outcomes.items()):
            if outcome not in ("read", "refused"):
                print(f"{name}: {len(numbers)} x {outcome}; --case {name}:{numbers[0]}", flush=True)
    print(format_table(rows, right=(1, 2, 3, 4)), flush=True)
    raise typer.Exit(1 if failures else 0)


def show(case: str, seed: int, folder: Path) -> None:
    """Run one case again, its files left in a folder."""
    name, _, number = case.partition(":")
    files = damaged(name, int(number), seed, FORMATS[name].files())
    print(run_case(name, files, folder))
    print(json.dumps({file: len(content) for file, content in files.items()}), folder)
    FORMATS[name].read(folder)


if __name__ == "__main__":
    typer.run(main)
