"""The JSON schema of recipes: the engine's sections, and every known part's options."""

from __future__ import annotations

from typing import Any

from .catalogue import entries, find
from .config import Recipe
from .errors import RecipeError
from .schema import options_model


def schema(recipe: Recipe | None = None) -> dict[str, Any]:
    """Schema of a recipe's file. With a recipe, parts outside the catalogues are in it too.

    A section of a part is described by its `type`: `{if: {type: mlp}, then: its options}`.
    """
    found = Recipe.model_json_schema(by_alias=True)
    definitions = found["$defs"]
    extra = _own(recipe) if recipe else {}
    for section, kinds in (
        ("StreamSection", ["connector"]),
        ("Recipe", ["backbone"]),
        ("TaskSection", ["task"]),
    ):
        properties = found if section == "Recipe" else definitions[section]
        for kind in kinds:
            rules = _rules(kind, extra.get(kind, {}))
            if section == "TaskSection":
                properties["allOf"] = rules
            else:
                old = properties["properties"][kind]
                properties["properties"][kind] = {**old, "allOf": rules}
    encoders: list[dict[str, Any]] = []
    for modality in entries("modality"):
        known = {"modality": {"const": modality}}
        rules = _rules(f"{modality}_encoder", extra.get(f"{modality}_encoder", {}))
        encoders.append(
            {
                "if": {"properties": known},
                "then": {"properties": {"encoder": {"allOf": rules}}},
            }
        )
    definitions["StreamSection"]["allOf"] = encoders
    found["properties"]["extends"] = {"type": "string"}
    return found


def _own(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Parts of a recipe that are named `package.module:Class`."""
    found: dict[str, dict[str, str]] = {}
    for stream in recipe.inputs.values():
        found.setdefault(f"{stream.modality}_encoder", {})[stream.encoder.type] = ""
        if stream.connector:
            found.setdefault("connector", {})[stream.connector.type] = ""
    if recipe.backbone:
        found.setdefault("backbone", {})[recipe.backbone.type] = ""
    for task in recipe.tasks.values():
        found.setdefault("task", {})[task.type] = ""
    return found


def _rules(kind: str, extra: dict[str, str]) -> list[dict[str, Any]]:
    rules = []
    for name in sorted({*entries(kind), *extra}):
        try:
            part = find(kind, name, kind)
        except RecipeError:
            continue  # a library that is not installed: its options are not known here
        described = options_model(part).model_json_schema()
        rules.append(
            {
                "if": {"properties": {"type": {"const": name}}},
                "then": {
                    "properties": described.get("properties", {}),
                    "required": described.get("required", []),
                },
            }
        )
    return rules
