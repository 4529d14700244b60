"""Registry of the parts that a recipe names: short names, plug-ins and `package.module:Name`.

Short names are literal mappings of lazy strings in the package that holds the parts, or fields
of a `Modality`; nothing is imported before it is used. Installed packages add names through the
entry-point group `sensorium.plugins`, an entry named `<kind>.<name>`: `connector.qformer`,
`modality.eeg`, or `image_encoder.mine` for a part of one modality.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ...modalities.messages import describe_error, did_you_mean, plural, shorten
from ..utils import ConfigError, make_importable
from .validation import RENAMED


@dataclass(frozen=True)
class Kind:
    """One kind of part.

    names: the mapping of the package's own short names, as a lazy string. field: the field of
    `Modality` that holds names of this kind. scoped: the names belong to one modality: the kind
    `image_encoder` has those of images, `encoder` those of all, as `image/timm`. base: the class
    that all inherit from, as a lazy string; None if functions are parts too. instances: the
    parts are objects of that class.
    """

    names: str | None = None
    base: str | None = None
    field: str | None = None
    scoped: bool = False
    instances: bool = False


KINDS = {
    "backbone": Kind("sensorium.backbones:BACKBONES", "sensorium.backbones.base:Backbone"),
    "connector": Kind("sensorium.connectors:CONNECTORS", "sensorium.connectors.base:Connector"),
    "head": Kind("sensorium.connectors:HEADS", "sensorium.connectors.base:Connector"),
    "modality": Kind(
        "sensorium.modalities:MODALITIES", "sensorium.modalities.modality:Modality", instances=True
    ),
    "optimizer": Kind("sensorium.engine.training.catalogue:OPTIMIZERS", "torch.optim:Optimizer"),
    "callback": Kind(
        "sensorium.engine.training.catalogue:CALLBACKS",
        "sensorium.engine.training.callbacks:Callback",
    ),
    "schedule": Kind("sensorium.engine.training.catalogue:SCHEDULES"),
    "selector": Kind("sensorium.engine.model.parameters.catalogue:SELECTORS"),
    "analysis": Kind("sensorium.engine.evaluation.analyses.catalogue:ANALYSES"),
    "transform": Kind("sensorium.engine.model.transforms.catalogue:TRANSFORMS"),
    "task": Kind("sensorium.tasks:TASKS", "sensorium.tasks.base:Task"),
    "pretext": Kind("sensorium.tasks.language.masked.pretext:PRETEXTS"),
    "term": Kind("sensorium.tasks.language.terms:TERMS"),
    "source": Kind("sensorium.engine.data:SOURCES", field="sources"),
    "env": Kind(field="envs"),
    "encoder": Kind(base="sensorium.modalities.base:Encoder", field="encoders", scoped=True),
    "decoder": Kind(
        "sensorium.backbones:BACKBONES", "sensorium.modalities.base:Decoder", "decoders", True
    ),
    "augment": Kind(field="augments", scoped=True),
    "text_tokenizer": Kind(
        base="sensorium.modalities.base:Tokenizer", field="tokenizers", scoped=True
    ),
    "action_tokenizer": Kind(
        base="sensorium.modalities.action.tokenizers.base:ActionTokenizer",
        field="tokenizers",
        scoped=True,
    ),
    "tokenizer": Kind(base="sensorium.modalities.base:Fittable", field="tokenizers", scoped=True),
}
"""The kinds of parts; a new kind is one line. A kind of one modality (`text_tokenizer`) may have
its own line, if its parts inherit from their own class."""

_LIBRARIES = {
    "audio": ("jiwer", "soundfile"),
    "control": ("gymnasium", "imageio", "metaworld", "mujoco"),
    "generate": ("diffusers",),
    "milvus": ("milvus_lite", "pymilvus"),
    "mri": ("einops", "isal", "monai", "nibabel", "nilearn", "pydicom"),
    "objects": ("s3fs",),
    "quantize": ("torchao",),
    "ray": ("ray",),
    "retrieval": ("faiss", "lancedb"),
    "series": ("pyedflib", "statsmodels", "wfdb"),
    "slurm": ("submitit",),
    "talker": ("espeakng_loader",),
    "video": ("av",),
}
EXTRAS = {library: extra for extra, libraries in _LIBRARIES.items() for library in libraries}
"""Optional library -> the extra of this package that installs it."""


def load(path: str) -> Any:
    """Import `package.module:name` and return the object, or the module without a name.

    A module that is not installed is looked for beside the recipe, then in the current folder.
    """
    module, _, name = path.partition(":")
    make_importable(module.partition(".")[0])
    imported = importlib.import_module(module)
    return getattr(imported, name) if name else imported


def import_optional(module: str) -> Any:
    """Import a library of an extra. Raise ConfigError, which names the extra, if it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise ConfigError(
            f"{missing} is not installed: pip install 'sensorium[{EXTRAS[missing]}]'"
        ) from error


