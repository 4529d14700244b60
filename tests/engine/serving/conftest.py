"""Two small runs, and a client of a server for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_runs import PICTURES, SPEECH, wav

from sensorium.engine.inference import Pipeline, load
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train


def save_runs(folder: Path) -> None:
    """Train the runs `pictures` and `speech` into a folder."""
    lines = []
    for number, text in enumerate(("go", "no")):
        path = folder / f"{number}.wav"
        path.write_bytes(wav(seed=number))
        lines.append(json.dumps({"audio": str(path), "text": text}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    data = {"train": {"source": "json", "path": str(folder / "rows.jsonl")}}
    speech = {**SPEECH, "tasks": {"transcribe": {**SPEECH["tasks"]["transcribe"], "data": data}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        train(parse_recipe(PICTURES), folder / "pictures", show=False)
        train(parse_recipe(speech), folder / "speech", show=False)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two runs."""
    folder = tmp_path_factory.mktemp("served")
    save_runs(folder)
    return folder


@pytest.fixture(scope="session")
def pipelines(runs: Path) -> dict[str, Pipeline]:
    return {name: load(runs / name, device="cpu") for name in ("pictures", "speech")}


@pytest.fixture(scope="module")
def client(pipelines: dict[str, Pipeline], tmp_path_factory: Any) -> Iterator[Any]:
    """A client of a server in this process."""
    from starlette.testclient import TestClient

    from sensorium.engine.serving import ServeSettings, create_app

    settings = ServeSettings(files=tmp_path_factory.mktemp("files"), max_pixels=10_000)
    app = create_app(pipelines, settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
