"""YAML as users expect it: `1e-4` is a number, `no` and `012` are text, keys are unique.

Sections of one file on top of those of another (`extends`), and of a command line on both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...modalities.messages import describe_error, shorten
from ..utils import ConfigError, add_recipe_folder, located_errors


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of YAML 1.2 and without duplicate keys."""


_Loader.yaml_implicit_resolvers = {}


_NUMBER = r"[-+]?(?:[0-9][0-9_]*)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        rf"{_NUMBER}\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        rf"|{_NUMBER}[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )
_Loader.yaml_implicit_resolvers[""] = _Loader.yaml_implicit_resolvers["\0"]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        location = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            raise ConfigError(f"{location}: the key {key!r} is not text; put it in quotes")
        if key in mapping:
            raise ConfigError(f"{location}: the key {key!r} appears twice; keep one")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _checked(construct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a constructor that names the line of a value it cannot make (`!!int x`)."""

    def constructor(loader: Any, node: yaml.Node) -> Any:
        try:
            return construct(loader, node)
        except (ConfigError, yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            kind = node.tag.rpartition(":")[2]
            value = shorten(repr(node.value), 60)
            line = node.start_mark.line + 1
            raise ConfigError(f"line {line}: found {value}, expected YAML's {kind}") from error

    return constructor


_Loader.yaml_constructors = {
    **_Loader.yaml_constructors,
    "tag:yaml.org,2002:map": _mapping,
    "tag:yaml.org,2002:float": _float,
}
_Loader.yaml_constructors = {
    tag: _checked(construct) for tag, construct in _Loader.yaml_constructors.items()
}


def parse(text: str, where: str) -> Any:
    """Return the value of a YAML text; `where` is the prefix of an error."""
    try:
        return _Loader(text).get_single_data()
    except ConfigError as error:
        raise ConfigError(f"{where}, {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = shorten(getattr(error, "problem", None) or "not YAML")
        raise ConfigError(f"{where}{line}: {problem}; expected YAML") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: is nested too deep; expected YAML") from error
    except Exception as error:  # PyYAML's reader meets bytes that it did not expect
        raise ConfigError(f"{where}: {describe_error(error)}; expected YAML") from error


def parse_file(path: Path) -> Any:
    """Return the value of a YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {describe_error(error)}") from error
    return parse(text, str(path))


def read_extended(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the sections of a file on top of those of the recipe that it `extends`, if any.

    chain: the files that extend this one. Modules of a user are looked for beside each of them.
    """
    values = _sections(path)
    add_recipe_folder(path.parent)
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(
            f"extends: found {shorten(repr(base), 80)}, expected the path of one recipe"
        )
    parent, chain = path.parent / base, (*chain, path)
    with located_errors(f"extends: {shorten(str(parent), 80)}"):  # a name too long, a folder unread
        is_file = parent.is_file()
        is_circle = is_file and any(parent.samefile(file) for file in chain)
    if is_circle:
        names = " extends ".join(file.name for file in (*chain, parent))
        raise ConfigError(f"extends: {names}, a circle; take one out")
    if not is_file:
        raise ConfigError(f"extends: {parent}, which {path} extends: there is no such file")
    return merge_sections(read_extended(parent, chain), values)


def _sections(path: Path) -> dict[str, Any]:
    values = parse_file(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, expected keys and sections")
    return values


INDEPENDENT = frozenset(
    {"augment", "data", "freeze", "holdout", "limit", "lora", "lr", "on_error", "quantize"}
    | {"train_only"}
)
"""Keys of a section that hold for any `type` or `source`."""


def merge_sections(
    base: Mapping[str, Any], over: Mapping[str, Any], name_key: str = "type"
) -> dict[str, Any]:
    """Return `over` on top of `base`, section by section; null removes a key.

    A section of another `type` or `source` keeps only the `INDEPENDENT` keys of its base: the
    others are options of the class that is replaced. name_key: the key that a section written as a
    name alone means.
    """
    merged = dict(base)
    for key in ("type", "source"):
        if key in base and over.get(key, base[key]) != base[key]:
            merged = {name: value for name, value in base.items() if name in INDEPENDENT}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, str):
            below = {name_key: below}  # `connector: mlp` is short for `{type: mlp}`
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge_sections(below, value, "source" if key == "data" else "type")
        else:
            merged[key] = value
    return merged


def apply_overrides(values: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return sections with each `a.b.c=value` of a command line on top; null is a value here."""
    over: dict[str, Any] = {}
    nulls: list[list[str]] = []
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"{shorten(text, 100)}: found no '=', expected key.key=value")
        *parents, last = path.split(".")
        _check_sections(values, parents, path)
        section = over
        for key in parents:
            if not isinstance(section.get(key), dict):
                section[key] = {} if section.get(key) is None else {"type": section[key]}
            section = section[key]
        section[last] = parse_override(value, path)
        nulls += [[*parents, last]] if section[last] is None else []
    merged = merge_sections(values, over)
    for *parents, last in nulls:
        section = merged
        for key in parents:
            section = section[key]
        section.setdefault(last, None)
    return merged


def _check_sections(values: Mapping[str, Any], keys: Sequence[str], path: str) -> None:
    """Refuse an override within a value that has no keys."""
    section: Any = values
    for key in keys:
        section = section.get(key, {})
        if isinstance(section, str):
            return  # `connector: mlp` is short for `{type: mlp}`
        if not isinstance(section, Mapping):
            text = shorten(repr(section), 80)
            raise ConfigError(f"{path}: {key} is {text}, which has no keys")


_NULL = re.compile(r"\s*(?:~|null|Null|NULL)?\s*")
_QUOTED = re.compile(r"""\s*(?:"|')""")
_SECTION = re.compile(r"\s*[\[{]")
_TEMPLATE = re.compile(r"\{\w+\}")


def parse_override(text: str, path: str) -> Any:
    """Return the value of an override.

    Numbers, `true`, `null`, `[...]`, `{key: value}` and quoted texts are read as YAML; every other
    text stays as typed, with its spaces, colons and `#`, as does one that begins with
    `{word}` or with a bracket that is not YAML (`[INST] <image>`).
    """
    try:
        value = parse(text, path)
    except ConfigError:
        return text
    if isinstance(value, (Mapping, list)):
        is_text = not _SECTION.match(text) or _TEMPLATE.match(text.lstrip())
        return text if is_text else value
    if value is None and not _NULL.fullmatch(text):
        return text  # a comment alone
    return text if isinstance(value, str) and not _QUOTED.match(text) else value


def write(value: Any) -> str:
    """Return YAML text that `parse` reads back as `value`."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes what our loader, or another, would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS.search(value) else None  # in another style these become line ends
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"^{_NUMBER}[eE][-+]?[0-9]+$"), list("-+0123456789")
)
