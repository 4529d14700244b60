"""The fitted parts of a recipe, fitted once and in order, on the training split.

Their states are saved with the run (JSON, arrays as safetensors) and loaded for evaluation, never
fitted again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from ...modalities.base import Fittable, Source
from ...modalities.messages import describe_error
from ..recipe import ComponentPath, ComponentSpec, ResolvedRecipe, source_run
from ..utils import ConfigError, atomic_path, located_errors, make_folder, write_text
from .fit_examples import FitExamples

FITTED = "fitted"
"""The folder of a run that holds the states."""

States = Mapping[str, Mapping[str, Any]]
"""States of fitted parts, by their places."""


def fit(plan: ResolvedRecipe, sources: Mapping[str, Source], states: States | None = None) -> None:
    """Fit every part that wants it; `sources` are the tasks' training splits. What belongs to
    weights of another run was fitted with them, and is read from there. states: parts that are
    fitted already. Rows that cannot be used are noted in `plan.unfit_rows`, or refused."""
    fitted_from = plan.fitted_from()
    for owner, name in plan.fitted_arguments():
        part, where = owner.fitted[name], owner.where / name
        if states is not None and where in states:
            part.load_state(states[where])
            continue
        run = source_run(fitted_from[where], where)
        if run is not None:
            _load_state(part, where, run[0] / FITTED / f"{run[1]}.json")
            continue
        with located_errors(where):
            part.fit(FitExamples(plan, sources, owner, name))


def check_heads(plan: ResolvedRecipe) -> None:
    """Raise ConfigError if a head of another run was trained with another tokenizer."""
    for task in plan.tasks.values():
        for head in task.heads.values():
            run = source_run(head.weights, head.where)
            if run is not None:
                _check_head(task.plan, head.where, *run)


def _check_head(
    task: ComponentSpec, where: ComponentPath, folder: Path, source: ComponentPath
) -> None:
    for name, part in task.fitted.items():
        path = folder / FITTED / f"tasks.{source.name}.{name}.json"
        if part.kind is None or not path.is_file():
            continue
        if read_json(path) != json.loads(_split_state(part.state())[0]):
            raise ConfigError(
                f"{task.where}.{name}: differs from the one that {where} learned with; set "
                f"weights: {folder}:{source.name} in its section"
            )


def save_fitted(plan: ResolvedRecipe, folder: Path) -> None:
    """Write one JSON file a part, and one safetensors file if it has arrays."""
    for where, part in plan.fitted().items():
        make_folder(folder)
        text, arrays = _split_state(part.state())
        if arrays:
            with atomic_path(folder / f"{where}.safetensors") as temporary:
                save_file(arrays, temporary)
        write_text(folder / f"{where}.json", text)


def _split_state(state: Mapping[str, Any]) -> tuple[str, dict[str, np.ndarray]]:
    """Return a state's JSON values, and its arrays."""
    arrays = {k: np.ascontiguousarray(v) for k, v in state.items() if isinstance(v, np.ndarray)}
    values = {k: v for k, v in state.items() if k not in arrays}
    return json.dumps(values, indent=1), arrays


def load_fitted(plan: ResolvedRecipe, folder: Path) -> None:
    """Load the states of a run's folder. Raise ConfigError if one is missing."""
    for where, part in plan.fitted().items():
        _load_state(part, where, folder / f"{where}.json")


def _load_state(part: Fittable, where: str, path: Path) -> None:
    """Load a saved state."""
    if not path.is_file():
        raise ConfigError(f"{where}: the run holds no {path}; was it fitted?")
    try:
        part.load_state(_read_state(path))
    except ConfigError:
        raise
    except Exception as error:  # libraries read the state
        reason = describe_error(error)
        raise ConfigError(f"{path}: does not fit {where}: {reason}; copy it again") from error


def _read_state(path: Path) -> dict[str, Any]:
    arrays = path.with_suffix(".safetensors")
    return {**read_json(path), **(load_file(arrays) if arrays.is_file() else {})}


def read_states(folder: Path) -> States:
    """Return the states of a run's folder, by the places of their parts."""
    return {path.stem: _read_state(path) for path in sorted(folder.glob("*.json"))}


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file of a run's folder. Raise ConfigError if it is missing or incomplete."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; copy the run's whole folder") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is no whole JSON file ({error}); copy it again") from error
    return values