def registered(kind: str, *, import_plugins: bool = True) -> dict[str, str]:
    """Return the short names of a kind with their lazy strings.

    import_plugins: False leaves out what only installed modalities hold, which would have to
    be imported. Raise ConfigError if two parts have one name, or a plug-in is broken.
    """
    names: dict[str, str] = {}
    for mapping in _mappings(kind, import_plugins):
        for name, path in mapping.items():
            if names.get(name, path) != path:
                raise ConfigError(
                    f"plug-in {path} takes the name of the {kind} {name!r} ({names[name]}); "
                    "uninstall it, or name the class in full"
                )
            names[name] = path
    return names


def kind_of(part: type) -> str | None:
    """Return the kind of part that a class is: `backbone`, `encoder`, ...; None if it is none."""
    bases = {kind: spec.base for kind, spec in KINDS.items() if spec.base and not spec.instances}
    return next((kind for kind, base in bases.items() if issubclass(part, load(base))), None)


def find(kind: str, name: str, where: str) -> Any:
    """Return the part of a kind by its short name or `package.module:Name`.

    where: the place in the recipe, for the message. Raise ConfigError, one line, if there is
    no such part, it cannot be imported, or it is of another kind.
    """
    spec, modality = _spec(kind)
    within = kind.removeprefix(f"{modality}_") if "/" in name and ":" not in name else kind
    names = registered(within, import_plugins=False)
    if name not in names and not _LAZY.fullmatch(name):
        names = registered(within)
        if name not in names:
            raise ConfigError(_unknown(kind, name, names, where))
    path = names.get(name, name)
    label = f"{where}: {_label(within, name, path)}"
    part = _import(path, label)
    if spec.base is not None and not _is_of_kind(part, spec):
        expected = "an object of" if spec.instances else "a class that inherits from"
        raise ConfigError(f"{label} is no {_describe(kind)}; expected {expected} {spec.base}")
    if kind == "modality" and name not in names:
        _NAMED[name] = path
    return part


def _is_of_kind(part: object, spec: Kind) -> bool:
    base = load(spec.base or "builtins:object")
    if spec.instances:
        return isinstance(part, base)
    return isinstance(part, type) and issubclass(part, base)


_LAZY = re.compile(r"[A-Za-z_][\w.]*(?<!\.py):[A-Za-z_]\w*")

_NAMED: dict[str, str] = {}
"""Modalities that recipes named by `module:NAME`; their data sets have short names as well."""


def _spec(kind: str) -> tuple[Kind, str]:
    """Return the table's line of a kind, and the modality of `<modality>_<kind>`."""
    modality, _, name = kind.rpartition("_")
    spec = KINDS.get(kind)
    if spec is None:
        spec = KINDS.get(name)
        if spec is None or not spec.scoped:
            raise ConfigError(f"there is no kind of part {kind!r}{did_you_mean(kind, KINDS)}")
    return spec, modality if spec.scoped else ""


