"""A small captioning model of random weights, and one that was trained for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.engine.evaluation.analyses import Subject
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.tests.engine.evaluation.analyses.analyzed import Subjects, recipe


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("analyzed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="module")
def model(home: Path) -> Model:
    torch.manual_seed(0)
    return build(parse_recipe(recipe()))


@pytest.fixture(scope="module")
def subject(model: Model) -> Subjects:
    """Subjects of the model, by task."""

    def of(task: str = "caption", **options: Any) -> Subject:
        return Subject.of(model, task=task, **{"limit": 24, **options})

    return of


@pytest.fixture(scope="module")
def make_subject(home: Path) -> Callable[[Mapping[str, Any]], Subject]:
    """The subject of the recipe with other sections."""

    def of(changes: Mapping[str, Any], **options: Any) -> Subject:
        return Subject.of(build(parse_recipe(recipe(**changes))), **{"limit": 12, **options})

    return of
