"""A run's folder is the model: recipe, trained tensors, fingerprints of the others.

`load` builds it again without the training data; `save` and `push` pass it on. Nothing is
ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..model import FITTED, Model, compose, read_json, resolve_and_fit, save_fitted
from ..recipe import HUB, WEIGHTS, download, is_remote, load_recipe
from ..utils import (
    ConfigError,
    RuntimeFailure,
    check_precision,
    located_errors,
    make_folder,
    write_json,
)
from .model_card import command_header, read_command, write_card
from .run_state import RECIPE
from .state import (
    check_fingerprints,
    fingerprints,
    read_tensors,
    restore,
    saved_tensors,
    write_tensors,
)

FINGERPRINTS = "fingerprints.json"

PRIVATE = [
    "checkpoints/**",
    "stages/**",
    "*.jsonl",
    "run.json",
    "modules.json",
    "frozen.safetensors",
    ".*",
]
"""What of a run's folder is not handed on."""


def save_run(model: Model, folder: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Write a model into a run's folder: recipe, weights, fitted parts, fingerprints, card.

    tensors: its saved tensors, if the model is sharded and holds shares of them alone.
    """
    make_folder(folder)
    model.plan.recipe.write(folder / RECIPE, command_header(model.command))
    save_fitted(model.plan, folder / FITTED)
    write_fingerprints(model, folder)
    write_card(model, folder)
    tensors = saved_tensors(model) if tensors is None else tensors
    write_tensors(folder / WEIGHTS, tensors)  # last: a run that has them is finished


def write_fingerprints(model: Model, folder: Path) -> None:
    """Write the fingerprints of the tensors that a run does not save."""
    write_json(folder / FINGERPRINTS, fingerprints(model))


def check_run_fingerprints(model: Model, folder: Path) -> None:
    """Refuse frozen weights that are not those that a run began with; ConfigError."""
    check_fingerprints(model, read_json(folder / FINGERPRINTS))


def load_model(folder: str | Path, precision: str | None = None) -> Model:
    """Return the model of a run's folder or `hf-hub:org/name@revision`, in `eval()`, on the CPU.

    precision: `fp32`, `bf16` or `fp16`; None: as it was trained. Raise ConfigError where the
    folder is not whole, or another encoder was put in its place.
    """
    check_precision(precision)
    folder = download(str(folder)) if is_remote(str(folder)) else Path(folder)
    if not folder.exists():
        raise ConfigError(f"{folder}: there is no such folder; a run of the hub is hf-hub:org/name")
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"{folder}: holds no {WEIGHTS}; is it a run's folder, and was the run finished?"
        )
    recipe = load_recipe(folder / RECIPE)
    tensors = read_tensors(folder / WEIGHTS)
    model = compose(resolve_and_fit(recipe, folder / FITTED), saved=tensors.keys())
    check_run_fingerprints(model, folder)
    with torch.no_grad():
        restore(model, tensors, str(folder / WEIGHTS))
    model.command = read_command(folder)
    model.precision = precision or model.precision
    return model.eval()


def push(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload a run's folder to the hub as `org/name`; return its address. Raise RuntimeFailure
    where the hub cannot be reached or refuses it."""
    from huggingface_hub import HfApi

    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(f"{folder}: holds no {WEIGHTS}; train it first")
    with located_errors(f"{folder}: cannot be pushed to {name}", error_class=RuntimeFailure):
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, ignore_patterns=PRIVATE)
    return f"{HUB}{name}"