def _mappings(kind: str, import_plugins: bool) -> Iterator[Mapping[str, str]]:
    """Yield the mappings that hold names of a kind, the package's own first."""
    spec, modality = _spec(kind)
    if spec.names is not None and not modality:
        yield load(spec.names)
    yield _plugins().get(kind, {})
    if spec.field is None:
        return
    package_modalities = load(KINDS["modality"].names or "")
    modalities = [
        *package_modalities,
        *_NAMED,
        *(_plugins().get("modality", {}) if import_plugins else ()),
    ]
    for name in [modality] if modality else modalities:
        if spec.scoped and not modality:
            inner = registered(f"{name}_{kind}")
            yield {f"{name}/{short}": path for short, path in inner.items()}
        else:
            yield getattr(find("modality", name, f"modality {name}"), spec.field)


@functools.cache
def _plugins() -> dict[str, dict[str, str]]:
    """Return the names that installed packages add, by kind."""
    names_of: dict[str, dict[str, str]] = {}
    for entry in entry_points(group="sensorium.plugins"):
        kind, dot, name = entry.name.partition(".")
        label = f"plug-in {entry.name} ({entry.value})"
        if not dot:
            raise ConfigError(f"{label}: its name is <kind>.<name>, for example connector.qformer")
        try:
            _spec(kind)
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from None
        if not _LAZY.fullmatch(entry.value):
            raise ConfigError(f"{label}: expected package.module:name")
        paths = names_of.setdefault(kind, {})
        if paths.get(name, entry.value) != entry.value:
            raise ConfigError(
                f"two plug-ins offer {kind} {name!r}: {paths[name]} and {entry.value}; "
                "uninstall one, or name the class in full"
            )
        paths[name] = entry.value
    return names_of


def _describe(kind: str) -> str:
    return " ".join(filter(None, kind.rpartition("_")[::2]))


def _label(kind: str, name: str, path: str) -> str:
    """Return how a message calls a part: a plug-in by its own name too."""
    return f"plug-in {kind}.{name} ({path})" if name in _plugins().get(kind, {}) else path


def _unknown(kind: str, name: str, names: Mapping[str, str], where: str) -> str:
    path, colon, attribute = name.partition(":")
    if path.endswith(".py") or ("/" in path and colon):
        module = Path(path).stem
        return (
            f"{where}: found {shorten(name, 100)!r}, expected a module, not a file: "
            f"{module}:{attribute or 'Class'}; {module}.py is looked for beside the recipe and in "
            "the current folder"
        )
    before, dot, last = name.rpartition(".")
    full = f"{before}:{last}" if dot and not colon else "package.module:Class"
    now = RENAMED.get(f"{kind}={name}")
    near = f"; it is called {now} now" if now else did_you_mean(name, names, limit=5)
    called = f"no {_describe(kind)} is called {shorten(name, 60)!r}"
    all_of = f"`sensorium list {plural(kind.rpartition('_')[2])}`"
    return f"{where}: {called}{near} (all: {all_of}; your own: {full})"


def _import(path: str, label: str) -> Any:
    """Import the object of a lazy string. Raise ConfigError, one line, if that fails."""
    module, _, attribute = path.partition(":")
    try:
        imported = load(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(missing)
        cure = (
            f"install it with: pip install 'sensorium[{extra}]'"
            if extra
            else f"there is no module {error.name!r} here, beside the recipe or in the current "
            "folder; put its file there, or add its folder to PYTHONPATH"
        )
        raise ConfigError(f"{label} cannot be imported: {cure}") from error
    except (Exception, SystemExit) as error:  # any error of the file when it runs
        raise ConfigError(f"{label} cannot be imported: {describe_error(error)}") from error
    if not hasattr(imported, attribute):
        names = [name for name in vars(imported) if not name.startswith("_")]
        raise ConfigError(
            f"{label}: the module has no {attribute!r}{did_you_mean(attribute, names)}"
        )
    return getattr(imported, attribute)
