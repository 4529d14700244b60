"""Reference pages of the parts: a page a kind, with every part's options and their defaults."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from sensorium.engine.recipe import (
    KINDS,
    OPTIMIZER_ARGUMENTS,
    SCHEDULE_ARGUMENTS,
    Recipe,
    find,
    registered,
)
from sensorium.engine.recipe.validation import arguments, fitted_arguments, library_model
from sensorium.engine.utils import ConfigError
from sensorium.modalities.messages import plural
from sensorium.modalities.modality import Modality

Row = tuple[str, str, str]

ENGINE = {
    "freeze": "train nothing of it; `{last: 2}` trains its last two blocks",
    "lora": "adapters of peft: `{r: 8}`, or another method by `type`",
    "train_only": "a selector: `bias`, `norms`, `embeddings`, `{layers: [0, 1]}`, ...",
    "quantize": "`int8` or `int4`: frozen linear maps in 8 or 4 bits, by torchao",
    "lr": "a learning rate of its own",
    "weights": "`pretrained`, `none`, `runs/x`, `file.safetensors`, `hf-hub:org/name`",
}
"""The engine's own keys of a part's section."""

PASSED = {
    "optimizer": OPTIMIZER_ARGUMENTS,
    "schedule": SCHEDULE_ARGUMENTS,
    "selector": ("module",),
    "transform": ("module", "context"),
    "analysis": ("subject",),
}
"""Arguments of a kind's parts that are no options."""

INTRODUCTIONS = {
    "encoder": "An encoder turns a prepared sample into `Features`; it belongs to a modality.",
    "connector": "A connector maps `Features` to `Features`; widths are inferred.",
    "backbone": "A backbone is the language model that tasks share.",
    "task": "A task says what is learned: its loss, predictions and metrics.",
    "source": "A source is where rows come from: `data: {train: {source: NAME, ...}}`.",
    "analysis": "An analysis reads a model without training it: `sensorium analyze RUN NAME`.",
    "head": "A head reads the features of a stream for one task.",
}


def options_page(kind: str) -> str:
    """Return the page of a kind of parts in Markdown."""
    lines = [f"# {plural(kind).capitalize()}", ""]
    if kind in INTRODUCTIONS:
        lines += [INTRODUCTIONS[kind], ""]
    lines += [f"`sensorium list {plural(kind)}` prints their names.", ""]
    for name, path in sorted(registered(kind).items()):
        lines += _part(kind, name, path)
    return "\n".join(lines)


def recipe_page() -> str:
    """Return the page of the recipe's own sections in Markdown, from the engine's schema."""
    schema = Recipe.model_json_schema(by_alias=True)
    lines = ["# Recipe", "", "The sections of a recipe. A part's options stand on the pages of", ""]
    lines[-1:] = ["its kind; beside them every part's section may hold:", ""]
    lines += ["| key | meaning |", "|---|---|"]
    lines += [f"| `{key}` | {cell(text)} |" for key, text in ENGINE.items()] + [""]
    for title, section in (("The file", schema), *sorted(schema["$defs"].items())):
        if "properties" not in section:
            continue
        lines += [f"## {title}", "", prose(section.get("description", "")), ""]
        rows = [
            (name, schema_type(value), default(value["default"]) if "default" in value else "")
            for name, value in section["properties"].items()
        ]
        lines += table(rows)
    return "\n".join(lines)


def _part(kind: str, name: str, path: str) -> list[str]:
    lines = [f"## {name}", "", f"`{path.removeprefix('sensorium.')}`", ""]
    try:
        part = find(kind, name, name)
    except ConfigError as error:  # its library is not installed here
        return [*lines, prose(str(error)), ""]
    text = inspect.getdoc(part)
    documented = (isinstance(part, type) and part.__doc__) or not isinstance(part, type)
    if text and documented and path.startswith("sensorium."):
        lines += [prose(text), ""]
    if isinstance(part, Modality):
        return lines + _modality(part)
    return lines + table(list(option_rows(part, path, PASSED.get(kind, ()))))


def _modality(modality: Modality) -> list[str]:
    kinds = ("encoders", "decoders", "augments", "sources", "tokenizers", "envs")
    rows = [(kind, sorted(getattr(modality, kind))) for kind in kinds]
    return [f"- {kind}: {', '.join(code(n) for n in names)}" for kind, names in rows if names] + [
        ""
    ]


def option_rows(part: Any, path: str, passed: Sequence[str] = ()) -> Iterator[Row]:
    """Yield (name, type, default) of every option of a part. The default of a required one is
    empty. passed: arguments that the engine sets itself."""
    if not path.startswith("sensorium.") or passed:  # of a library, as the recipe's schema has it
        for name, field in library_model(part, passed).model_fields.items():
            required = field.is_required()
            yield name, type_name(field.annotation), "" if required else default(field.default)
        return
    fitted = fitted_arguments(part)
    for name, (hint, value) in arguments(part).items():
        kind = "section" if name in fitted else type_name(hint)
        empty = name not in fitted and value is inspect.Parameter.empty
        yield name, kind, "" if empty else "chosen" if name in fitted else default(value)


def table(rows: list[Row]) -> list[str]:
    """Return a table of options in Markdown."""
    if not rows:
        return ["It has no options.", ""]
    head = ["| option | type | default |", "|---|---|---|"]
    body = [
        f"| `{n}` | {cell(code(t))} | {cell(code(d)) if d else '*required*'} |" for n, t, d in rows
    ]
    return [*head, *body, ""]


def type_name(hint: Any) -> str:
    """Return an annotation as a reader writes it: `int | None`, `list[str]`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "null"
    if hint is Any:
        return "any"
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in args)
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        return " | ".join(type_name(arg) for arg in args)
    name = getattr(origin or hint, "__name__", str(hint))
    if args:
        return f"{name}[{', '.join('...' if a is ... else type_name(a) for a in args)}]"
    return str(name)


def schema_type(rule: dict[str, Any]) -> str:
    """Return the type of a property of a JSON schema in words."""
    if "$ref" in rule:
        return str(rule["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "allOf", "oneOf"):
        if key in rule:
            return " | ".join(dict.fromkeys(schema_type(each) for each in rule[key]))
    if "enum" in rule or "const" in rule:
        return " | ".join(repr(value) for value in rule.get("enum", [rule.get("const")]))
    if rule.get("type") == "array":
        return f"list[{schema_type(rule.get('items', {}))}]"
    if rule.get("type") == "object" and isinstance(rule.get("additionalProperties"), dict):
        return f"dict[str, {schema_type(rule['additionalProperties'])}]"
    return str(rule.get("type", "any"))


def default(value: Any) -> str:
    """Return a default as YAML would have it."""
    if value is None:
        return "null"
    if isinstance(value, dict) and value:
        return "that section's"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value) if isinstance(value, tuple) else value)
    return re.sub(r"<([\w.]+) object at .*>", r"\1", text)


def code(text: str) -> str:
    """Return text as code."""
    return f"`{text}`"


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def prose(text: str) -> str:
    """Return a docstring as Markdown: code stays, what looks like HTML does not."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = (
        re.sub(r"([<\[*_{])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts)
    )
    return "".join(plain)


KIND_PAGES = [kind for kind in KINDS if not kind.endswith("_tokenizer")]
"""The kinds that have a page; `tokenizer` holds those of every modality."""
