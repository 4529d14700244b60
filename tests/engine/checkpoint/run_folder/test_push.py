"""The card of a run, and its upload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.checkpoint import push
from sensorium.engine.utils import ConfigError, RuntimeFailure


def test_the_card_says_what_it_is_made_of(copy: Path) -> None:
    card = (copy / "README.md").read_text()
    for words in (
        "inputs.image.encoder | patches | hf-hub:org/before |",
        "sensorium train x",
        "digits",
    ):
        assert words in card
    rows = {line.split(" | ")[0][2:]: line for line in card.splitlines() if line.startswith("| ")}
    assert rows["inputs.image.encoder"].endswith("| no |")
    assert "tasks.caption" not in rows  # it has no parameters of its own
    assert "tasks.digit" not in rows
    assert "tasks.digit.head" in rows


@pytest.mark.parametrize(
    "error", [ConnectionError("offline mode is enabled"), OSError("refused"), ValueError("bad id")]
)
def test_push_without_a_hub_is_one_line(
    copy: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import huggingface_hub

    class Api:
        def create_repo(self, *args: Any, **kwargs: Any) -> None:
            raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(RuntimeFailure, match=rf"cannot be pushed to org/name: .*{error}") as caught:
        push(copy, "org/name")
    assert "\n" not in str(caught.value)


def test_push_uploads_the_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **kwargs: calls.append((name, {"args": args, **kwargs}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push(copy, "org/name", private=True) == "hf-hub:org/name"
    assert [name for name, _ in calls] == ["create_repo", "upload_folder"]
    assert calls[0][1]["private"] is True
    assert "checkpoints/**" in calls[1][1]["ignore_patterns"]
    (copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        push(copy, "org/name")
