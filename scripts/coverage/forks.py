"""A fork server: rows run in processes of their own, forked from one that has imported all.

A row that crashes, hangs or eats the memory leaves the steps that it finished, and ends no other.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

Report = Callable[[str, str], None]
"""Called by a row with the name of a step and its result."""


@dataclass
class Child:
    """A row that is running. pipe: where its lines come from."""

    row: str
    pid: int
    pipe: int
    began: float
    text: bytes = b""
    steps: dict[str, str] = field(default_factory=dict)

    def read(self) -> bool:
        """Take what it wrote. Return False at the end."""
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

    run: called as `run(row, report)` in a child. seconds: of a row, wall clock. memory: bytes of
    data that a row may allocate.
    """
    waiting, running = iter(rows), dict[int, Child]()
    while True:
        while len(running) < jobs and (row := next(waiting, None)) is not None:
            child = _start(row, run, memory)
            running[child.pipe] = child
        if not running:
            return
        readable, _, _ = select.select(list(running), [], [], 1.0)
        for pipe in readable:
            if not running[pipe].read():
                yield _end(running.pop(pipe))
        for child in list(running.values()):
            if time.monotonic() - child.began > seconds:
                os.kill(child.pid, signal.SIGKILL)
                child.steps.setdefault("time", f"error: more than {seconds:.0f} s")


def _start(row: str, run: Callable[[str, Report], None], memory: int) -> Child:
    pipe, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return Child(row, pid, pipe, time.monotonic())
    os.close(pipe)
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

        def report(step: str, result: str) -> None:
            os.write(write, json.dumps([step, result]).encode() + b"\n")

        run(row, report)
        status = 0
    finally:
        os._exit(status)


def _end(child: Child) -> tuple[str, dict[str, str]]:
    _, status = os.waitpid(child.pid, 0)
    os.close(child.pipe)
    if status and "time" not in child.steps:
        child.steps["process"] = f"error: ended with status {status}"
    return child.row, child.steps
