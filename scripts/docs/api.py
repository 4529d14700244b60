"""Reference pages of the Python API and of the commands, from docstrings and signatures."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from .options import cell, code, prose

ROOT = Path(__file__).resolve().parents[2]
FACES = {
    "sensorium": "The package",
    "sensorium.engine.inference": "Inference",
    "sensorium.modalities.base": "Signals",
    "sensorium.connectors.base": "Connectors",
    "sensorium.backbones.base": "Backbones",
    "sensorium.tasks.base": "Tasks",
    "sensorium.testing": "Contract checks",
}
"""The modules that a user imports, and their titles."""


def api_page() -> str:
    """Return the page of the Python API in Markdown."""
    lines = ["# Python API", "", "What a user imports. Everything else is the package's own.", ""]
    for module, title in FACES.items():
        lines += [f"## {title}", "", f"`import {module}`", ""]
        imported = importlib.import_module(module)
        for name in public_names(imported):
            lines += _entry(name, getattr(imported, name))
    return "\n".join(lines)


def public_names(module: Any) -> list[str]:
    """Return the names that a module lists, or else defines or imports from the package, in
    order."""
    listed = getattr(module, "__all__", None)
    names = listed if listed is not None else [n for n in vars(module) if not n.startswith("_")]

    def of_package(name: str) -> bool:
        value = getattr(module, name)
        home = getattr(value, "__module__", "") or ""
        return callable(value) and home.startswith("sensorium.")

    return [name for name in names if of_package(name)]


def _entry(name: str, value: Any) -> list[str]:
    heading = f"### {name}"
    kind = "class" if isinstance(value, type) else "def"
    lines = [heading, "", "```python", f"{kind} {name}{signature(value)}", "```", ""]
    lines += [documentation(value), ""]
    if isinstance(value, type):
        for method, function in vars(value).items():
            function = getattr(function, "__func__", function)
            if method.startswith("_") or not inspect.isfunction(function):
                continue
            text = documentation(function)
            summary = f": {' '.join(text.split())}" if text else ""
            lines.append(f"- {code(method + signature(function))}{summary}")
        lines.append("")
    return lines


def signature(value: Any) -> str:
    """Return a signature without the quotes of postponed annotations."""
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return "(...)"
    return re.sub(r"'([^']*)'", r"\1", re.sub(r"<[^>]*>", "...", text)).replace("`", "")


def documentation(value: Any) -> str:
    """Return a docstring as Markdown."""
    docstring = value.__doc__ if isinstance(value, type) else inspect.getdoc(value)
    text = inspect.cleandoc(docstring or "")
    return prose(text) if not text.startswith(f"{getattr(value, '__name__', '')}(") else ""


def commands_page() -> str:
    """Return the page of the commands in Markdown: arguments and options of each verb."""
    import typer

    from sensorium.scripts.app import app

    lines = ["# Commands", "", "`sensorium VERB --help` prints the same.", ""]
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for verb, subcommand in getattr(command, "commands", {"": command}).items():
            lines += _command(f"{name} {verb}".strip(), subcommand)
    return "\n".join(lines)


def _command(name: str, command: Any) -> list[str]:
    lines = [f"## {name}", "", prose(inspect.cleandoc(command.help or "")), ""]
    rows = []
    for parameter in command.params:
        names = ", ".join(code(opt) for opt in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = code(parameter.name.upper())
        rows.append(f"| {cell(names)} | {cell(prose(getattr(parameter, 'help', None) or ''))} |")
    return [*lines, "| argument or option | meaning |", "|---|---|", *rows, ""] if rows else lines
