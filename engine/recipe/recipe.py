"""A recipe: one YAML file as typed sections that can be written back.

The engine's sections are models that refuse unknown keys. A part's section holds the engine's keys
and, beside them, the options of the class that its `type` names; these are validated against that
class's constructor (`engine/recipe/validation/signature_schema.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from annotated_types import Ge
from pydantic import model_validator

from ...modalities.messages import did_you_mean, shorten
from ..utils import ConfigError, write_module_folders, write_text
from . import yaml_io
from .component_path import BACKBONE
from .env import Env
from .train_config import CallbackSection, DataSection, Positive, StageSection, Train
from .validation import Strict, TypedSection, validate
from .yaml_io import merge_sections as merge_sections


class FreezeAllButLast(Strict):
    """`freeze: {last: n}`: only the last n blocks train."""

    last: Annotated[int, Ge(0)]


class TransformSection(TypedSection):
    """A transform of a part's modules and weights: its type, and its options beside it."""


class Section(TypedSection):
    """A part: the engine's keys, and the part's options beside them. transforms: applied in order,
    once, after its weights are loaded."""

    weights: str | None = None
    transforms: list[TransformSection] | None = None
    freeze: bool | FreezeAllButLast = False
    lora: dict[str, Any] | None = None
    train_only: str | dict[str, Any] | None = None
    quantize: Literal["int8", "int4"] | None = None
    lr: Positive | None = None

    def with_options(self, options: Mapping[str, Any]) -> Self:
        engine_keys = {name: getattr(self, name) for name in type(self).model_fields}
        return cast(Self, type(self).model_construct(**engine_keys, **options))


class PartSection(Section):
    """The encoder or connector of a stream; `{share: query}` is that of another stream."""

    SHARED: ClassVar[str] = "shared"
    share: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, value: Any) -> Any:
        shares = isinstance(value, Mapping) and value.get("share") is not None
        return {"type": cls.SHARED, **value} if shares else value


class StreamSection(Strict):
    """A named input: its modality, its encoder and its connector. prompt: a text that is put before
    every text of the stream."""

    modality: str
    encoder: PartSection
    connector: PartSection | None = None
    augment: dict[str, Any] | None = None
    prompt: str | None = None


class TaskSection(Section):
    """A task: its class's options, its heads' sections, and its data by split."""

    data: dict[str, DataSection] = {}


class Cache(Strict):
    """What is stored between epochs and runs. precision: of stored features."""

    samples: bool = False
    features: bool = True
    precision: Literal["as_computed", "float16", "bfloat16"] = "as_computed"


class Recipe(Strict):
    """Streams, decoders, tasks, training and the simulator.

    `backbone` is the decoder of that name; `decoders` are the others.
    """

    inputs: dict[str, StreamSection] = {}
    backbone: Section | None = None
    decoders: dict[str, Section] = {}
    tasks: dict[str, TaskSection]
    train: Train = Train()
    cache: Cache = Cache()
    env: Env | None = None
    callbacks: list[CallbackSection] = []
    stages: list[StageSection] = []

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as YAML values: `Recipe.model_validate` parses it."""
        return to_plain_dict(self)

    def write(self, path: Path, head: str = "") -> None:
        """Write the recipe as YAML, and beside it where modules of a user were found. head: the
        first line, a comment."""
        write_module_folders(path.parent)
        write_text(path, head + yaml_io.write(self.to_dict()))


def to_plain_dict(section: Strict) -> dict[str, Any]:
    """Return a section as YAML values, without null defaults."""
    values = {
        field.alias or name: _to_plain(value)
        for name, field in type(section).model_fields.items()
        if (value := getattr(section, name)) is not None or field.default is not None
    }
    if isinstance(section, PartSection) and section.share is not None:
        values = {"share": section.share}  # no other key of the engine may be set beside it
    return values | {key: _to_plain(value) for key, value in (section.model_extra or {}).items()}


def _to_plain(value: Any) -> Any:
    if isinstance(value, Strict):
        return to_plain_dict(value)
    if isinstance(value, Mapping):
        return {key: _to_plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(v) for v in value]
    return value


def to_section(value: Any, where: str, label: str) -> Section:
    """Return a part's section, of which the name alone is short for `{type: name}`."""
    return validate(Section, value if isinstance(value, dict) else {"type": value}, where, label)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe's file, apply `a.b.c=value` overrides, and validate its form.

    Raise ConfigError, one line a mistake: the place, the value found, the value expected.
    """
    values = yaml_io.read_extended(find_file(path))
    return parse_recipe(yaml_io.apply_overrides(values, overrides))


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Parse a dict, as returned by `Recipe.to_dict`."""
    if "inputs" in values:
        values = {**values, "inputs": _expand_streams(values["inputs"])}
    recipe = validate(Recipe, values, "", "a recipe")
    if BACKBONE in recipe.decoders:
        if recipe.backbone is not None:
            raise ConfigError(
                f"decoders.{BACKBONE}: {BACKBONE} is short for it, and is there too; take one out"
            )
        recipe.backbone = recipe.decoders.pop(BACKBONE)
    for section in ("inputs", "decoders", "tasks"):
        for name in getattr(recipe, section):
            if not name.isidentifier():
                like = re.sub(r"\W+|^\d+", "_", name)
                raise ConfigError(
                    f"{section}.{name}: a name is letters, digits and underscores, and begins with "
                    f"no digit; for example {like}"
                )
    return recipe


