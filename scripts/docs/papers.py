"""python -m sensorium.scripts.docs.papers: write docs/papers.md from docs/papers.yaml

The catalogue has an entry for each paper that the platform implements:

    - id: "066"                     # number of the paper, three digits
      name: OWSM-CTC
      title: "OWSM-CTC: An Open Encoder-Only Speech Foundation Model ..."
      year: 2024
      what: CTC with self-conditioned heads between the layers of an audio encoder.
      how: "`configs/asr/sentences_ctc.yaml`; `tasks.x: {type: ctc, layers: [2]}`"
      proof:                        # tests that show it, or a page with the measured table
        - tests/tasks/speech/test_ctc.py::test_heads_in_between_share_the_loss
        - configs/asr/README.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import typer

from sensorium.engine.recipe import parse_file
from sensorium.engine.utils import ConfigError, write_text

from .options import prose

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "docs" / "papers.yaml"
PAGE = ROOT / "docs" / "papers.md"


@dataclass(frozen=True)
class Paper:
    """One paper, what of it is implemented, how to use it and what proves it."""

    id: str
    name: str
    title: str
    year: int
    what: str
    how: str
    proof: tuple[str, ...]

    def recipes(self) -> list[str]:
        """Return the recipes that `how` names, as paths from the root."""
        return re.findall(r"configs/[\w/.-]+\.yaml", self.how)

    def fragments(self) -> list[str]:
        """Return the pieces of code in `how`."""
        return re.findall(r"`([^`]+)`", self.how)


def load_papers(path: Path = CATALOGUE) -> list[Paper]:
    """Return the papers of the catalogue in the order of their ids.

    Raise ConfigError, one line with the entry, if a field is missing, unknown or of another type,
    or two entries have one id.
    """
    entries = parse_file(path)
    if not isinstance(entries, list):
        raise ConfigError(f"{path.name}: found {type(entries).__name__}, expected a list of papers")
    papers: dict[str, Paper] = {}
    for number, entry in enumerate(entries):
        paper = _paper(entry, f"{path.name}, entry {number}")
        if paper.id in papers:
            raise ConfigError(f"{path.name}: two entries have the id {paper.id!r}")
        papers[paper.id] = paper
    return [papers[key] for key in sorted(papers)]


def _paper(entry: Any, where: str) -> Paper:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: found {type(entry).__name__}, expected a mapping")
    where = f"{where} ({entry.get('id')})"
    names = {field.name: field.type for field in fields(Paper)}
    wrong = sorted(set(names) ^ set(entry))
    if wrong:
        raise ConfigError(f"{where}: missing or unknown fields: {', '.join(wrong)}")
    proof = entry["proof"]
    if not isinstance(proof, list) or not proof or not all(isinstance(p, str) for p in proof):
        raise ConfigError(f"{where}: proof: found {proof!r}, expected a list of node ids or pages")
    for name, kind in names.items():
        expected = {"str": str, "int": int}.get(str(kind))
        if expected is not None and (not isinstance(entry[name], expected) or not entry[name]):
            raise ConfigError(f"{where}: {name}: found {entry[name]!r}, expected {kind}")
    if not re.fullmatch(r"\d{3}", entry["id"]):
        raise ConfigError(f"{where}: id: found {entry['id']!r}, expected three digits in quotes")
    return Paper(**{**entry, "proof": tuple(proof)})


def papers_page(papers: list[Paper]) -> str:
    """Return the page of the papers in Markdown."""
    head = [
        "# Papers",
        "",
        "Each entry is a paper that the platform implements: what of it, how to use it, and the",
        "tests or tables that show it. Where the real size is out of reach it is shown at toy size",
        "with the control that would expose a sham. `sensorium list papers` prints the same.",
        "",
        "<!-- generated from papers.yaml: python -m sensorium.scripts.docs.papers -->",
        "",
    ]
    for paper in papers:
        head += [
            f"## {paper.id} {paper.name} ({paper.year})",
            "",
            f"*{prose(paper.title)}*",
            "",
            f"{prose(paper.what)}",
            "",
            f"- use: {paper.how}",
            f"- proof: {', '.join(_proof(proof) for proof in paper.proof)}",
            "",
        ]
    return "\n".join(head)


def _proof(proof: str) -> str:
    path, _, test = proof.partition("::")
    return f"`{Path(path).name}::{test}`" if test else f"`{path}`"


def main() -> None:
    """Write docs/papers.md from docs/papers.yaml."""
    write_text(PAGE, papers_page(load_papers()))
    print(PAGE)


if __name__ == "__main__":
    from sensorium.engine.utils import console

    with console():
        typer.run(main)
