"""The runs of `mri_benchmark`: which recipe, with which changes, where, and the predictions of
each.

Every run is a recipe of `configs/mri` and a folder; one that is whole is read, not trained again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sensorium.engine.checkpoint import load_model
from sensorium.engine.data import load_split, task_dataset
from sensorium.engine.evaluation import Evaluator
from sensorium.engine.model import FeatureCacher, build
from sensorium.engine.recipe import WEIGHTS, Recipe, load_recipe, parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import init_accelerator, pick
from sensorium.scripts.benchmarks.timing import Times, timed

SPENT, FEATURES, GRID = "spent.json", "features", "grid.json"
GROUNDED, PLAIN, RANDOM, SLICES, NOTHING = "grounded", "aligned", "random", "slices", "nothing"
FROZEN = (GROUNDED, PLAIN, RANDOM, SLICES)

LEAST = 16
"""Rows of a batch of predictions, at least."""
STEPS = 360
"""Of the network that is trained from nothing."""


class Head(NamedTuple):
    """recipe: below `configs/mri`. task: its name there. changes: of the recipe. placed: what reads
    every token at its place, and needs the encoder's grid."""

    recipe: str
    task: str
    changes: tuple[str, ...] = ()
    placed: str | None = None


LINEAR = "tasks.sequence.head=linear"
SIDE = ("tasks.sequence.target=side", "tasks.sequence.head={type: flatten}", "train.steps=300")
RECALL = (
    "inputs.volume.connector={type: flatten}",
    "train.steps=450",
    "train.optimizer.lr=3e-3",
    "cache.features=true",
)
HEADS = {
    "sequence": Head("sequence", "sequence"),
    "cls": Head("sequence", "sequence", (LINEAR,)),
    "mean": Head("sequence", "sequence", (LINEAR, "inputs.volume.connector=mean")),
    "side": Head("sequence", "sequence", SIDE, "tasks.sequence.head"),
    "ventricle": Head("ventricle", "ventricle", (), "tasks.ventricle.head"),
    "box": Head("localization", "lesion"),
    "mask": Head("segmentation", "lesion"),
    "recall": Head("align", "match", RECALL, "inputs.volume.connector"),
}
TOGETHER = ("sequence", "side", "ventricle", "box", "mask", "recall")
"""Heads of the network that is trained from nothing, which learns them side by side."""


VECTORS = ("cls", "mean")
"""Heads that evaluate an encoder's own vectors."""


class Answer(NamedTuple):
    """The prediction of a run for a row of the test split."""

    key: str
    prediction: Any
    target: dict[str, Any]


SLICED = """{type: slices, size: [48, 48, 48], spacing: [4, 4, 4], every: 4, heads: 6,
freeze: true, weights: none, encoder: {type: timm, name: vit_tiny_patch16_224, weights: none,
options: {img_size: 48, patch_size: 8, embed_dim: 144, depth: 3, num_heads: 6}}}"""
"""The encoder of slices, as large as the one of volumes."""


