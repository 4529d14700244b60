"""A generated head: `source: phantom`.

One anatomy for all (the MNI152 template), so results on it do not transfer to real
heads: it shows that a pipeline works. A subject has one study: four series, or one volume of four
co-registered contrasts, and one report.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from monai.data import MetaTensor

from ...base import Count, Fraction, PositiveFloat, PositiveInt, Source
from ...paths import FileLister, cell_files
from ..io import oriented
from ..write import box_of
from . import reports
from .anatomy import anatomy
from .signal_equations import SEQUENCES
from .simulate import Grid, Scan, draw_grid, mask, scan
from .subject import Subject, draw

ABOUT = ("lesion", "ventricles")
"""What the findings of a report are about, in their order."""
VERSION = "phantom-1"
"""Changes with the simulation."""
SPLITS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Cell:
    """A volume, or a mask of one, that is simulated when it is read."""

    subject: Subject
    grid: Grid
    sequences: tuple[str, ...]
    seed: int
    what: Literal["volumes", "lesion", "ventricles"] = "volumes"

    def scan(self) -> Scan:
        return scan(self.subject, self.grid, self.sequences, self.seed)

    def __call__(self) -> MetaTensor:
        flat = self.what != "volumes"
        values = (
            mask(self.what, self.subject, self.grid, self.seed)[None]
            if flat
            else self.scan().volumes
        )
        matrix = self.grid.matrix().numpy()
        return oriented(values.numpy(), matrix, f"phantom {self.seed}", flat=flat)


class Phantom(Source):
    """Rows of generated subjects. Columns:

    `volume` and `mask` (the lesion's; read by `read` and `read_mask`), `box` (a function that
    has `[6]` mm, RAS: low and high corner; None without a lesion), `sequence`, `side`, `region`,
    `finding` (both in one), `size_mm`, `lesion` (yes or no), `ventricle` (their scale, 1 = the
    template's), `ventricles` (in a word), `study`, `subject`, `capsule` (half have a bright one at
    the right temple, which no report mentions), `report` (one text a study), `description` (the
    sequence's sentence, then the report), `sentences` (of the description: `{text, mask}`, the mask
    None where the sentence is about the whole).

    subjects: how many. view: a row a `series`, a row a `study` of all contrasts as channels, or a
    row a `sentence` of a series' findings, with columns more: `sentence`, `sentence_mask` (empty
    where there is no lesion), `about` (lesion or ventricles); `finding` is then how large those
    are, where it is about them.
    spacing: mm, about. healthy: share without a lesion. flip_lr: half the subjects are mirrored,
    with every side that is named.
    """

    columns: tuple[str, ...] = (
        "volume", "mask", "box", "sequence", "side", "region", "size_mm", "lesion", "ventricle",
        "ventricles", "finding", "study", "subject", "capsule", "report", "description",
        "sentences",
    )  # fmt: skip

    def __init__(
        self,
        *,
        split: Literal["train", "validation", "test"] = "train",
        subjects: PositiveInt = 250,
        view: Literal["series", "study", "sentence"] = "series",
        sequences: tuple[str, ...] = tuple(SEQUENCES),
        spacing: PositiveFloat = 4.0,
        healthy: Fraction = 0.2,
        flip_lr: bool = False,
        seed: Count = 0,
    ) -> None:
        unknown = [name for name in sequences if name not in SEQUENCES]
        if unknown or not sequences:
            invalid = unknown[0] if unknown else "none"
            raise ValueError(f"sequences: found {invalid}, expected some of {', '.join(SEQUENCES)}")
        if subjects < 1 or spacing <= 0:
            raise ValueError(
                f"subjects, spacing: found {subjects} and {spacing}, expected numbers above 0"
            )
        if not 0 <= healthy <= 1:
            raise ValueError(f"healthy: found {healthy}, expected a share between 0 and 1")
        self.split, self.subjects, self.view = split, subjects, view
        self.sequences, self.spacing, self.seed = tuple(sequences), spacing, seed
        self.healthy, self.flip_lr = healthy, flip_lr
        if view == "sentence":
            self.columns = (*self.columns, "sentence", "sentence_mask", "about")

    def __len__(self) -> int:
        series = 1 if self.view == "study" else len(self.sequences)
        return self.subjects * series * (len(ABOUT) if self.view == "sentence" else 1)

    def _locate(self, index: int) -> tuple[int, tuple[str, ...]]:
        """Return the subject of a row, and the sequences that it shows."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.view == "study":
            return index, self.sequences
        series = index // len(ABOUT) if self.view == "sentence" else index
        number, which = divmod(series, len(self.sequences))
        return number, (self.sequences[which],)

    @property
    def groups(self) -> Sequence[object]:
        """The subject of each row."""
        return [self._locate(index)[0] for index in range(len(self))]

    def key(self, index: int) -> str:
        number, sequences = self._locate(index)
        series = "" if self.view == "study" else f"-{sequences[0]}"
        sentence = f"-{ABOUT[index % len(ABOUT)]}" if self.view == "sentence" else ""
        return f"{self.split}-{number:05d}{series}{sentence}"

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        """Return the key of a cell; a volume and its masks have the same, however many subjects
        there are and for any rows."""
        kind = {"volume": "volumes", "mask": "lesion"}.get(column)
        if self.view == "sentence" and column == "sentence_mask":
            kind = ABOUT[index % len(ABOUT)]
        if kind is None:
            return super().cell_key(index, column, files)
        number, sequences = self._locate(index)
        drawn = (self.seed, self.split, number, self.spacing, self.healthy, self.flip_lr)
        return "|".join(map(str, (VERSION, *drawn, *sequences, kind)))

    def fingerprint(self) -> str:
        options = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        text = json.dumps(options, sort_keys=True, default=list)
        return f"{VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, sequences = self._locate(index)
        subject = self._subject(number)
        seed = self._derived(number, "scan", *sequences)
        grid = draw_grid(np.random.default_rng(seed), self.spacing)
        cell = functools.partial(Cell, subject, grid, sequences, seed)
        findings = reports.sentences(subject, self._rng(number, "report"))
        opening = reports.of_series(sequences[0], self._rng(number, "opening", *sequences))
        report = findings if self.view == "study" else [opening, *findings]
        masks: dict[str, Callable[[], MetaTensor] | None] = {
            "": None, "lesion": cell("lesion"), "ventricles": cell("ventricles")
        }  # fmt: skip
        lesion = subject.lesion
        row: dict[str, Any] = {
            "volume": cell(),
            "mask": cell("lesion"),
            "box": functools.partial(_box, cell("lesion")) if lesion else None,
            "sequence": "all" if self.view == "study" else sequences[0],
            "side": lesion.side if lesion else "none",
            "region": lesion.region if lesion else "none",
            "size_mm": lesion.diameter if lesion else 0.0,
            "lesion": "yes" if lesion else "no",
            "ventricle": subject.ventricle,
            "ventricles": reports.grade(subject),
            "finding": f"{lesion.side} {lesion.region}" if lesion else "none",
            "study": f"{self.split}-{number:05d}",
            "subject": f"{self.split}-{number:05d}",
            "capsule": subject.capsule,
            "report": " ".join(sentence.text for sentence in findings),
            "description": " ".join(sentence.text for sentence in report),
            "sentences": [{"text": s.text, "mask": masks[s.about]} for s in report],
        }
        if self.view == "sentence":
            about = ABOUT[index % len(ABOUT)]
            sentence = findings[index % len(ABOUT)].text
            row |= {"sentence": sentence, "sentence_mask": masks[about], "about": about}
            row["finding"] = row["finding"] if about == "lesion" else row["ventricles"]
        return row

    def _subject(self, number: int) -> Subject:
        return draw(self._rng(number, "subject"), anatomy(2), self.healthy, self.flip_lr)

    def _derived(self, number: int, *labels: str) -> int:
        text = "\0".join(map(str, (self.seed, SPLITS[self.split], number, *labels)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")

    def _rng(self, number: int, *labels: str) -> np.random.Generator:
        return np.random.default_rng(self._derived(number, *labels))


@functools.lru_cache(maxsize=100_000)
def _box(cell: Cell) -> list[float] | None:
    """Return the lesion's box in mm; None where the scan's voxels missed it."""
    box = box_of(mask("lesion", cell.subject, cell.grid, cell.seed), cell.grid.matrix())
    return None if box is None else [float(value) for value in box]
