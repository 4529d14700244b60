"""A training as a job of SLURM, by submitit: `sensorium submit`.

Before its time ends, or if it is preempted, the job's training writes a checkpoint; SLURM puts the
job back into its queue, where it goes on from there. submitit keeps the job as a pickle in the
folder of its logs, and reads it in the job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...recipe import import_optional
from ...utils import ConfigError, make_folder, write_text

CLUSTERS = ("slurm", "local", "debug")
"""Where a job runs: a queue, a process of this machine, or this process."""

COMMAND = "command.sh"
"""The file of the job's folder that holds its command."""

PORT = 29500


@dataclass
class TrainJob:
    """What a job runs: one launcher of processes on each node.

    arguments: of `sensorium train`. run: the folder of the run, which a requeued job goes on with.
    nodes, processes: how many nodes, and how many processes on each.
    """

    arguments: list[str]
    run: Path
    nodes: int = 1
    processes: int = 1
    _child: Any = field(default=None, repr=False, compare=False)

    def command(self, head: str = "HEAD_NODE") -> list[str]:
        """Return the command of each node. head: the name of the first one."""
        start = [sys.executable]
        if self.nodes * self.processes > 1:
            start += ["-m", "torch.distributed.run", "--nproc_per_node", str(self.processes)]
            place = ["--nnodes", str(self.nodes), "--rdzv_backend", "c10d"]
            place += ["--rdzv_endpoint", f"{head}:{PORT}"]
            start += place if self.nodes > 1 else ["--standalone"]
        resume = ["--resume"] if (self.run / "run.json").exists() else []
        return [*start, "-m", "sensorium", "train", *self.arguments, *resume]

    def __call__(self) -> int:
        """Run the command in the job. Raise RuntimeError if it fails, so that the job does."""
        environment = import_optional("submitit").JobEnvironment()
        command = self.command(environment.hostnames[0] if self.nodes > 1 else "")
        sys.stdout.write(f"{shlex.join(command)}\n")  # the log of the job
        sys.stdout.flush()
        with _held_back(signal.Signals[f"SIG{environment.USR_SIG}"]):
            self._child = subprocess.Popen(command, preexec_fn=_let_signals_in)
        self._wait()
        status = int(self._child.wait())
        if status:
            raise RuntimeError(f"{shlex.join(command)}: ended with {status}")
        return status

    def _wait(self) -> None:
        """Wait for the child to end, without the lock of `Popen.wait`: `checkpoint` is called by a
        signal in the middle of it."""
        os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)

    def checkpoint(self) -> Any:
        """Called by submitit before the job ends: let the training write a checkpoint and end, and
        return the job to be queued again."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            self._wait()
        again = dataclasses.replace(self, _child=None)
        return import_optional("submitit").helpers.DelayedSubmission(again)


@contextlib.contextmanager
def _held_back(number: int) -> Iterator[None]:
    """Hold a signal back until the block ends: one in the middle of the start of a process would be
    handled before the process is known, which would then go on beside the job queued again."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _let_signals_in() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def submit_job(
    job: TrainJob,
    folder: Path,
    *,
    cluster: str = "slurm",
    minutes: int = 60,
    options: Mapping[str, Any] | None = None,
) -> tuple[str, Path]:
    """Submit a job; return its id and the file that holds its command. folder: of its logs.

    options: of submitit's executor, such as `slurm_partition`. Raise ConfigError where there is no
    such cluster, or for an option that it has not.
    """
    if cluster not in CLUSTERS:
        raise ConfigError(f"--cluster: found {cluster!r}, expected {', '.join(CLUSTERS)}")
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            "--cluster: sbatch of SLURM is not found here; submit on a node that has it, or set "
            "--cluster local"
        )
    if cluster != "slurm" and job.nodes > 1:
        raise ConfigError(f"--nodes: found {job.nodes} with --cluster {cluster}, which is one node")
    submitit = import_optional("submitit")
    make_folder(folder)
    folder_line = f"cd {shlex.quote(str(Path.cwd()))}"
    write_text(folder / COMMAND, f"{folder_line}\n{shlex.join(job.command())}\n")
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    size = {"nodes": job.nodes, "tasks_per_node": 1, "timeout_min": minutes}
    try:
        executor.update_parameters(name=f"sensorium-{job.run.name}", **size, **(options or {}))
    except (AssertionError, NameError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"--option: {text}") from error
    submitted = executor.submit(job)
    if cluster == "debug":
        submitted.result()  # runs it
    return str(submitted.job_id), folder / COMMAND


def job_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=VALUE` pairs; numbers become numbers. Raise ConfigError for other forms."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--option: found {pair!r}, expected NAME=VALUE")
        options[name] = int(value) if value.isdecimal() else value
    return options
