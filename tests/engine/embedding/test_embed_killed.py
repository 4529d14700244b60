"""An embedding that is killed: it goes on, and loses no row that was committed."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import pytest

from sensorium.engine.index import open_index
from sensorium.tests.engine.embedding.places import Place, same

engine = import_module("sensorium.engine.embedding.embed")


@pytest.mark.slow
@pytest.mark.parametrize(("forward", "form"), [(1, "dense"), (4, "sparse"), (8, "multi_vector")])
def test_a_killed_run_goes_on(place: Place, forward: int, form: str) -> None:
    """Killed in an encoder's forward: what was committed stays, and is not embedded again."""
    recipe = str(place.runner.write(place.written(type="fatal_parts:Fatal"), "fatal"))
    code = (
        "from sensorium.engine.embedding import embed, index_metadata\n"
        "from sensorium.engine.embedding.data_spec import open_data\n"
        "from sensorium.engine.embedding.embedder import load_run_or_recipe\n"
        f"model = load_run_or_recipe({recipe!r})\n"
        "rows = open_data(model.plan, 'image', (), None, 'test')\n"
        f"maker = index_metadata(model, 'image', {recipe!r}, (), form={form!r})\n"
        "embed(model, maker, rows, 'index', batch_size=3, commit_rows=6)\n"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "FATAL": str(forward)}
    place.runner.environment |= environment
    died = place.runner.run(command)
    assert died.returncode == -signal.SIGKILL, died.stderr
    remaining = open_index("index").count()
    assert remaining == (forward - 1) * 3 // 6 * 6
    done = place.go(recipe=recipe, batch_size=3, form=form)
    assert (done.already_present, done.added.new, done.added.replaced) == (
        remaining,
        30 - remaining,
        0,
    )
    place.go(recipe=recipe, out="whole", batch_size=3, form=form)
    same(place.rows("index", "word"), place.rows("whole", "word"), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.002, 0.01])
def test_a_kill_in_mid_commit_loses_no_row_that_was_there(place: Place, after: float) -> None:
    code = (
        "import os, signal, threading\n"
        "from sensorium.engine.embedding import embed, index_metadata\n"
        "from sensorium.engine.index.lance_index import LanceIndex\n"
        "from sensorium.engine.embedding.data_spec import open_data\n"
        "from sensorium.engine.embedding.embedder import load_run_or_recipe\n"
        f"model = load_run_or_recipe({place.recipe!r})\n"
        "rows = open_data(model.plan, 'image', (), None, 'test')\n"
        "add, calls = LanceIndex.add, []\n"
        "def fatal(self, entries):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        f"        kill = threading.Timer({after}, os.kill, (os.getpid(), signal.SIGKILL))\n"
        "        kill.start()\n"
        "    done = add(self, entries)\n"
        "    if len(calls) == 3:\n"
        "        kill.join()\n"
        "    return done\n"
        "LanceIndex.add = fatal\n"
        f"maker = index_metadata(model, 'image', {place.recipe!r}, ())\n"
        "embed(model, maker, rows, 'index', batch_size=5, commit_rows=5)\n"
    )
    died = place.runner.run([sys.executable, "-c", code])
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert open_index("index").count() in (10, 15)
    place.go(batch_size=5)
    place.go(out="whole", batch_size=5)
    same(place.rows("index", "word"), place.rows("whole", "word"))


def test_commits_come_by_time_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "COMMIT_SECONDS", -1.0)
    sizes: list[int] = []
    from sensorium.engine.index.lance_index import LanceIndex

    add = LanceIndex.add
    monkeypatch.setattr(
        LanceIndex, "add", lambda self, rows: (sizes.append(len(rows)), add(self, rows))[1]
    )
    place.go(batch_size=10)
    assert [s for s in sizes if s] == [10, 10, 10]
