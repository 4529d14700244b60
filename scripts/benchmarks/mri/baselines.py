"""Rows that expose shortcuts: scores without any network, in the form of a run's predictions.

`majority` looks at nothing; `histogram` at how often each intensity is there; `blocks` at the mean
of every block of voxels. Logistic and ridge regression on the last two.

Legend: `N` rows, `F` features, `X Y Z` voxels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sensorium.engine.data import TaskDataset, load_split, task_dataset
from sensorium.engine.model import FeatureCacher, build
from sensorium.engine.recipe import Recipe
from sensorium.modalities.base import Sample
from sensorium.scripts.benchmarks.mri.runs import Answer

BINS = np.linspace(-3, 4, 49)
"""Deviations from the mean of the body."""
BLOCKS = 6
"""An axis."""
BASELINES = ("majority", "histogram", "blocks")


class IntensityBaselines:
    """The rows of a recipe's splits, as plain numbers.

    features: by split and way `[N, F]`. rows: by split, the rows' keys and labels.
    """

    def __init__(self, recipe: Recipe, splits: Sequence[str] = ("train", "test")) -> None:
        (task,) = recipe.tasks
        model = build(recipe)
        plan = model.plan
        self.rows: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.features: dict[tuple[str, str], np.ndarray] = {}
        for split in splits:
            source = load_split(plan, task, split)
            rows = task_dataset(plan, model.encoders(), task, source, streams=["volume"])
            FeatureCacher(plan, model, model.device, "fp32", 16).attach([rows])
            rows.readers["volume"].features = None
            self._read(split, rows)

    def _read(self, split: str, rows: TaskDataset) -> None:
        keys_of, features_of = [], []
        for i in range(len(rows)):
            prepared = rows.load(i)
            row, sample = prepared.row, prepared.samples["volume"][0]["main"]
            features_of.append((histogram(sample), blocks(sample)))
            box = row["box"]() if row["box"] is not None else None
            labels = {k: row[k] for k in ("sequence", "side", "ventricle")}
            keys_of.append((prepared.key, {**labels, "box": box}))
        self.rows[split] = keys_of
        for index, baseline in enumerate(("histogram", "blocks")):
            self.features[split, baseline] = np.stack([pair[index] for pair in features_of])
        self.features[split, "majority"] = np.zeros((len(keys_of), 1))

    def answers(self, baseline: str, count: int, split: str = "test") -> dict[str, list[Answer]]:
        """Return the predictions of a method for a split, learned from the first `count` rows of
        the training split."""
        train_features = self.features["train", baseline][:count]
        test_features = self.features[split, baseline]
        targets = [labels for _, labels in self.rows["train"][:count]]
        answers_of = {
            label: self._labels(label, train_features, targets, test_features, split)
            for label in ("sequence", "side")
        }
        sizes = np.array([labels["ventricle"] for labels in targets])
        numbers = ridge(train_features, sizes, test_features)
        answers_of["ventricle"] = [
            Answer(key, {"ventricle": float(n)}, {"ventricle": labels["ventricle"]})
            for (key, labels), n in zip(self.rows[split], numbers, strict=True)
        ]
        answers_of["box"] = self._boxes(train_features, targets, test_features, split)
        return answers_of

    def _labels(
        self,
        label: str,
        train_features: np.ndarray,
        targets: list[dict[str, Any]],
        test_features: np.ndarray,
        split: str,
    ) -> list[Answer]:
        names = [labels[label] for labels in targets]
        scores = logistic(train_features, names, test_features)
        return [
            Answer(key, {"scores": scores_of}, {"label": labels[label]})
            for (key, labels), scores_of in zip(self.rows[split], scores, strict=True)
        ]

    def _boxes(
        self,
        train_features: np.ndarray,
        targets: list[dict[str, Any]],
        test_features: np.ndarray,
        split: str,
    ) -> list[Answer]:
        """Ridge regression of the corners; the majority predicts the box whose centre lies in
        most."""
        with_box = [i for i, labels in enumerate(targets) if labels["box"] is not None]
        boxes = np.array([targets[i]["box"] for i in with_box]).reshape(-1, 6)
        if np.ptp(train_features) == 0:
            boxes_of = np.tile(commonest(boxes), (len(test_features), 1))
        else:
            boxes_of = ridge(train_features[with_box], boxes, test_features)
        return [
            Answer(
                key,
                {"boxes": [box.tolist()], "scores": [1.0]},
                {"boxes": [] if labels["box"] is None else [labels["box"]]},
            )
            for (key, labels), box in zip(self.rows[split], boxes_of, strict=True)
        ]


def histogram(sample: Sample) -> np.ndarray:
    """Return `[F]` shares of the body's voxels by their intensity."""
    values = sample["volume"][0].numpy()
    counts, _ = np.histogram(values[values != 0], BINS)
    return np.asarray(counts / max(1, counts.sum()))


def blocks(sample: Sample) -> np.ndarray:
    """Return `[F]` means of blocks, `BLOCKS` along each axis."""
    parts = [np.array_split(np.arange(n), BLOCKS) for n in sample["volume"].shape[1:]]
    values = sample["volume"][0].numpy()
    for axis, part in enumerate(parts):
        values = np.stack([values.take(p, axis).mean(axis) for p in part], axis)
    return np.asarray(values.reshape(-1))


def commonest(boxes: np.ndarray) -> np.ndarray:
    """Of boxes `[N, 6]`, the one whose centre lies in the most of them."""
    centres = (boxes[:, :3] + boxes[:, 3:]) / 2
    inside = (centres[:, None] >= boxes[None, :, :3]) & (centres[:, None] <= boxes[None, :, 3:])
    return np.asarray(boxes[inside.all(-1).sum(1).argmax()])


def logistic(
    train_features: np.ndarray, names: list[str], test_features: np.ndarray
) -> list[dict[str, float]]:
    """Return a share of each class a row; constant features yield how common each class
    is."""
    if np.ptp(train_features) == 0:
        share = {name: count / len(names) for name, count in sorted(Counter(names).items())}
        return [share] * len(test_features)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.1))
    shares = model.fit(train_features, names).predict_proba(test_features)
    return [dict(zip(map(str, model.classes_), map(float, row), strict=True)) for row in shares]


def ridge(train_features: np.ndarray, targets: np.ndarray, test_features: np.ndarray) -> np.ndarray:
    """Numbers `[N, ...]`; constant features yield the mean."""
    if np.ptp(train_features) == 0:
        return np.broadcast_to(targets.mean(0), (len(test_features), *targets.shape[1:]))
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    return np.asarray(model.fit(train_features, targets).predict(test_features))
