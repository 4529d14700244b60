"""The stages of a recipe: overrides of the same file, run one after the other.

A stage is the recipe with its own keys laid over it, section by section; null takes a key away.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...modalities.messages import did_you_mean
from ..utils import ConfigError
from .recipe import Recipe, merge_sections, parse_recipe
from .train_config import StageSection


@dataclass(frozen=True)
class Stage:
    """One stage. recipe: the whole recipe with the stage's overrides, and without stages."""

    index: int
    section: StageSection
    recipe: Recipe

    @property
    def name(self) -> str:
        return self.section.name

    @property
    def where(self) -> str:
        return f"stages.{self.index}"

    @property
    def folder(self) -> str:
        """The name of its folder in a run's `stages`."""
        return f"{self.index}-{self.name}"

    def located_errors(self) -> contextlib.AbstractContextManager[None]:
        """Prefix mistakes with the place of this stage."""
        return _located(self.where, self.section.overrides)

    def overrides(self, keys: Sequence[str]) -> bool:
        """Return whether the stage itself sets a key."""
        return _has(self.section.overrides, keys)


def stage_recipes(recipe: Recipe) -> list[Stage]:
    """Return the stages of a recipe, each with its whole recipe; none if it has none.

    Raise ConfigError, one line a mistake, with its place in the stage.
    """
    base = {key: value for key, value in recipe.to_dict().items() if key != "stages"}
    stages: list[Stage] = []
    for index, section in enumerate(recipe.stages):
        where = f"stages.{index}"
        if not re.fullmatch(r"[\w-]+", section.name):
            raise ConfigError(
                f"{where}.name: found {section.name!r}, expected letters, digits, '_' and '-'"
            )
        fields = {*Recipe.model_fields, *StageSection.model_fields} - {"stages"}
        for key in section.overrides:
            if key not in fields:
                raise ConfigError(
                    f"{where}.{key}: a stage has no such option{did_you_mean(key, fields)}"
                )
        with _located(where, section.overrides):
            merged = parse_recipe(merge_sections(base, section.overrides))
        stages.append(Stage(index, section, merged))
        if section.keep_optimizer:
            _check_kept_optimizer(stages, where)
    return stages


def _check_kept_optimizer(stages: Sequence[Stage], where: str) -> None:
    if len(stages) == 1:
        raise ConfigError(f"{where}.keep_optimizer: there is no stage before the first one")
    before, now = (stage.recipe.train.optimizer.type for stage in stages[-2:])
    if before != now:
        raise ConfigError(
            f"{where}.keep_optimizer: the stage before has {before}, this one {now}; give both the "
            "same, or take keep_optimizer out"
        )


@contextlib.contextmanager
def _located(where: str, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Put a stage's place in front of mistakes: the full place of one in the stage itself."""
    try:
        yield
    except ConfigError as error:
        lines = []
        for line in str(error).splitlines():
            keys = line.partition(": ")[0].split(".")
            lines.append(f"{where}{'.' if _has(overrides, keys) else ': '}{line}")
        raise ConfigError("\n".join(lines)) from error


def _has(values: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True
