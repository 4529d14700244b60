"""`sensorium submit`: a training as a job, which is queued again from its checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.training.parallel import TrainJob, job_options, submit_job
from sensorium.engine.utils import ConfigError
from sensorium.scripts.train import submit

STUB = """
import os, signal, sys
from pathlib import Path
run, begun = Path("run"), "--resume" in sys.argv
run.mkdir(exist_ok=True)
if begun:
    (run / "done").write_text(" ".join(sys.argv[1:]))
    sys.exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.kill(os.getppid(), signal.SIGUSR2)  # as SLURM preempts the job
signal.sigwait({signal.SIGTERM})  # also if it came before this line
(run / "run.json").write_text("checkpoint")
os._exit(1)
"""


class StubJob(TrainJob):
    """A job whose training is a script."""

    def command(self, head: str = "") -> list[str]:
        command = super().command(head)
        return [command[0], "stub.py", *command[3:]]


def test_the_command_of_one_node_and_of_several(tmp_path: Path) -> None:
    job = TrainJob(["x.yaml", "--out", "run"], tmp_path)
    train = ["-m", "sensorium", "train", "x.yaml", "--out", "run"]
    assert job.command() == [sys.executable, *train]
    job = TrainJob(job.arguments, tmp_path, processes=4)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "4"]
    assert job.command() == [sys.executable, *launcher, "--standalone", *train]
    job = TrainJob(job.arguments, tmp_path, nodes=2, processes=4)
    ends = ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "first:29500"]
    assert job.command("first") == [sys.executable, *launcher, *ends, *train]
    (tmp_path / "run.json").touch()
    assert job.command("first")[-1] == "--resume"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"cluster": "pbs"}, "--cluster: found 'pbs', expected slurm, local, debug"),
        ({"cluster": "slurm"}, "--cluster: sbatch of SLURM is not found here"),
        ({"cluster": "local", "nodes": 2}, "--nodes: found 2 with --cluster local"),
        ({"cluster": "local", "options": {"slurm_speed": 3}}, "--option: "),
        ({"cluster": "local", "options": job_options(["gpus_per_node=x"])}, "--option: "),
    ],
)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: dict[str, Any], message: str
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    job = TrainJob([], tmp_path, nodes=call.pop("nodes", 1))
    with pytest.raises(ConfigError) as raised:
        submit_job(job, tmp_path / "job", **call)
    assert str(raised.value).startswith(message)
    with pytest.raises(ConfigError, match=r"--option: found 'fast', expected NAME=VALUE"):
        job_options(["fast"])


def test_a_recipe_is_refused_before_it_is_queued(tmp_path: Path) -> None:
    recipe = tmp_path / "x.yaml"
    recipe.write_text("tasks: {}\nsteps: 3\n")
    with pytest.raises(ConfigError, match="steps"):
        submit(str(recipe), cluster="local")
    assert not list(tmp_path.glob("*.job"))


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training gets SIGTERM, writes its checkpoint, and is started again with --resume."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (tmp_path / "stub.py").write_text(STUB)
    job = StubJob(["x.yaml", "--out", "run"], tmp_path / "run")
    executor = submitit.AutoExecutor(folder=tmp_path / "job", cluster="local")
    executor.update_parameters(timeout_min=30)
    submitted = executor.submit(job)
    submitted.wait()
    assert (tmp_path / "run" / "run.json").read_text() == "checkpoint"
    assert submitted.exception() is None
    assert (tmp_path / "run" / "done").read_text() == "train x.yaml --out run --resume"


@pytest.mark.slow
def test_a_submitted_recipe_is_trained(
    runner: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.chdir(runner.folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    file = runner.write(runner.recipe({"train": {"steps": 2}}), "x")
    submit(str(file), out=Path("run"), cluster="local", json_=True)
    line = json.loads(capsys.readouterr().out)
    assert line["command"][1:] == ["-m", "sensorium", "train", str(file), "--out", "run"]
    assert "sensorium train" in (runner.folder / "run.job" / "command.sh").read_text()
    with contextlib.suppress(ChildProcessError):  # it has ended, and was waited for
        os.waitid(os.P_PID, int(line["job"]), os.WEXITED | os.WNOWAIT)
    finished = submitit.local.local.LocalJob(Path("run.job"), line["job"])
    assert finished.result() == 0
    assert json.loads((runner.folder / "run" / "run.json").read_text())["finished"]
