"""A run's rollouts as a part of its page: figures by environment and condition, films, and the
commands and the way of the hand of each first episode."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..modalities.modality import Modality
from .catalogue import find, load
from .errors import RecipeError

TYPES = {".gif": ("img", "image/gif"), ".mp4": ("video controls", "video/mp4")}
"""Suffix of a film -> its element and its kind."""

LARGEST = 12_000_000
"""Bytes of all films on a page; those after that stay in the run's folder."""

HEADS = ("environment", "condition", "episodes", "success", "95 %", "at the end", "steps to it")


def show_rollouts(run: Path) -> Markup:
    """What `rollout-*.json` of a run's folder say; nothing where there are none. Raises RecipeError
    for a file that is none of ours."""
    found = [_read(path) for path in sorted(run.glob("rollout-*.json"))]
    if not found:
        return Markup("")
    return Markup("").join([Markup("<h4>Rollouts</h4>"), _table(found), *_films(run, found)])


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["env"], found["summary"]["success_interval"], found["trajectory"]["commands"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: is no rollout ({error}); roll the run out again") from error
    return found


def _table(found: list[dict[str, Any]]) -> Markup:
    row = Markup(
        "<tr><th scope='row'>{}</th>"
        + "<td>{}</td>"
        + "<td class='n'>{}</td>" * (len(HEADS) - 2)
        + "</tr>"
    )
    head = Markup("<th scope='col'{}>{}</th>")
    number = Markup(" class='n'")
    heads = Markup("").join(head.format(number if i > 1 else "", h) for i, h in enumerate(HEADS))
    rows = Markup("").join(row.format(*_cells(each)) for each in found)
    form = "<div class='scroll'><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    return Markup(form).format(heads, rows)


def _cells(found: dict[str, Any]) -> list[str]:
    figures = found["summary"]
    low, high = figures["success_interval"]
    return [
        found["env"],
        found["conditions"].replace("-", " ") or "as it is",
        str(figures["episodes"]),
        f"{figures['success']:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{figures['success_at_end']:.3f}",
        f"{figures['steps_to_success'] or '–'}",
    ]


def _films(run: Path, found: list[dict[str, Any]]) -> Iterator[Markup]:
    item = Markup("<li class='sample'>{}<p><small>{}</small></p></li>")
    shown, left = [], LARGEST
    for name in (name for each in found for name in each["films"]):
        shown.append(item.format(_film(run / name, left), name))
        left -= (run / name).stat().st_size if (run / name).is_file() else 0
    for each in found:
        way = each["trajectory"]
        where = " ".join(filter(None, (each["env"], each["conditions"].replace("-", " "))))
        shown.append(item.format(_motion(way["commands"]), f"commands in {where}"))
        if way.get("hand"):
            shown.append(item.format(_motion(way["hand"]), f"the hand in {where}"))
    yield Markup("<ul class='grid wide'>{}</ul>").format(Markup("").join(shown))


def _film(path: Path, left: int) -> Markup:
    if not path.is_file():
        return Markup("<p>The film is not there any more.</p>")
    if path.stat().st_size > left:
        return Markup("<p>The film would make the page too large; it lies in the run's folder.</p>")
    tag, kind = TYPES[path.suffix]
    text = base64.b64encode(path.read_bytes()).decode("ascii")
    end = "" if tag == "img" else "</video>"
    wide = "width:100%;max-width:20rem"
    shown = Markup("<{} style='{}' aria-label='{}' src='data:{};base64,{}'>")
    return shown.format(Markup(tag), wide, f"film {path.name}", kind, text) + Markup(end)


def _motion(values: list[list[float]]) -> Markup:
    action: Modality = find("modality", "action", "report")
    return Markup(load(action.preview)(load(action.read)(values)))
