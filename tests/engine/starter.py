"""Commands of Python without the seconds of its start.

Run as a script this is a server that has imported the package. For each line of its input, a JSON
object, it forks the processes of a command, which do what `python -m sensorium ...` or
`python file.py ...` does, and answers with their exit code. Several processes find each other as
under torchrun; when one fails the others are ended.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
PATIENCE_S = 20.0
"""Seconds that the others have to end by themselves when a process failed."""


class Starter:
    """The server, as its client sees it."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.server: Any = subprocess.Popen(command, text=True, env=environment, **pipes)
        atexit.register(self.server.kill)

    def run(
        self,
        arguments: Sequence[str],
        processes: int,
        folder: Path,
        environment: Mapping[str, str],
        timeout: float,
    ) -> tuple[int | None, str, str]:
        """Run `python` with arguments; return its exit code, None after a time-out, and what it
        wrote to its outputs."""
        outputs = [folder / f".{name}.txt" for name in ("out", "err")]
        order = {"arguments": list(arguments), "processes": processes, "folder": str(folder)}
        order |= {"environment": dict(environment), "outputs": [str(path) for path in outputs]}
        order["timeout"] = timeout
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        code = json.loads(self.server.stdout.readline())
        texts = [path.read_text(errors="replace") for path in outputs]
        for path in outputs:
            path.unlink()
        return code, *texts


def parse(command: Sequence[str]) -> tuple[list[str], int] | None:
    """Return the arguments of Python and the number of processes; None if the command is none that
    the server understands."""
    arguments, processes = list(command[1:]), 1
    if command[0] != sys.executable:
        return None
    if arguments[: len(TORCHRUN)] == TORCHRUN:
        processes, arguments = int(arguments[len(TORCHRUN)]), arguments[len(TORCHRUN) + 1 :]
    known = arguments[:2] == ["-m", "sensorium"] or arguments[0].endswith(".py")
    return (arguments, processes) if known else None


def work(arguments: list[str]) -> None:
    """Be `python` with these arguments."""
    sys.path.insert(0, str(Path.cwd()))
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def fork(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Return the number of a new process. In it, this function does not return."""
    pid = os.fork()
    if not pid:
        os.environ.update(environment)
        work(arguments)
        sys.exit(0)
    return pid


def ranks(arguments: list[str], count: int) -> int:
    """Run processes that find each other; return 0, or 1 if one of them failed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    pids, failed = set[int](), False
    for rank in range(count):
        values = {k: str(v) for k, v in {**group, "RANK": rank, "LOCAL_RANK": rank}.items()}
        pids.add(fork(arguments, {**values, "MASTER_ADDR": "127.0.0.1"}))
    while pids:
        pid, status = os.wait()
        pids.discard(pid)
        if status and not failed:
            failed = True
            for other in pids:
                os.kill(other, signal.SIGTERM)
            signal.signal(signal.SIGALRM, lambda *_: [os.kill(p, signal.SIGKILL) for p in pids])
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    return int(failed)


def carry_out(order: Mapping[str, Any]) -> int | None:
    """Run an order in a session of its own."""
    pid = os.fork()
    if not pid:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in enumerate(order["outputs"], 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if order["processes"] > 1:
            os._exit(ranks(order["arguments"], order["processes"]))
        work(order["arguments"])
        sys.exit(0)
    with os.fdopen(os.pidfd_open(pid), closefd=True) as ended:
        if not select.select([ended], [], [], order["timeout"])[0]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve() -> None:
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    for name in PRELOADED:
        importlib.import_module(name)
    while line := sys.stdin.readline():
        code = carry_out(json.loads(line))
        sys.stdout.write(json.dumps(code) + "\n")
        sys.stdout.flush()


HERE = Path(__file__).resolve().parent
PRELOADED = (
    "accelerate",
    "torch.distributed.fsdp",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "sensorium.scripts.app",
    "sensorium.engine.training.train",
    "sensorium.engine.evaluation",
    "sensorium.engine.report",
    "sensorium.modalities.image.datasets",
    "sensorium.scripts.train",
    "sensorium.tasks.text.captioning",
    "sensorium.tasks.supervised",
)

if __name__ == "__main__":
    serve()
