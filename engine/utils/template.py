"""Render the package's HTML templates: a page that needs nothing but itself, without scripts."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .atomic import make_folder, write_text

TEMPLATES = Path(__file__).with_name("templates")

SMALL = 1e-3
"""A number below this would lose its digits."""


def render(template: str, **values: Any) -> str:
    """Return a template's HTML. Texts are escaped, `Markup` is inserted unchanged."""
    return _environment().get_template(template).render(**values)


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Write a template's HTML, and return the path."""
    page = render(template, **values)
    make_folder(path.parent)
    write_text(path, page)
    return path


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    return environment


def format_number(value: float | None) -> str:
    """Return a metric's value as a table shows it."""
    if value is None:
        return "not defined"
    return f"{value:.4f}" if abs(value) >= SMALL or not value else f"{value:.2e}"
