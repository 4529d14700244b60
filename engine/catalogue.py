"""Short names -> classes: the catalogues of the rooms, plug-ins, and `package.module:Class`.

A catalogue is a literal dict of strings in its package; nothing is imported before it is
asked for. Installed packages add names through the entry-point group `sensorium.plugins`,
an entry named `<kind>.<name>` (`connector.qformer`, `image_encoder.mine`, `modality.eeg`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .errors import RecipeError, did_you_mean

ROOMS = {
    "backbone": "sensorium.backbones:BACKBONES",
    "connector": "sensorium.connectors:CONNECTORS",
    "head": "sensorium.connectors:HEADS",
    "modality": "sensorium.modalities:MODALITIES",
    "task": "sensorium.tasks:TASKS",
    "tokenizer": "sensorium.modalities.text:TOKENIZERS",
}

BASES = {
    "action_tokenizer": "sensorium.modalities.action.base:ActionTokenizer",
    "backbone": "sensorium.backbones.base:Backbone",
    "connector": "sensorium.connectors.base:Connector",
    "decoder": "sensorium.modalities.base:Decoder",
    "encoder": "sensorium.modalities.base:Encoder",
    "head": "sensorium.connectors.base:Connector",
    "task": "sensorium.tasks.base:Task",
    "tokenizer": "sensorium.modalities.base:Tokenizer",
}
"""What the classes of a kind inherit from."""

EXTRAS = {
    "av": "video",
    "einops": "mri",
    "espeakng_loader": "talker",
    "faiss": "retrieval",
    "gymnasium": "control",
    "imageio": "control",
    "isal": "mri",
    "jiwer": "audio",
    "lancedb": "retrieval",
    "metaworld": "control",
    "monai": "mri",
    "mujoco": "control",
    "nibabel": "mri",
    "nilearn": "mri",
    "pydicom": "mri",
    "ray": "ray",
    "soundfile": "audio",
}
"""Optional library -> the extra of this package that installs it."""


def load(path: str) -> Any:
    """The object at `package.module:name`, or the module at `package.module`."""
    module, _, name = path.partition(":")
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
            importlib.invalidate_caches()
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def optional(module: str) -> Any:
    """A library that an extra brings; RecipeError names the extra where it is absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise RecipeError(
            f"{missing} is not installed: pip install 'sensorium[{EXTRAS[missing]}]'"
        ) from error


@functools.cache
def _plugins() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for entry in entry_points(group="sensorium.plugins"):
        kind, dot, name = entry.name.partition(".")
        if not dot:
            raise RecipeError(
                f"plug-in {entry.name!r} ({entry.value}): its name is <kind>.<name>, "
                "for example connector.qformer"
            )
        known = found.setdefault(kind, {})
        if known.get(name, entry.value) != entry.value:
            raise RecipeError(
                f"two plug-ins offer {kind} {name!r}: {known[name]} and {entry.value}; "
                "uninstall one, or name the class in full"
            )
        known[name] = entry.value
    return found


def kind_of(part: type) -> str | None:
    """The kind of part that a class is, or that its subclasses are: `backbone`, `encoder`, ..."""
    kinds = ("backbone", "connector", "encoder", "decoder")  # a backbone is a decoder too
    return next((kind for kind in kinds if issubclass(part, load(BASES[kind]))), None)


def entries(kind: str) -> dict[str, str]:
    """The names of a kind: `connector`, `task`, `source`, `image_encoder`, `modality`, ...

    `encoder` and `decoder` have those of every modality, `image/timm`.
    """
    modality, _, room = kind.rpartition("_")
    if kind == "source":
        names = dict(load("sensorium.engine.sources:SOURCES"))
        for path in entries("modality").values():
            names |= getattr(load(path), "SOURCES", {})
    elif kind in ROOMS:
        names = dict(load(ROOMS[kind]))
    elif not modality:
        names = {
            f"{modality}/{name}": path
            for modality in entries("modality")
            for name, path in entries(f"{modality}_{kind}").items()
        }
        names |= entries("backbone") if kind == "decoder" else {}
    else:
        names = dict(getattr(load(entries("modality")[modality]), f"{room.upper()}S", {}))
    for name, path in _plugins().get(kind, {}).items():
        if names.get(name, path) != path:
            raise RecipeError(
                f"plug-in {path} takes the name of the {kind} {name!r} ({names[name]}); "
                "uninstall it, or name the class in full"
            )
        names[name] = path
    return names


def find(kind: str, name: str, where: str) -> Any:
    """The class that a recipe's `type` names; `where` is the place for the message."""
    room = kind.rpartition("_")[2]
    known = entries(room if "/" in name and room in ("encoder", "decoder") else kind)
    path = known.get(name, name)
    module, colon, attribute = path.partition(":")
    if name not in known and not (module and colon and attribute):
        before, dot, last = name.rpartition(".")
        own = f"{before}:{last}" if dot and ":" not in name else "package.module:Class"
        raise RecipeError(
            f"{where}: no {kind.replace('_', ' ')} is called {name!r}"
            f"{did_you_mean(name, known)} (your own: {own})"
        )
    try:
        found = load(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(missing)
        cure = (
            f"install it with: pip install 'sensorium[{extra}]'"
            if extra
            else f"there is no module {error.name!r} here or in the current folder"
        )
        raise RecipeError(f"{where}: {path} cannot be imported: {cure}") from error
    if not hasattr(found, attribute):
        inside = [name for name, value in vars(found).items() if isinstance(value, type)]
        raise RecipeError(
            f"{where}: the module {module} has no class {attribute!r}"
            f"{did_you_mean(attribute, inside)}"
        )
    return _of_kind(getattr(found, attribute), kind, path, where)


def _of_kind(found: Any, kind: str, path: str, where: str) -> Any:
    """Refuse a class of another room; sources and augments may be functions."""
    path_of_base = BASES.get(kind, BASES.get(kind.rpartition("_")[2]))
    base = load(path_of_base) if path_of_base else None
    if base is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise RecipeError(
            f"{where}: {path} is no {kind.replace('_', ' ')}; expected a class that inherits "
            f"from {base.__module__}:{base.__name__}"
        )
    return found
