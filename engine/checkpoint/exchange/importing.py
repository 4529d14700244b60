"""`sensorium import KIND PATH`: a run's folder out of a checkpoint of another library."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch

from ....modalities.messages import describe_error, did_you_mean
from ...model import Model, compose
from ...model import fit as fit_parts
from ...recipe import parse_recipe, plan_recipe
from ...utils import ConfigError, atomic_folder
from ..run_folder import save_run
from .common import Imported
from .rerankers import cross_encoder
from .sentences import sentence_transformers
from .speech import wav2vec2_ctc, whisper
from .vision import clip, llava, siglip

KINDS: dict[str, Callable[[Path], Imported]] = {
    "llava": llava,
    "clip": clip,
    "siglip": siglip,
    "wav2vec2-ctc": wav2vec2_ctc,
    "whisper": whisper,
    "cross-encoder": cross_encoder,
    "sentence-transformers": sentence_transformers,
}


def import_model(kind: str, path: Path, out: Path) -> Model:
    """Write a recipe and all weights of a checkpoint's folder as a run's folder; return the model.

    kind: one of `KINDS`. The run needs the checkpoint no more: it is loaded, trained further
    (`weights: OUT`), evaluated and served as any run. Raise ConfigError, one line, for a folder
    that is of another kind or has a part that no recipe can hold.
    """
    if kind not in KINDS:
        raise ConfigError(f"import: found {kind!r}, expected a kind{did_you_mean(kind, KINDS)}")
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such folder; download the checkpoint first")
    try:
        imported = KINDS[kind](path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: is no {kind} folder: {describe_error(error)}") from error
    plan = plan_recipe(parse_recipe(copy.deepcopy(imported.recipe)))
    plan.resolve()
    fit_parts(plan, {}, imported.states)
    model = compose(plan)
    with torch.no_grad():
        imported.fill(model)
    for component in model.components:  # the run holds all of them
        component.plan.section.weights = "none"
        if component.plan.options.keys() >= {"config", "processor"}:  # all that the name stands for
            component.plan.options.pop("name", None)
    model.plan.update_recipe()
    model.command = f"sensorium import {kind} {path.name} --out {out.name}"
    with atomic_folder(out, "--out") as beside:
        save_run(model, beside)
    return model.eval()
