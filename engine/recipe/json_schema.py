"""The JSON schema of recipes: the engine's sections, and every known part's options."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ...backbones.encoder import BackboneEncoder
from ...modalities.modality import Modality
from ..utils import ConfigError
from .recipe import Recipe, Section, TaskSection
from .registry import find, kind_of, registered
from .train_config import (
    OPTIMIZER_ARGUMENTS,
    SCHEDULE_ARGUMENTS,
    CallbackSection,
    DataSection,
    OptimizerSection,
    ScheduleSection,
)
from .validation import Strict, TypedSection, library_model, options_model, part_arguments

Schema = dict[str, Any]


def schema(recipe: Recipe | None = None) -> Schema:
    """Schema of a recipe's file. With a recipe, parts outside the catalogues are in it too.

    A part's section is described by its `type`: `{if: {type: mlp}, then: its options}`. A
    section may also be the name alone.
    """
    found = Recipe.model_json_schema(by_alias=True)
    known = found["$defs"]
    own = _own(recipe) if recipe else {}
    names = sorted({*registered("modality"), *own.get("modality", ())})
    modalities = {name: find("modality", name, "modality") for name in names}
    for name in ("Section", "PartSection", "DataSection", "TaskSection"):
        known[name]["type"] = ["object", "string"]
    for kind in PARTS:
        part = {"$ref": "#/$defs/Section"}
        known[kind] = {"allOf": [part, *_rules(kind, own.get(kind, ()), Section, known)]}
    stream = known["StreamSection"]
    for place, kind in ((stream, "connector"), (found, "backbone")):
        place["properties"][kind] = {"anyOf": [{"$ref": f"#/$defs/{kind}"}, {"type": "null"}]}
    _add_shares(found["properties"]["inputs"], stream["properties"], known)
    found["properties"]["decoders"]["additionalProperties"] = {"$ref": "#/$defs/decoder"}
    known["TaskSection"]["allOf"] = _rules("task", own.get("task", ()), TaskSection, known)
    sources = _rules("source", own.get("source", ()), DataSection, known, "source")
    known["DataSection"]["allOf"] = sources
    for section, kind, passed in (
        (CallbackSection, "callback", ()),
        (OptimizerSection, "optimizer", OPTIMIZER_ARGUMENTS),
        (ScheduleSection, "schedule", SCHEDULE_ARGUMENTS),
    ):
        described = known[section.__name__]
        described["type"] = ["object", "string"]
        described["allOf"] = _library_rules(kind, section, passed, known)
    sampler = known["SamplerSection"]
    known["SamplerSection"] = {"anyOf": [sampler, {"enum": sampler["properties"]["type"]["enum"]}]}
    stream["allOf"] = [_modality(name, modalities[name], own, known) for name in modalities]
    found["properties"]["extends"] = {"type": "string"}
    del found["$defs"]
    return {
        "type": "object",
        "properties": {name: {} for name in found["properties"]},
        "if": {"required": ["extends"]},
        "then": _partial(found),
        "else": found,
        "$defs": known | {f"{PARTIAL}{name}": _partial(value) for name, value in known.items()},
    }


def _add_shares(inputs: Schema, stream: Schema, known: Schema) -> None:
    """Let an encoder, a connector or a whole stream be `{share: query}`."""

    def shared(options: Schema) -> Schema:
        properties = {"share": {"type": "string"}, **options}
        required = {"required": ["share"], "additionalProperties": False}
        return {"type": "object", "properties": properties, **required}

    options = options_model(BackboneEncoder).model_json_schema()["properties"]
    known["shared_connector"] = shared({})
    known["shared_encoder"] = shared({k: v for k, v in options.items() if k != "backbone"})
    known["shared_stream"] = shared({key: stream[key] for key in ("modality", "augment")})
    stream["encoder"] = _any_of(stream["encoder"], "shared_encoder")
    stream["connector"]["anyOf"].append({"$ref": "#/$defs/shared_connector"})
    inputs["additionalProperties"] = _any_of(inputs["additionalProperties"], "shared_stream")


def _any_of(rule: Schema, name: str) -> Schema:
    return {"anyOf": [rule, {"$ref": f"#/$defs/{name}"}]}


PARTIAL = "partial_"
PARTS = ("head", "connector", "backbone", "decoder")
"""The kinds whose sections are the same wherever they stand."""


def _partial(rule: Any) -> Any:
    """The same where a recipe extends another: nothing has to be said again."""
    if isinstance(rule, list):
        return [_partial(each) for each in rule]
    if not isinstance(rule, dict):
        return rule
    found = {}
    for key, value in rule.items():
        if key == "properties":
            found[key] = {name: _partial(each) for name, each in value.items()}
        elif key == "$ref":
            found[key] = value.replace("#/$defs/", f"#/$defs/{PARTIAL}")
        elif key != "required":
            found[key] = value if key in ("if", "default", "enum", "const") else _partial(value)
    return found


def _modality(name: str, modality: Modality, own: dict[str, set[str]], known: Schema) -> Schema:
    """The encoders and variations of one kind of signal."""
    kind = f"{name}_encoder"
    then: Schema = {"encoder": {"allOf": _rules(kind, own.get(kind, ()), Section, known)}}
    default = next(iter(modality.augments), None)
    if default is not None:
        part = find(f"{name}_augment", default, name)
        then["augment"] = {
            "if": {"required": ["type"]},
            "else": _options(part, ("type",), known),
        }
    return {"if": {"properties": {"modality": {"const": name}}}, "then": {"properties": then}}


def _own(recipe: Recipe) -> dict[str, set[str]]:
    """The types that a recipe names, by kind: some are `package.module:Class`."""
    found: dict[str, set[str]] = {}
    for stream in recipe.inputs.values():
        found.setdefault("modality", set()).add(stream.modality)
        found.setdefault(f"{stream.modality}_encoder", set()).add(stream.encoder.type)
        if stream.connector:
            found.setdefault("connector", set()).add(stream.connector.type)
    if recipe.backbone:
        found["backbone"] = {recipe.backbone.type}
    found["decoder"] = {section.type for section in recipe.decoders.values()}
    for task in recipe.tasks.values():
        found.setdefault("task", set()).add(task.type)
        found.setdefault("source", set()).update(split.source for split in task.data.values())
    return found


def _rules(
    kind: str, own: Iterable[str], section: type[Strict], known: Schema, key: str = "type"
) -> list[Schema]:
    """For every name of a kind: where `key` is that name, these are the options."""
    rules = []
    engine = [field.alias or name for name, field in section.model_fields.items()]
    for name in sorted({*registered(kind), *own}):
        try:
            part = find(kind, name, kind)
        except ConfigError:
            continue  # a library that is not installed: its options are not known here
        where = {"properties": {key: {"const": name}}, "required": [key]}
        rules.append({"if": where, "then": _options(part, engine, known)})
    return rules


def _library_rules(
    kind: str, section: type[TypedSection], passed: Collection[str], known: Schema
) -> list[Schema]:
    """`_rules` for a kind whose entries are another library's. passed: the engine's arguments."""
    rules = []
    for name, path in sorted(registered(kind).items()):
        described = library_model(find(kind, path, kind), frozenset(passed)).model_json_schema()
        known.update(described.get("$defs", {}))
        options = described.get("properties", {})
        rule = {
            "properties": options,
            "required": described.get("required", []),
            "propertyNames": {"enum": [*section.model_fields, *options]},
        }
        default = section.model_fields["type"].default == name
        where = {"properties": {"type": {"const": name}}}
        rules.append({"if": where if default else where | {"required": ["type"]}, "then": rule})
    return rules


def _options(part: Any, engine: Iterable[str], known: Schema) -> Schema:
    """The options of a class, its heads and inner parts among them, beside the engine's keys."""
    described = options_model(part).model_json_schema()
    known.update(described.get("$defs", {}))
    heads = {head: {"$ref": "#/$defs/head"} for head in getattr(part, "head_types", ())}
    options = described.get("properties", {}) | heads
    for name, argument in part_arguments(part).items():
        kind = kind_of(argument.base)
        section = {"$ref": f"#/$defs/{kind if kind in PARTS else 'Section'}"}
        options[name] = section if argument.required else {"anyOf": [section, {"type": "null"}]}
    return {
        "properties": options,
        "required": described.get("required", []),
        "propertyNames": {"enum": [*engine, *options]},
    }
