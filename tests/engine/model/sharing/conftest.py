"""Rows of text in a folder of its own, and a hub that has the run in it."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest

from sensorium.tests.engine.model.sharing.shared_streams import ROWS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({"query": q, "passage": p}) for q, p in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `run` is what the hub has."""
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder / "run"))
