"""The report of a phantom: sentences, each with its subject.

Numbers are rounded millimetres. `about` names the mask that a sentence is of: `lesion`,
`ventricles`, or nothing where it is about the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .subject import Subject

LESION = (
    "There is a {size} mm lesion in the {side} {region}.",
    "A {size} mm lesion is seen in the {side} {region}.",
    "The {side} {region} shows a lesion of {size} mm.",
    "A focal lesion in the {side} {region} measures {size} mm.",
)
HEALTHY = ("No focal lesion.", "No focal lesion is seen.", "There is no focal lesion.")
VENTRICLES = {
    "enlarged": ("The ventricles are enlarged.", "Enlarged ventricles."),
    "normal": ("The ventricles are of normal size.", "Normal ventricles."),
    "small": ("The ventricles are small.", "Small ventricles."),
}
SEQUENCE = ("{sequence} scan of the brain.", "Brain MRI, {sequence}.", "A {sequence} scan.")


@dataclass(frozen=True)
class Sentence:
    text: str
    about: str = ""


def sentences(subject: Subject, rng: np.random.Generator) -> list[Sentence]:
    """Return the findings of a study, in one of several wordings."""
    report = []
    if subject.lesion is None:
        report.append(Sentence(_pick(HEALTHY, rng)))
    else:
        size = round(subject.lesion.diameter)
        text = _pick(LESION, rng).format(
            size=size, side=subject.lesion.side, region=subject.lesion.region
        )
        report.append(Sentence(text, "lesion"))
    report.append(Sentence(_pick(VENTRICLES[grade(subject)], rng), "ventricles"))
    return report


def grade(subject: Subject) -> str:
    """Of the ventricles, in a word."""
    if subject.ventricle > 1.25:
        return "enlarged"
    return "small" if subject.ventricle < 0.95 else "normal"


def of_series(sequence: str, rng: np.random.Generator) -> Sentence:
    return Sentence(_pick(SEQUENCE, rng).format(sequence=sequence))


def _pick(texts: tuple[str, ...], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]
