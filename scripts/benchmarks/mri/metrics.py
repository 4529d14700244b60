"""What the answers of a run are worth: a figure a column, from rows of the phantom's test split.

Legend: `N` rows, `S` studies, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sensorium.modalities.mri.phantom import Phantom
from sensorium.scripts.benchmarks.mri.bootstrap import (
    BootstrapMetric,
    auroc,
    chance_of_recall,
    ratio,
    recall,
)
from sensorium.scripts.benchmarks.mri.runs import Answer
from sensorium.tasks.dense import BoxMetrics
from sensorium.tasks.text import Facts

COLUMNS = {
    "sequence": "sequence AUROC",
    "side": "side accuracy",
    "ventricle": "ventricle MAE",
    "dice": "Dice",
    "hd95": "HD95 mm",
    "missed": "missed",
    "box": "box hit",
    "recall": "study recall@5",
}
LESS = ("ventricle", "hd95", "missed")
"""Columns in which less is better."""
SEEN = ("T2w", "FLAIR", "PDw")
"""Sequences that show a lesion beside its surroundings; on T1w the side is not evaluated."""
K = 5


@dataclass
class Truth:
    """The evaluated split: its studies in order, and the content of their reports.

    chance: a figure without any signal, by column, where there is one.
    """

    source: Phantom
    facts: Facts
    chance: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        step = len(self.source.sequences)
        rows = [self.source[i] for i in range(0, len(self.source), step)]
        self.studies = {row["study"]: index for index, row in enumerate(rows)}
        self.reports = [row["report"] for row in rows]
        self.same = same_facts(self.facts, self.reports)
        self.chance |= {"sequence": 0.5, "side": 0.5, "recall": chance_of_recall(self.same, K)}

    def study(self, answer: Answer) -> int:
        return self.studies[answer.key.rpartition("-")[0]]

    def measures(self, answers: Mapping[str, Sequence[Answer]]) -> dict[str, BootstrapMetric]:
        """By column, the scores of the heads (`sequence`, `side`, `ventricle`, `mask`,
        `box`, `recall`) come to."""
        values: dict[str, BootstrapMetric] = {}
        for head, column in (("sequence", "sequence"), ("cls", "cls"), ("mean", "mean")):
            if head in answers:
                values[column] = self._classes(answers[head])
        if "side" in answers:
            lesion_rows = [a for a in answers["side"] if a.target["label"] != "none"]
            lesion_rows = [a for a in lesion_rows if a.key.rpartition("-")[2] in SEEN]
            values["side"] = self._mean(
                lesion_rows, [side_of(a) == a.target["label"] for a in lesion_rows], "side"
            )
        if "ventricle" in answers:
            off = [
                abs(a.prediction["ventricle"] - a.target["ventricle"]) for a in answers["ventricle"]
            ]
            values["ventricle"] = self._mean(answers["ventricle"], off, "ventricle")
        if "mask" in answers:
            with_mask = [a for a in answers["mask"] if a.prediction["scores"]["wanted"]]
            values["dice"] = self._mean(
                with_mask, [a.prediction["scores"]["dice"] for a in with_mask], "dice"
            )
            with_distance = [a for a in with_mask if a.prediction["scores"]["hd95"] is not None]
            values["hd95"] = self._mean(
                with_distance, [a.prediction["scores"]["hd95"] for a in with_distance], "hd95"
            )
            missed = [not a.prediction["scores"]["found"] for a in with_mask]
            values["missed"] = self._mean(with_mask, missed, "missed")
        if "box" in answers:
            with_mask = [a for a in answers["box"] if a.target["boxes"]]
            values["box"] = self._mean(with_mask, [hit(a) for a in with_mask], "box")
        if "recall" in answers:
            values["recall"] = self._recall(answers["recall"])
        return values

    def _classes(self, rows: Sequence[Answer]) -> BootstrapMetric:
        classes = list(rows[0].prediction["scores"])
        scores = np.array([[a.prediction["scores"][c] for c in classes] for a in rows])
        targets = np.array([classes.index(a.target["label"]) for a in rows])
        return auroc(scores, targets, [self.study(a) for a in rows])

    def _mean(
        self, rows: Sequence[Answer], values: Sequence[float], column: str
    ) -> BootstrapMetric:
        better = -1 if column in LESS else 1
        study = [self.study(a) for a in rows]
        return ratio(values, study, better=better, chance=self.chance.get(column))

    def _recall(self, rows: Sequence[Answer]) -> BootstrapMetric:
        """Each series queries reports, one a study; a hit is one that states the same."""
        study = np.array([self.study(a) for a in rows])
        volumes = np.array([a.prediction["volume"] for a in rows])  # [N, D]
        first = [int(np.argmax(study == index)) for index in range(len(self.studies))]
        texts = np.array([rows[index].prediction["report"] for index in first])  # [S, D]
        ranked = np.argsort(-volumes @ texts.T, axis=1, kind="stable")
        return self._mean(rows, recall(ranked.tolist(), self.same[study], K), "recall")

    def reports_of(self, texts: Sequence[str], rows: Sequence[Answer]) -> BootstrapMetric:
        """F1 of the facts that texts state, against the rows' references."""
        right, all_of = [], []
        for text, row in zip(texts, rows, strict=True):
            predicted, expected = self.facts.of(text), self.facts.of(row.target["references"][0])
            right.append(2.0 * self.facts.agreeing(predicted, expected))
            all_of.append(float(len(predicted) + len(expected)))
        return ratio(right, [self.study(a) for a in rows], all_of)


def same_facts(facts: Facts, texts: Sequence[str]) -> np.ndarray:
    """Return `[S, S]` bool: does the second text state what the first does, no more and no less?"""
    stated = [facts.of(text) for text in texts]
    return np.array(
        [[len(b) == len(a) == facts.agreeing(b, a) for b in stated] for a in stated]
    )  # fmt: skip


def side_of(answer: Answer) -> str:
    """Left or right, whichever is likelier; the kind of lesion is not evaluated here."""
    scores = answer.prediction["scores"]
    return "left" if scores.get("left", 0.0) > scores.get("right", 0.0) else "right"


def hit(answer: Answer) -> float:
    """Does the centre of the surest box lie in the true one?"""
    metrics = BoxMetrics()
    metrics.update([answer.prediction], [answer.target])
    return metrics.compute()["box_hit"]