@dataclass(frozen=True)
class Sizes:
    """subjects, held: with labels, and of the evaluated split. seen: subjects of the stages
    before the heads, if not the recipes' own. steps, batch: of the stages (and `nothing`), if not
    the recipes' own. effort: by which the heads' steps are multiplied. encoder: further options of
    the encoder, KEY=VALUE."""

    subjects: int = 250
    held: int = 75
    seen: int | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    effort: float = 1.0
    batch: int | None = None
    encoder: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """out: where the runs are. slices: the encoder of slices, YAML. split: to evaluate."""

    out: Path
    sizes: Sizes = field(default_factory=Sizes)
    slices: str = SLICED
    split: str = "test"

    def stage(self, name: str, before: str | None = None) -> Path:
        """Return a stage by its recipe; `before`: the stage whose weights it begins with."""
        changes = [] if before is None else [f"inputs.volume.encoder.weights={self.out / before}"]
        if before == "dino":
            changes[0] += ":volume.ema"
        if name in self.sizes.steps:
            changes.append(f"train.steps={self.sizes.steps[name]}")
        if self.sizes.batch is not None:
            changes.append(f"train.batch_size={self.sizes.batch}")
        subjects = self.sizes.subjects if name == "report" else self.sizes.seen
        return self._trained(name, self._recipe(name, changes, subjects))

    def head(self, which: str, encoder: str, share: float) -> Path:
        """Return a head on a frozen encoder, trained with a share of the labels."""
        name = f"{encoder}/{which}-{100 * share:g}"
        return self._trained(name, self.head_recipe(which, encoder, share))

    def heads(self, encoder: str, share: float) -> None:
        """All heads on a frozen encoder, and the predictions of each."""
        for which in heads_of(encoder):
            answers(self.head(which, encoder, share), HEADS[which].task, self.split)

    def head_recipe(self, which: str, encoder: str, share: float) -> Recipe:
        head, rows = HEADS[which], self.rows(share)
        changes = [
            *self._frozen(encoder),
            *head.changes,
            *([f"{head.placed}.grid={self.grid(encoder)}"] if head.placed else []),
            "train.validate=null",
            f"tasks.{head.task}.data.train.limit={rows}",
        ]
        if which == "mask" and encoder == SLICES:  # it supports no layers
            changes.append("tasks.lesion.head.layers=[]")
        without_encoder = encoder == SLICES
        train_section = self._recipe(
            head.recipe, changes, self.sizes.subjects, without_encoder
        ).train
        changes += [
            f"train.steps={max(1, round(train_section.steps * self.sizes.effort))}",
            f"train.batch_size={min(train_section.batch_size, rows)}",
        ]
        return self._recipe(head.recipe, changes, self.sizes.subjects, without_encoder)

    def features(self, encoder: str) -> Path:
        """Return the pass of a frozen encoder over the training split, before any head."""
        folder = self.out / encoder / FEATURES
        if not (folder / SPENT).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            model = build(self.head_recipe("sequence", encoder, 1.0))
            (name,) = model.plan.tasks
            source = load_split(model.plan, name, "train")
            rows = task_dataset(model.plan, model.encoders(), name, source)
            filler = FeatureCacher(model.plan, model, pick(), "fp32", 32)
            _write_times(folder, timed(lambda: filler.attach([rows])))
            grid = rows.prepare(0).records["volume"][0]["grid"]
            (folder / GRID).write_text(json.dumps([int(n) for n in grid]), encoding="utf-8")
        return folder

    def grid(self, encoder: str) -> list[int]:
        """Of a frozen encoder's tokens."""
        grid_of: list[int] = json.loads((self.features(encoder) / GRID).read_text("utf-8"))
        return grid_of

    def nothing(self, share: float) -> Path:
        """Return all heads and the network under them, trained together from nothing, and what they
        answer; with few labels for half as long."""
        steps = self.sizes.steps.get(NOTHING, STEPS)
        recipe = self._together(share, steps if share == 1 else max(1, steps // 2))
        folder = self._trained(f"{NOTHING}/all-{100 * share:g}", recipe)
        for head in TOGETHER:
            answers(folder, head, self.split)
        return folder

    def rows(self, share: float) -> int:
        """Series with a label: four a subject."""
        return max(1, round(4 * self.sizes.subjects * share))

    def _frozen(self, encoder: str) -> list[str]:
        if encoder == SLICES:
            return [f"inputs.volume.encoder={self.slices}"]
        weights = {GROUNDED: self.out / "align_grounded", PLAIN: self.out / "align"}.get(encoder)
        at = "inputs.volume.encoder"
        return [f"{at}.freeze=true", f"{at}.weights={weights or 'none'}"]

    def _recipe(
        self, name: str, changes: Sequence[str], subjects: int | None, plain: bool = False
    ) -> Recipe:
        """subjects: of the training split, if not the recipe's own. plain: without `encoder`."""
        path = f"configs/mri/{name}.yaml"
        sizes = {"train": subjects, self.split: self.sizes.held}
        data = [
            f"tasks.{task}.data.{split}.subjects={size}"
            for task, section in load_recipe(path).tasks.items()
            for split, size in sizes.items()
            if split in section.data and size is not None
        ]
        overrides_of = (
            [] if plain else [f"inputs.volume.encoder.{text}" for text in self.sizes.encoder]
        )
        return load_recipe(path, [*data, *overrides_of, *changes])

    def _together(self, share: float, steps: int) -> Recipe:
        """Return the heads' recipes as one; they read the connector's output, on its grid."""
        values: dict[str, Any] = {"inputs": {}, "tasks": {}}
        for which in TOGETHER:
            head = HEADS[which]
            joined = self.head_recipe(which, RANDOM, share).to_dict()
            values["inputs"] = {**joined["inputs"], **values["inputs"]}
            values["tasks"][which] = joined["tasks"][head.task]
        values["inputs"]["volume"]["encoder"]["freeze"] = False
        values["inputs"]["volume"]["connector"] = "mlp"
        values["train"] = {
            "steps": steps,
            "batch_size": min(self.sizes.batch or 16, self.rows(share)),
            "optimizer": {"type": "adamw", "lr": 1e-3, "betas": [0.9, 0.98]},
        }
        values["cache"] = {"samples": True, "features": False}
        return parse_recipe(values)

    def _trained(self, name: str, recipe: Recipe) -> Path:
        """Return a run; one that was interrupted is resumed."""
        folder = self.out / name
        if not (folder / WEIGHTS).is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started = (folder / "recipe.yaml").is_file()
                times = timed(
                    lambda: train(
                        recipe, folder, resume=started, show=False, command="mri_benchmark"
                    )
                )
            _write_times(folder, times)
        return folder


def heads_of(encoder: str) -> list[str]:
    """Return those that it has: slices have no vector of the whole."""
    return [head for head in HEADS if encoder != SLICES or head not in VECTORS]


def _write_times(folder: Path, times: Times) -> None:
    (folder / SPENT).write_text(json.dumps(times._asdict()) + "\n", encoding="utf-8")


def spent(folder: Path) -> Times:
    """Return seconds of a run's training; none where they were not written."""
    path = folder / SPENT
    return Times(**json.loads(path.read_text("utf-8"))) if path.is_file() else Times(0.0, 0.0)


def answers(folder: Path, task: str, split: str = "test") -> list[Answer]:
    """Return a run's predictions for every row of a split, cached beside it."""
    cached = folder / f"answers-{task}-{split}.json"
    if not cached.is_file():
        predictions = _predict(folder, task, split)
        cached.write_text(json.dumps(predictions), encoding="utf-8")
    return [Answer(*row) for row in json.loads(cached.read_text("utf-8"))]


def _predict(folder: Path, task: str, split: str) -> list[Answer]:
    model = load_model(folder)
    plan, settings = model.plan, model.plan.recipe.train
    rows = task_dataset(plan, model.encoders(), task, load_split(plan, task, split))
    accelerator = init_accelerator()
    size = max(settings.batch_size, LEAST)
    FeatureCacher(plan, model, accelerator.device, model.precision, size).attach([rows])
    scored = Evaluator(model.to(accelerator.device), size, accelerator).score(rows, full=True)
    return [
        Answer(*row) for row in zip(scored.keys, scored.predictions, scored.targets, strict=True)
    ]
