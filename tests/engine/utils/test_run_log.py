"""Log lines: on the logger of the package, and on stderr only from the command line."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sensorium.engine.utils import RunLogger, console, read_metrics

LIBRARY = """
import logging
from sensorium.engine.utils.run_log import RunLogger
log = RunLogger(None)
log.start(2, 0, "run")
log.info("step 1")
log.step(loss=1.0)
log.progress("cache image", 1, 1)
log.close()
logging.getLogger("sensorium.engine").warning("a warning")
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_library_user_sees_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lines_are_records_of_the_package(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sensorium"):
        RunLogger(None).info("100 % of it")
        RunLogger(None, show=False).info("unseen")
    assert [(r.name, r.levelname, r.message) for r in caplog.records] == [
        ("sensorium.engine.utils.run_log", "INFO", "100 % of it")
    ]


def test_the_console_has_a_line_a_record_and_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with console():
        RunLogger(None).info("step 1")
        logging.getLogger("sensorium.modalities").warning("a row is %s", "odd")
        warnings.warn("two\n  lines", UserWarning, stacklevel=1)
        with console():
            RunLogger(None).info("step 2")
        RunLogger(None).info("step 3")
    RunLogger(None).info("after")
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", stacklevel=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "step 1\nwarning: a row is odd\nwarning: two lines\nstep 2\nstep 3\n"


def test_bars_are_drawn_for_the_console_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(show: bool) -> str:
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        log = RunLogger(None, show=show)
        log.start(2, 0, "my-run")
        log.step(loss=0.5)
        log.progress("cache image", 4, 4)
        log.close()
        return screen.getvalue()

    assert drawn(True) == ""  # nobody has configured the logger
    with console():
        text = drawn(True)
        assert "my-run" in text and "cache image" in text and "4/4" in text
        assert drawn(False) == ""


def test_without_a_terminal_there_is_a_line_every_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    log = RunLogger(None, interval=30, clock=lambda: now)
    with console():
        log.start(900, 100, "digits")
        for step in range(1, 9):
            now = 10.0 * step
            log.step(**({"loss": 1 / step} if step % 3 == 0 else {}))
        log.close()
        for done in (1000, 2000, 4000):
            now += 20
            log.progress("cache image", done, 4000)
        log.progress("embed", 5, 5)  # shorter than an interval
    RunLogger(None, interval=0, clock=lambda: now).progress("nobody listens", 1, 2)
    assert capsys.readouterr().err.splitlines() == [
        "digits: step 103 of 900 (11 %), loss 0.3333, 2:12:50 left",
        "digits: step 106 of 900 (12 %), loss 0.1667, 2:12:20 left",
        "cache image: 4,000 of 4,000 (100 %)",
    ]


def test_quiet_has_no_lines_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with console():
        log = RunLogger(None, show=False, interval=0)
        log.progress("cache image", 1, 2)
    assert capsys.readouterr().err == ""


def test_the_file_is_written_whatever_is_shown(tmp_path: Path) -> None:
    for show in (True, False):
        log = RunLogger(tmp_path, show=show)
        log.write({"step": 1, "loss": 2.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}] * 2
    RunLogger(tmp_path).rewind(0)
    assert read_metrics(tmp_path) == []
