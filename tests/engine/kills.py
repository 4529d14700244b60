"""Jobs that are killed again and again, and must leave what an uninterrupted one leaves.

Each attempt is a forked process. It is killed by SIGKILL, at a random moment or at one of its
changes of the disk, or the disk is full at one of them; then the job is begun again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from write_faults import die, fault_at, in_child, refuse

VOLATILE = ("samples_per_s",)


@dataclass(frozen=True)
class Job:
    """run: do the work in a folder, or go on with it. outcome: what has to be equal after it."""

    run: Callable[[Path], None]
    outcome: Callable[[Path], Mapping[str, Any]]


def train_job(recipe: Mapping[str, Any]) -> Job:
    """Train a recipe into `run`, its cache beside it."""
    from sensorium.engine.model import build
    from sensorium.engine.recipe import parse_recipe, stage_recipes
    from sensorium.engine.training import train

    parsed = parse_recipe(recipe)
    stages = stage_recipes(parsed)
    build(stages[0].recipe if stages else parsed)  # imports once what each process needs

    def run(folder: Path) -> None:
        os.environ["SENSORIUM_CACHE"] = str(folder / "cache")
        out = folder / "run"
        resume = (out / "run.json").exists()
        train(
            parsed.model_copy(deep=True),
            out,
            resume=resume,
            show=False,
            command="sensorium train x",
        )

    return Job(run, run_outcome)


def run_outcome(folder: Path) -> dict[str, Any]:
    """Every file of a run, the lines of its log without what a clock says, no name too many."""
    result: dict[str, Any] = {}
    for path in sorted((folder / "run").rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == ".lock":
            continue
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            result[name] = [{k: v for k, v in x.items() if k not in VOLATILE} for x in lines]
        else:
            result[name] = path.read_bytes() if path.is_file() else None
    return result


def embed_job(recipe: Path) -> Job:
    """Embed a split into an index, a few rows a commit."""

    def run(folder: Path) -> None:
        from sensorium.engine.embedding import index_metadata, load_run_or_recipe, open_data
        from sensorium.engine.embedding.embed import embed

        os.environ["SENSORIUM_CACHE"] = str(folder / "cache")
        model = load_run_or_recipe(str(recipe))
        rows = open_data(model.plan, "image", (), None, "test")
        about = index_metadata(model, "image", str(recipe), ())
        embed(model, about, rows, str(folder / "index"), batch_size=3, commit_rows=6)

    def outcome(folder: Path) -> dict[str, Any]:
        def read() -> None:
            from sensorium.engine.index import open_index

            table = open_index(str(folder / "index")).where(None, ["key", "word", "vector"])
            values = {row["key"]: [row["word"], list(map(float, row["vector"]))] for row in table}
            (folder / "rows.json").write_text(json.dumps(values))

        assert in_child(read) == 0
        rows: dict[str, Any] = json.loads((folder / "rows.json").read_text())
        return rows

    return Job(run, outcome)


def fill_job() -> Job:
    """Fill a store of the cache, a few rows a shard, and verify it."""

    def run(folder: Path) -> None:
        import numpy as np

        from sensorium.engine.cache import Store, fill, store

        store._SEAL_ROWS = 3

        def compute(places: list[int]) -> list[dict[str, Any]]:
            return [{"x": np.full((4, 8), i, np.float32)} for i in places]

        keys = [f"k{i}" for i in range(60)]
        fill(Store(folder / "cache", "features", {"of": "kills"}), keys, compute, batch_size=2)

    def outcome(folder: Path) -> dict[str, Any]:
        from sensorium.engine.cache import Store

        store = Store(folder / "cache", "features", {"of": "kills"})
        assert not store.verify()
        return {f"k{i}": store.get([f"k{i}"])[0]["x"].tobytes() for i in range(60)}

    return Job(run, outcome)


def killed_after(seconds: float, work: Callable[[], None]) -> int:
    """Run `work` in a forked process that is killed after a time; return how it ended."""
    started: list[int] = []
    real = os.fork

    def fork() -> int:
        pid = real()
        if pid:
            started.append(pid)
            timer = threading.Timer(seconds, lambda: _kill(pid))
            timer.daemon = True
            timer.start()
        return pid

    os.fork = fork
    try:
        return in_child(work)
    finally:
        os.fork = real


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@dataclass
class Trial:
    """Interruptions of one job. seconds, changes: what an uninterrupted run of it took."""

    job: Job
    folder: Path
    wanted: Mapping[str, Any]
    seconds: float
    changes: int

    @classmethod
    def of(cls, job: Job, folder: Path) -> Trial:
        """Run a job uninterrupted."""
        whole, count = folder / "whole", folder / "count"
        whole.mkdir(parents=True)

        def work() -> None:
            with fault_at(0, whole, die) as fault:
                job.run(whole)
            count.write_text(str(fault.count))

        began = time.perf_counter()
        assert in_child(work) == 0, "the job fails by itself"
        seconds = time.perf_counter() - began
        return cls(job, folder, job.outcome(whole), seconds, int(count.read_text()))

    def interrupt(self, random: random.Random, how: str) -> int:
        """Interrupt the job until it comes to its end; return how often it was. how: `moment`,
        `change` or `disk`."""
        folder, interrupted, done = self.folder / "cut", 0, False
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        while not done:
            if how == "moment":
                after, began = random.uniform(0, self.seconds), time.perf_counter()
                code = killed_after(after, lambda: self.job.run(folder))
                if code == 0 and not interrupted:  # the first run may have been a slow one
                    self.seconds = min(self.seconds, time.perf_counter() - began)
            else:
                code = self._at_change(random.randint(1, self.changes), how, folder)
            done = code == 0
            interrupted += not done
            assert code in ((0, 1) if how == "disk" else (0, -signal.SIGKILL)), code
            if interrupted > 3 and not done:
                assert in_child(lambda: self.job.run(folder)) == 0, "does not go on"
                done = True
        outcome = self.job.outcome(folder)
        names = {**self.wanted, **outcome}
        different = [name for name in names if self.wanted.get(name) != outcome.get(name)]
        assert not different, f"{how}: differs in {different[:5]}"
        return interrupted

    def _at_change(self, number: int, how: str, folder: Path) -> int:
        def work() -> None:
            from sensorium.engine.utils import RuntimeFailure

            if how == "change":
                with fault_at(number, folder, die):
                    self.job.run(folder)
                return
            with fault_at(number, folder, refuse, ("open", "os.mkdir", "os.link")):
                try:
                    self.job.run(folder)
                except RuntimeFailure as error:
                    assert "the disk is full" in str(error)
                    raise

        return in_child(work)
