"""The JSON schema of recipes: the engine's sections, and the options of every known part."""

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
    """Return the schema of a recipe's file. With a recipe, parts outside the registries are
    included.

    A part's section is described by its `type`: `{if: {type: mlp}, then: its options}`. A section
    may also be the name alone.
    """
    result = Recipe.model_json_schema(by_alias=True)
    definitions = result["$defs"]
    own_types = _own_types(recipe) if recipe else {}
    names = sorted({*registered("modality"), *own_types.get("modality", ())})
    modalities = {name: find("modality", name, "modality") for name in names}
    for name in ("Section", "PartSection", "DataSection", "TaskSection"):
        definitions[name]["type"] = ["object", "string"]
    for kind in PARTS:
        part = {"$ref": "#/$defs/Section"}
        definitions[kind] = {
            "allOf": [part, *_rules(kind, own_types.get(kind, ()), Section, definitions)]
        }
    stream = definitions["StreamSection"]
    for owner, kind in ((stream, "connector"), (result, "backbone")):
        owner["properties"][kind] = {"anyOf": [{"$ref": f"#/$defs/{kind}"}, {"type": "null"}]}
    _add_shares(result["properties"]["inputs"], stream["properties"], definitions)
    result["properties"]["decoders"]["additionalProperties"] = {"$ref": "#/$defs/decoder"}
    definitions["TaskSection"]["allOf"] = _rules(
        "task", own_types.get("task", ()), TaskSection, definitions
    )
    sources = _rules("source", own_types.get("source", ()), DataSection, definitions, "source")
    definitions["DataSection"]["allOf"] = sources
    _add_library_rules(definitions)
    stream["allOf"] = [
        _modality(name, modalities[name], own_types, definitions) for name in modalities
    ]
    result["properties"]["extends"] = {"type": "string"}
    del result["$defs"]
    return {
        "type": "object",
        "properties": {name: {} for name in result["properties"]},
        "if": {"required": ["extends"]},
        "then": _partial(result),
        "else": result,
        "$defs": definitions
        | {f"{PARTIAL}{name}": _partial(value) for name, value in definitions.items()},
    }


def _add_library_rules(definitions: Schema) -> None:
    """Describe the sections whose types libraries bring: callbacks, optimizers, schedules, and
    samplers, which may be the name alone."""
    for section, kind, passed in (
        (CallbackSection, "callback", ()),
        (OptimizerSection, "optimizer", OPTIMIZER_ARGUMENTS),
        (ScheduleSection, "schedule", SCHEDULE_ARGUMENTS),
    ):
        described = definitions[section.__name__]
        described["type"] = ["object", "string"]
        described["allOf"] = _library_rules(kind, section, passed, definitions)
    sampler = definitions["SamplerSection"]
    definitions["SamplerSection"] = {
        "anyOf": [sampler, {"enum": sampler["properties"]["type"]["enum"]}]
    }


def _add_shares(inputs: Schema, stream: Schema, definitions: Schema) -> None:
    """Let an encoder, a connector or a whole stream be `{share: query}`."""

    def shared(options: Schema) -> Schema:
        properties = {"share": {"type": "string"}, **options}
        required = {"required": ["share"], "additionalProperties": False}
        return {"type": "object", "properties": properties, **required}

    options = options_model(BackboneEncoder).model_json_schema()["properties"]
    definitions["shared_connector"] = shared({})
    definitions["shared_encoder"] = shared({k: v for k, v in options.items() if k != "backbone"})
    definitions["shared_stream"] = shared(
        {key: stream[key] for key in ("modality", "augment", "prompt")}
    )
    stream["encoder"] = _any_of(stream["encoder"], "shared_encoder")
    stream["connector"]["anyOf"].append({"$ref": "#/$defs/shared_connector"})
    inputs["additionalProperties"] = _any_of(inputs["additionalProperties"], "shared_stream")


def _any_of(rule: Schema, name: str) -> Schema:
    return {"anyOf": [rule, {"$ref": f"#/$defs/{name}"}]}


PARTIAL = "partial_"
PARTS = ("head", "connector", "backbone", "decoder")
"""The kinds whose sections are the same everywhere."""


def _partial(rule: Any) -> Any:
    """Return the schema without required keys, for a recipe that extends another."""
    if isinstance(rule, list):
        return [_partial(each) for each in rule]
    if not isinstance(rule, dict):
        return rule
    optional = {}
    for key, value in rule.items():
        if key == "properties":
            optional[key] = {name: _partial(each) for name, each in value.items()}
        elif key == "$ref":
            optional[key] = value.replace("#/$defs/", f"#/$defs/{PARTIAL}")
        elif key != "required":
            optional[key] = value if key in ("if", "default", "enum", "const") else _partial(value)
    return optional


def _modality(
    name: str, modality: Modality, own_types: dict[str, set[str]], definitions: Schema
) -> Schema:
    """Return the schema of one modality's encoders and augmentations."""
    kind = f"{name}_encoder"
    then: Schema = {
        "encoder": {"allOf": _rules(kind, own_types.get(kind, ()), Section, definitions)}
    }
    default = next(iter(modality.augments), None)
    if default is not None:
        part = find(f"{name}_augment", default, name)
        then["augment"] = {
            "if": {"required": ["type"]},
            "else": _options(part, ("type",), definitions),
        }
    return {"if": {"properties": {"modality": {"const": name}}}, "then": {"properties": then}}


def _own_types(recipe: Recipe) -> dict[str, set[str]]:
    """Return the types that a recipe names, by kind; some are `package.module:Class`."""
    types: dict[str, set[str]] = {}
    for stream in recipe.inputs.values():
        types.setdefault("modality", set()).add(stream.modality)
        types.setdefault(f"{stream.modality}_encoder", set()).add(stream.encoder.type)
        if stream.connector:
            types.setdefault("connector", set()).add(stream.connector.type)
    if recipe.backbone:
        types["backbone"] = {recipe.backbone.type}
    types["decoder"] = {section.type for section in recipe.decoders.values()}
    for task in recipe.tasks.values():
        types.setdefault("task", set()).add(task.type)
        types.setdefault("source", set()).update(split.source for split in task.data.values())
    return types


def _rules(
    kind: str,
    own_types: Iterable[str],
    section: type[Strict],
    definitions: Schema,
    key: str = "type",
) -> list[Schema]:
    """Return, for every name of a kind, its options if `key` is that name."""
    rules = []
    engine = [field.alias or name for name, field in section.model_fields.items()]
    for name in sorted({*registered(kind), *own_types}):
        try:
            part = find(kind, name, kind)
        except ConfigError:
            continue  # a library that is not installed: its options are unknown
        where = {"properties": {key: {"const": name}}, "required": [key]}
        rules.append({"if": where, "then": _options(part, engine, definitions)})
    return rules


def _library_rules(
    kind: str, section: type[TypedSection], passed: Collection[str], definitions: Schema
) -> list[Schema]:
    """`_rules` for a kind whose entries are another library's. passed: arguments that the engine
    passes."""
    rules = []
    for name, path in sorted(registered(kind).items()):
        described = library_model(find(kind, path, kind), frozenset(passed)).model_json_schema()
        definitions.update(described.get("$defs", {}))
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


def _options(part: Any, engine: Iterable[str], definitions: Schema) -> Schema:
    """Return the options of a class, with its heads and inner parts, beside the engine's keys."""
    described = options_model(part).model_json_schema()
    definitions.update(described.get("$defs", {}))
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
