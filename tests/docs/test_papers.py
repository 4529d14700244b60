"""The catalogue of papers: every recipe, part and verb it names exists, every proof is a test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from sensorium.engine.recipe import KINDS, parse, registered
from sensorium.engine.utils import ConfigError
from sensorium.scripts.app import app
from sensorium.scripts.docs.papers import PAGE, ROOT, Paper, load_papers, papers_page

PAPERS = load_papers()
PROOFS = sorted({proof for paper in PAPERS for proof in paper.proof})
NODES = [proof for proof in PROOFS if "::" in proof]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.id)
def test_a_paper_names_what_exists(paper: Paper) -> None:
    """Shipped recipes pass `check` in tests/engine/training/dry_run/test_dry_run.py."""
    for recipe in paper.recipes():
        assert (ROOT / recipe).is_file(), recipe
    verbs = {command.name for command in app.registered_commands}
    names = {name for kind in KINDS for name in registered(kind)}
    names |= {name.rpartition("/")[2] for name in names}
    for code in paper.fragments():
        if verb := re.match(r"sensorium (\w+)", code):
            assert verb[1] in verbs, code
        elif re.match(r"[\w.]+: ", code):
            parse(code, paper.id)  # YAML without double keys
        for part in re.findall(r"type: (\w+)", code):
            assert part in names, f"{part}: no part is called so"


@pytest.mark.parametrize("proof", PROOFS)
def test_a_proof_exists(proof: str) -> None:
    """A test by the source, without its parameters, which `test_every_proof_is_collected` tries."""
    path, _, test = proof.partition("::")
    assert (ROOT / path).is_file(), path
    if test:
        assert re.sub(r"\[.*", "", test) in names_in(path), proof
    else:
        assert re.search(r"\d", (ROOT / path).read_text("utf-8")), f"{path}: no figure"


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the tests of a file as pytest names them, without parameters."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
    return frozenset(name for name in names if name.rpartition(":")[2].startswith("test_"))


@pytest.mark.slow
def test_every_proof_is_collected() -> None:
    files = sorted({node.partition("::")[0] for node in NODES})
    command = [sys.executable, "-m", "pytest", "--collect-only", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:]
    collected = set(done.stdout.splitlines())
    collected |= {node.partition("[")[0] for node in collected}
    assert [node for node in NODES if node not in collected] == []


def test_the_page_is_that_of_the_catalogue() -> None:
    cure = "run python -m sensorium.scripts.docs.papers"
    assert PAGE.read_text("utf-8") == papers_page(PAPERS), cure


def test_entries_stand_in_order() -> None:
    entries = yaml.safe_load((ROOT / "docs" / "papers.yaml").read_text("utf-8"))
    ids = [entry["id"] for entry in entries]
    assert ids == sorted(ids)


ENTRY = {
    "id": "001",
    "name": "A",
    "title": "A title",
    "year": 2024,
    "what": "It does.",
    "how": "`type: ctc`",
    "proof": ["tests/x.py::test_y"],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": 1}, "id: found 1, expected str"),
        ({"id": "1"}, "id: found '1', expected three digits"),
        ({"year": "2024"}, "year: found '2024', expected int"),
        ({"proof": []}, "proof: found .., expected a list"),
        ({"proof": "tests/x.py"}, "proof: found 'tests/x.py', expected a list"),
        ({"what": ""}, "what: found '', expected str"),
        ({"note": "x"}, "missing or unknown fields: note"),
        ({"how": None}, "how: found None, expected str"),
    ],
)
def test_a_wrong_entry_is_named(change: dict[str, object], words: str, tmp_path: Path) -> None:
    file = tmp_path / "papers.yaml"
    file.write_text(yaml.safe_dump([ENTRY | change]))
    with pytest.raises(ConfigError, match=words) as error:
        load_papers(file)
    assert "\n" not in str(error.value) and "entry 0" in str(error.value)


def test_two_entries_of_one_id_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "papers.yaml"
    file.write_text(yaml.safe_dump([ENTRY, ENTRY]))
    with pytest.raises(ConfigError, match="two entries have the id '001'"):
        load_papers(file)
