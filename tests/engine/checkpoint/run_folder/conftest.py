"""A trained run, a copy of it, and the copy as a pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.model import Model
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.tests.engine.checkpoint.run_folder.run_cases import RECIPE, serve


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run in it (`run`), and the run whose encoder it froze (`before`)."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        serve(patch, folder / "before")
        first: dict[str, Any] = json.loads(json.dumps(RECIPE))
        del first["backbone"], first["tasks"]["caption"], first["inputs"]["image"]["connector"]
        encoder = first["inputs"]["image"]["encoder"]
        first["inputs"]["image"]["encoder"] = encoder | {"weights": "none", "freeze": False}
        train(parse_recipe(first), folder / "before", show=False)
        yield folder


@pytest.fixture(scope="module")
def trained(home: Path) -> Model:
    result: Model = train(
        parse_recipe(RECIPE), home / "run", show=False, command="sensorium train x"
    )
    return result


@pytest.fixture
def copy(home: Path, trained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, to be spoiled."""
    monkeypatch.chdir(home)
    return Path(shutil.copytree(home / "run", tmp_path / "copy"))
