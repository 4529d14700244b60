"""A run's rollouts on its page: success by environment and ablation, videos, and the commands and
the end effector's trajectory of each first episode."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...modalities.modality import Modality
from ..recipe import find, load
from ..utils import ConfigError

TYPES = {".gif": "image/gif", ".mp4": "video/mp4"}
"""Suffix of a video -> its media type."""

LARGEST = 12_000_000
"""Bytes of all videos on a page; later ones stay in the run's folder."""

COLUMNS = ("environment", "condition", "episodes", "success", "95 %", "at the end", "steps to it")


@dataclass(frozen=True)
class Video:
    """data: base64; empty if `problem` is the reason why it is not shown."""

    name: str
    kind: str = ""
    data: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Rollouts:
    """rows: cells below `columns`. trajectories: (name, HTML)."""

    rows: list[list[str]]
    videos: list[Video]
    trajectories: list[tuple[str, Markup]]
    columns: tuple[str, ...] = COLUMNS


def read_rollouts(run: Path) -> Rollouts | None:
    """Return the contents of `rollout-*.json` in a run's folder; None without any.

    Raise ConfigError for a file of another format.
    """
    results = [_read(path) for path in sorted(run.glob("rollout-*.json"))]
    if not results:
        return None
    return Rollouts(
        [_cells(each) for each in results],
        list(_videos(run, [name for each in results for name in each["videos"]])),
        [drawn for each in results for drawn in _trajectories(each)],
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        result["env"], result["summary"]["success_interval"], result["trajectory"]["commands"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is no rollout ({error}); roll the run out again") from error
    return result


def _cells(result: dict[str, Any]) -> list[str]:
    figures = result["summary"]
    low, high = figures["success_interval"]
    return [
        result["env"] + (" (stopped by an error)" if result.get("stopped") else ""),
        result["ablation"].replace("-", " ") or "as it is",
        str(figures["episodes"]),
        f"{figures['success']:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{figures['success_at_end']:.3f}",
        f"{figures['steps_to_success'] or '–'}",
    ]


def _videos(run: Path, names: list[str]) -> Iterator[Video]:
    budget = LARGEST
    for name in names:
        path = run / name
        if not path.is_file():
            yield Video(name, problem="The video is no longer there.")
            continue
        budget -= path.stat().st_size
        if budget < 0:
            problem = "The video would make the page too large; it is in the run's folder."
            yield Video(name, problem=problem)
        else:
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            yield Video(name, TYPES[path.suffix], data)


def _trajectories(result: dict[str, Any]) -> Iterator[tuple[str, Markup]]:
    trajectory = result["trajectory"]
    where = " ".join(filter(None, (result["env"], result["ablation"].replace("-", " "))))
    yield f"commands in {where}", _motion(trajectory["commands"])
    if trajectory.get("hand"):
        yield f"the hand in {where}", _motion(trajectory["hand"])


def _motion(values: list[list[float]]) -> Markup:
    action: Modality = find("modality", "action", "report")
    return Markup(load(action.preview)(load(action.read)(values)))
