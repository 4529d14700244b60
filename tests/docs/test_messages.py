"""The catalogue of messages is complete against the source."""

from __future__ import annotations

import ast
import functools

import pytest

from sensorium.scripts.docs.messages import PLACES, errors_table, messages, sources

CODE = """
RIGHT = "a file of numbers"

def read(path, count):
    wrong = f"holds {count} rows" if count else "holds no row at all"
    if count > 3:
        raise ReadError(path, wrong, RIGHT)
    raise ConfigError(f"rows: found {count}" + ", expected more of them")
"""


def test_a_message_is_what_the_user_reads() -> None:
    assert sorted(messages(ast.parse(CODE))) == [
        "holds {count} rows | holds no row at all; expected a file of numbers",
        "rows: found {count}, expected more of them",
    ]


@functools.cache
def raised() -> list[tuple[str, ast.Raise]]:
    """Return every `raise` of a call in the package, with the name of its file."""
    return [
        (path.name, node)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    ]


@pytest.fixture(scope="module")
def table() -> str:
    return errors_table()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PLACES if name not in ("StopTraining",)])
def test_every_text_of_an_error_is_listed(name: str, table: str) -> None:
    """Each literal of an error that is raised stands on the page."""
    missing = []
    for file, node in raised():
        call = node.exc
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != name:
            continue
        for argument in (call.args[place] for place in PLACES[name] if place < len(call.args)):
            for text in (argument, *getattr(argument, "values", ())):
                value = getattr(text, "value", None)
                shown = " ".join(str(value).replace("`", "'").split())
                if isinstance(value, str) and len(shown) > 20 and shown not in table:
                    missing.append(f"{file}, line {node.lineno}: {shown}")
    assert not missing, "\n".join(missing)