def _expand_streams(inputs: Any) -> Any:
    """Expand `passage: {share: query}` to sections that share the encoder, and the connector if
    there is one; the modality is that of `query` unless the section names another."""
    if not isinstance(inputs, Mapping):
        return inputs
    return {name: _expanded(name, section, inputs) for name, section in inputs.items()}


def _expanded(name: str, section: Any, inputs: Mapping[str, Any]) -> Any:
    if not isinstance(section, Mapping) or "share" not in section:
        return section
    where, source = f"inputs.{name}", section["share"]
    for key in ("encoder", "connector"):
        if key in section:
            raise ConfigError(
                f"{where}.{key}: cannot be combined with share: {source}, which is short for "
                f"encoder and connector; set {{share: {source}}} in the one that is shared, and "
                "take share out"
            )
    others = [other for other in inputs if other != name]
    if source not in others or not isinstance(inputs[source], Mapping):
        raise ConfigError(
            f"{where}.share: found {source!r}, expected another stream (the layers of a decoder "
            f"are shared by encoder: {{share: ...}}){did_you_mean(str(source), others)}"
        )
    shared = inputs[source]
    if "share" in shared:
        raise ConfigError(
            f"{where}.share: {source} is shared itself; set share: {shared['share']}"
            if shared["share"] != name
            else f"{where}.share: {name} and {source} share each other; give one of them an encoder"
        )
    keys = {key: value for key, value in section.items() if key != "share"}
    if shared.get("prompt") and "prompt" not in keys:
        raise ConfigError(
            f"{where}.prompt: lacks; {source} has {shared['prompt']!r}, which is not shared; set "
            'the prompt of this stream, or prompt: ""'
        )
    if "modality" in shared:
        keys.setdefault("modality", shared["modality"])
    parts = [key for key in ("encoder", "connector") if shared.get(key) is not None]
    return {**keys, **{key: {"share": source} for key in parts}}


def parse_transforms(text: str, where: str) -> list[TransformSection]:
    """Return the transforms of a YAML list, or of a file that holds one."""
    try:
        path = Path(text)
        values = yaml_io.parse_file(path) if path.is_file() else yaml_io.parse(text, where)
    except OSError:  # a list is no name of a file
        values = yaml_io.parse(text, where)
    if not isinstance(values, list) or not values:
        raise ConfigError(
            f"{where}: found {shorten(repr(values), 60)}, expected a list such as "
            "[{type: keep_layers, every: 2}]"
        )
    return [
        validate(TransformSection, {"type": v} if isinstance(v, str) else v, f"{where}[{i}]", "it")
        if isinstance(v, (str, Mapping))
        else _no_transform(v, f"{where}[{i}]")
        for i, v in enumerate(values)
    ]


def _no_transform(value: Any, where: str) -> Any:
    raise ConfigError(f"{where}: found {shorten(repr(value), 60)}, expected {{type: ..., ...}}")


def find_file(path: str | Path) -> Path:
    """Return a recipe's file: at the path, or among the recipes that come with the package."""
    path = Path(path)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    shipped = Path(__file__).parents[2] / path
    if not path.exists() and path.parts[:1] == ("configs",) and shipped.is_file():
        return shipped
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such recipe (`sensorium list recipes` names some)")
    return path
