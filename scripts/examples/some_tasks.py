"""A recipe with some of its tasks alone, and which of its tasks this machine can run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sensorium.engine.data import open_section
from sensorium.engine.recipe import BACKBONE, Recipe, parse_recipe, plan_recipe
from sensorium.engine.utils import ConfigError


def missing(recipe: Recipe) -> dict[str, str]:
    """Return `{task: why}` of the tasks whose data cannot be made here, such as those of a
    simulator that is not installed."""
    why: dict[str, str] = {}
    for name, section in recipe.tasks.items():
        for split, data in section.data.items():
            try:
                open_section(data, f"tasks.{name}.data.{split}")
            except ConfigError as error:
                why.setdefault(name, str(error).splitlines()[0])
    return why


def keep_tasks(recipe: Recipe, names: Collection[str]) -> Recipe:
    """Return the recipe of these tasks alone: with the streams that they use, without a decoder or
    simulator that none of them needs, and with the weights of their own steps.

    A stream whose encoder is that of a stream which is left out gets the encoder's section itself.
    """
    if set(names) == set(recipe.tasks):
        return recipe
    plan, values = plan_recipe(recipe), recipe.to_dict()
    tasks = {name: plan.tasks[name].task for name in recipe.tasks if name in names}
    used = {stream for task in tasks.values() for stream in task.streams}
    streams = {name: dict(each) for name, each in values["inputs"].items() if name in used}
    _adopt(streams, values["inputs"])
    values["inputs"] = streams
    values["tasks"] = {name: values["tasks"][name] for name in tasks}
    shared = {_share(stream.get("encoder")) for stream in streams.values()}
    if not any(task.decoders for task in tasks.values()) and BACKBONE not in shared:
        values.pop(BACKBONE, None)
        for stage in values.get("stages", ()):
            stage.pop(BACKBONE, None)
    if not any(task.ability == "act" for task in tasks.values()):
        values.pop("env", None)
    for settings in (values["train"], *(s.get("train", {}) for s in values.get("stages", ()))):
        weights = settings.get("task_weights", {})
        settings["task_weights"] = {n: w for n, w in weights.items() if n in tasks}
    return parse_recipe(values)


def _adopt(streams: dict[str, dict[str, Any]], every: dict[str, dict[str, Any]]) -> None:
    """Give the encoder of a stream that is left out to the first stream that shares it."""
    adopted: dict[str, str] = {}
    for name, stream in streams.items():
        owner = _share(stream.get("encoder"))
        if owner is None or owner in streams or owner not in every:
            continue
        if owner in adopted:
            stream["encoder"] = {**stream["encoder"], "share": adopted[owner]}
        else:
            stream["encoder"] = every[owner]["encoder"]
            adopted[owner] = name


def _share(section: Any) -> str | None:
    return section.get("share") if isinstance(section, dict) else None
