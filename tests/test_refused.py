"""Lines that are refused in this project, read from the source alone: pickles, foreign code,
sleeping, printing outside the scripts, branches on a name, paths of one machine.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("backbones", "connectors", "engine", "modalities", "scripts", "tasks", "testing")
FILES = sorted([*ROOT.glob("*.py"), *(f for name in FOLDERS for f in (ROOT / name).rglob("*.py"))])

REFUSED_CALLS = {"torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "time.sleep"}
PROTOCOLS = {("engine/serving/remote_decoder.py", "torch.save()")}
"""What the protocol of another program asks for: vLLM reads prompt embeddings in no other form."""
REFUSED_IMPORTS = {"cPickle", "cloudpickle", "dill", "joblib", "pickle", "shelve"}
KINDS = re.compile(r"\b(modality|encoder|connector|backbone|task|model)[a-z_]*(\.type|\.name)?$")
OWN_PATH = re.compile(r"(^|[\s'\"(])/(home|root|work|Users)/")


def refused(tree: ast.Module, *, script: bool = False) -> list[str]:
    """What a module does that is refused here, each with its line."""
    return [
        f"{node.lineno}: {what}"
        for node in ast.walk(tree)
        if isinstance(node, (ast.expr, ast.stmt))
        for what in _refused(node, script)
    ]


def _refused(node: ast.expr | ast.stmt, script: bool) -> Iterator[str]:
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in REFUSED_CALLS or (called == "print" and not script):
            yield f"{called}()"
        for keyword in node.keywords:
            value = keyword.value
            if keyword.arg == "trust_remote_code" and getattr(value, "value", None) is True:
                yield "trust_remote_code=True"
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        yield from (f"import {name}" for name in names if name in REFUSED_IMPORTS)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if OWN_PATH.search(node.value):
            yield f"a path of one machine: {node.value!r}"
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield from _branch(node.test)
    elif isinstance(node, ast.Match) and KINDS.search(ast.unparse(node.subject)):
        yield f"match {ast.unparse(node.subject)}"


def _branch(test: ast.expr) -> Iterator[str]:
    """`if encoder.type == "timm"`: a method or a catalogue is meant."""
    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
            sides = (node.left, node.comparators[0])
            strings = [s for s in sides if isinstance(s, ast.Constant) and isinstance(s.value, str)]
            if strings and any(KINDS.search(ast.unparse(side)) for side in sides):
                yield f"if {ast.unparse(node)}"


def test_no_file_does_what_is_refused() -> None:
    lines = []
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"), str(path))
        place = path.relative_to(ROOT)
        lines += [
            f"{place}:{line}"
            for line in refused(tree, script="scripts" in place.parts)
            if (str(place), line.partition(": ")[2]) not in PROTOCOLS
        ]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    "source",
    [
        "state = torch.load('a.pt', weights_only=True)",
        "from pickle import loads",
        "def f():\n    import dill",
        "yaml.load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "print('done')",
        "time.sleep(1)",
        "if section.encoder == 'timm':\n    pass",
        "if a:\n    pass\nelif 'llama' == backbone.name:\n    pass",
        "width = 8 if model_type == 'clip' else 4",
        "match task.type:\n    case 'captioning':\n        pass",
        "ROOT = '/home/me/data'",
    ],
)
def test_it_would_notice(source: str) -> None:
    assert refused(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "yaml.safe_load(text)",
        "log.print('x')",
        "if attention == 'causal':\n    pass",
        "a = '/tmp/x'",
    ],
)
def test_it_lets_pass(source: str) -> None:
    assert not refused(ast.parse(source))
