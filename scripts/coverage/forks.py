"""A fork server: rows run in separate processes, forked from one that has imported all.

A row that crashes, hangs or eats the memory leaves the steps that it finished, and ends no other.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Report = Callable[[str, str], None]
"""Called by a row with the name of a step and its result."""


@dataclass
class Child:
    """A row that is running. pipe: where its lines come from. seconds: of its processor time."""

    row: str
    pid: int
    pipe: int
    began: float
    seconds: float
    text: bytes = b""
    steps: dict[str, str] = field(default_factory=dict)

    def read(self) -> bool:
        """Read its output. Return False at the end."""
        if not (chunk := os.read(self.pipe, 65536)):
            return False
        *lines, self.text = (self.text + chunk).split(b"\n")
        for line in lines:
            step, result = json.loads(line)
            self.steps[step] = result
        return True


def run_rows(
    rows: Iterable[str],
    run: Callable[[str, Report], None],
    *,
    jobs: int = 2,
    seconds: float = 60,
    memory: int = 3 << 30,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row with its results by step, as they end.

    run: called as `run(row, report)` in a child. seconds: processor time of a row; the wall
    clock may show ten times as much. memory: bytes of data that a row may add to those of this
    process. A row that goes beyond a limit gets the step `limit`.
    """
    waiting, running = iter(rows), dict[int, Child]()
    while True:
        while len(running) < jobs and (row := next(waiting, None)) is not None:
            child = _start(row, run, seconds, memory)
            running[child.pipe] = child
        if not running:
            return
        readable, _, _ = select.select(list(running), [], [], 1.0)
        for pipe in readable:
            if not running[pipe].read():
                yield _end(running.pop(pipe))
        for child in list(running.values()):
            if time.monotonic() - child.began > 10 * seconds:
                os.kill(child.pid, signal.SIGKILL)
                child.steps.setdefault("limit", f"limit: more than {10 * seconds:.0f} s elapsed")


def preload(rows: Iterable[str], run: Callable[[str, Report], None]) -> None:
    """Import what rows import while they run, so that every fork has it.

    The rows themselves run in separate processes: threads do not survive a fork.
    """

    def names(row: str, report: Report) -> None:
        before = set(sys.modules)
        run(row, lambda step, result: None)
        report("modules", json.dumps(sorted(set(sys.modules) - before)))

    for _, steps in run_rows(rows, names, jobs=1, seconds=300):
        for name in json.loads(steps.get("modules", "[]")):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _data_size() -> int:
    """Return the bytes of data of this process, as RLIMIT_DATA counts them."""
    pages = Path("/proc/self/statm").read_text().split()[5]
    return int(pages) * resource.getpagesize()


def _start(row: str, run: Callable[[str, Report], None], seconds: float, memory: int) -> Child:
    pipe, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return Child(row, pid, pipe, time.monotonic(), seconds)
    os.close(pipe)
    status = 1
    try:
        limit = _data_size() + memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (round(seconds), round(seconds) + 5))

        def report(step: str, result: str) -> None:
            os.write(write, json.dumps([step, result]).encode() + b"\n")

        run(row, report)
        status = 0
    finally:
        os._exit(status)


def _end(child: Child) -> tuple[str, dict[str, str]]:
    _, status = os.waitpid(child.pid, 0)
    os.close(child.pipe)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        child.steps["limit"] = f"limit: more than {child.seconds:.0f} s of processor time"
    elif status and "limit" not in child.steps:
        child.steps["process"] = f"error: ended with status {status}"
    return child.row, child.steps
