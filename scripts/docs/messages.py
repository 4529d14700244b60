"""The catalogue of messages: every error that the package raises, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from .options import code

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("modalities", "connectors", "backbones", "tasks", "engine", "scripts")
TOOLS = ("scripts/benchmarks", "scripts/coverage", "scripts/docs", "scripts/fuzz")
"""Folders of tools for developers, whose errors no user meets."""

PLACES = {
    "ConfigError": (0,),
    "ValueError": (0,),
    "RuntimeFailure": (0,),
    "StopTraining": (0,),
    "Interrupted": (0,),
    "WorkerDied": (0,),
    "ReadError": (1, 2),
    "RequestError": (1,),
    "bad_request": (0,),
}
"""Error -> which of its arguments are the message; those of `ReadError` are what is wrong, and what
was expected."""

SHORTEST = 12
"""Characters of a message; less is passed on from elsewhere."""


def errors_table() -> str:
    """Return the messages of the package's own errors in Markdown, by package, from the source.

    A name in braces is a value of the user's.
    """
    groups: dict[str, set[str]] = {}
    for path in sources():
        package = ".".join(path.relative_to(ROOT).parts[:2]).removesuffix(".py")
        groups.setdefault(package, set()).update(messages(ast.parse(path.read_text("utf-8"))))
    lines = []
    for package, listed in groups.items():
        if listed:
            lines += [f"## {package}", "", *(f"- {code(m)}" for m in sorted(listed)), ""]
    return "\n".join(lines)


def sources() -> list[Path]:
    """Return the files whose errors a user may meet."""
    files = (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))
    return [f for f in files if not f.relative_to(ROOT).as_posix().startswith(TOOLS)]


def messages(tree: ast.Module) -> Iterator[str]:
    """Yield the message of each error that a module raises."""
    constants = texts(tree.body, {})
    scopes = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    names = {id(node): constants for node in ast.walk(tree)}
    for scope in scopes:  # inner functions come after outer ones
        known = texts(list(ast.walk(scope)), constants)
        names |= {id(node): known for node in ast.walk(scope)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and (text := message(node, names[id(node)])):
            yield text


def texts(nodes: list[ast.stmt] | list[ast.AST], known: Mapping[str, str]) -> dict[str, str]:
    """Return the texts that names are bound to; several are parted by a bar."""
    names = dict(known)
    local: dict[str, list[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, text = node.targets[0], template(node.value, names)
            if isinstance(target, ast.Name) and len(text) >= SHORTEST and " " in text:
                local.setdefault(target.id, []).append(text)
    return names | {name: " | ".join(values) for name, values in local.items()}


def message(node: ast.Raise, known: Mapping[str, str]) -> str:
    """Return the text of a raised error of the package, or nothing."""
    if not isinstance(node.exc, ast.Call):
        return ""
    places = PLACES.get(ast.unparse(node.exc.func), ())
    arguments = [node.exc.args[place] for place in places if place < len(node.exc.args)]
    text = "; expected ".join(filter(None, (template(each, known) for each in arguments)))
    return " ".join(text.replace("`", "'").split()) if len(text) > SHORTEST else ""


def template(node: ast.AST, known: Mapping[str, str]) -> str:
    """Return a text with its values in braces; alternatives are parted by a bar."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(value, known) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        name = ast.unparse(node.value)
        return f"{{{name}}}" if name.isidentifier() else "{...}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left, known) + template(node.right, known)
    if isinstance(node, ast.IfExp):
        return " | ".join(filter(None, (template(n, known) for n in (node.body, node.orelse))))
    if isinstance(node, ast.Name):
        return known.get(node.id, f"{{{node.id}}}")
    return "{...}" if isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)) else ""
