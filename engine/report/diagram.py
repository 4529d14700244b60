"""The pipeline of a recipe as boxes: inputs, encoders, connectors, decoder, tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..recipe import BACKBONE, FreezeAllButLast, Recipe, ResolvedRecipe, Section

_ROW = re.compile(r"^\| (\S+) \| [^|]+ \| [^|]+ \| ([\d,]+) \| [^|]+ \|$", re.MULTILINE)


@dataclass(frozen=True)
class Box:
    """role: of the part. trained: `frozen`, `trained`, ...; empty without parameters. size: its
    parameters, if the run's card has them."""

    role: str
    title: str
    detail: str = ""
    trained: str = ""
    size: str = ""

    @property
    def frozen(self) -> bool:
        return self.trained == "frozen"


@dataclass(frozen=True)
class PipelineDiagram:
    """Boxes of the diagram, from left to right.

    lanes: one list of boxes per input, in order; empty if the recipe has no inputs.
    decoders: the backbone first; empty if the recipe has none.
    """

    lanes: list[list[Box]]
    decoders: list[Box]
    tasks: list[Box]

    @property
    def longest(self) -> int:
        return max((len(lane) for lane in self.lanes), default=0)

    @property
    def aria_label(self) -> str:
        """The diagram in words."""
        lanes = " and ".join(", then ".join(_in_words(box) for box in lane) for lane in self.lanes)
        decoders = " and ".join(_in_words(box) for box in self.decoders)
        tasks = " and ".join(_in_words(box) for box in self.tasks)
        return ", then ".join(filter(None, (lanes, decoders, tasks)))


def pipeline_diagram(
    recipe: Recipe, card: str, plan: ResolvedRecipe | None = None
) -> PipelineDiagram:
    """Return the boxes of a recipe.

    card: the run's README.md, or nothing. plan: defines which streams a task takes, and whether
    through the decoder.
    """
    sizes = {path: _short(number) for path, number in _ROW.findall(card)}
    lanes = []
    for name, stream in recipe.inputs.items():
        path = f"inputs.{name}"
        varied = "varied in training" if stream.augment is not None else ""
        lane = [Box("input", name, ", ".join(filter(None, (stream.modality, varied))))]
        lane.append(_part("encoder", f"{path}.encoder", stream.encoder, sizes))
        if stream.connector is not None:
            lane.append(_part("connector", f"{path}.connector", stream.connector, sizes))
        lanes.append(lane)
    sections = {} if recipe.backbone is None else {BACKBONE: recipe.backbone}
    sections |= {f"decoders.{name}": section for name, section in recipe.decoders.items()}
    decoders = [_part("decoder", path, section, sizes) for path, section in sections.items()]
    tasks = [
        Box("task", name, _takes(recipe, name, plan), size=_heads(f"tasks.{name}.", sizes))
        for name in recipe.tasks
    ]
    return PipelineDiagram(lanes, decoders, tasks)


def _takes(recipe: Recipe, name: str, plan: ResolvedRecipe | None) -> str:
    """Return a task's type, and which of the earlier boxes it does not use."""
    labels = [recipe.tasks[name].type]
    if plan is not None:
        task = plan.tasks[name].task
        if set(task.streams) != set(recipe.inputs):
            labels.append(f"of {' and '.join(dict.fromkeys(task.streams))}")
        if (recipe.backbone or recipe.decoders) and not task.decoders:
            labels.append("without the decoder")
    return ", ".join(labels)


def _part(role: str, path: str, section: Section, sizes: Mapping[str, str]) -> Box:
    if (share := getattr(section, "share", None)) is not None:
        return Box(role, f"shared with {share}")
    name, weights = section.options.get("name", ""), section.weights
    initialization = f"weights: {weights}" if weights not in (None, "none") else ""
    detail = ", ".join(str(text) for text in (name, initialization) if text)
    return Box(role, section.type, detail, _trained(section), sizes.get(path, ""))


def _trained(section: Section) -> str:
    bits = f", {section.quantize}" if section.quantize else ""
    return _what_trains(section) + bits


def _what_trains(section: Section) -> str:
    frozen = section.freeze
    if section.train_only is not None:
        only = section.train_only
        name = only if isinstance(only, str) else only.get("type", next(iter(only)))
        return f"{name} trained"
    if section.lora is not None:
        method = str(section.lora.get("type", "lora")).replace("lora", "LoRA")
        return f"{method} r {section.lora['r']}" if "r" in section.lora else method
    if isinstance(frozen, FreezeAllButLast):
        return f"last {frozen.last} blocks trained"
    return "frozen" if frozen else "trained"


def _heads(path: str, sizes: Mapping[str, str]) -> str:
    heads = {k.removeprefix(path): v for k, v in sizes.items() if k.startswith(path)}
    return ", ".join(f"{name} {size}" for name, size in heads.items())


def _short(number: str) -> str:
    count = int(number.replace(",", ""))
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}\N{NO-BREAK SPACE}{sign}"
    return str(count)


def _in_words(box: Box) -> str:
    return " ".join(filter(None, (box.role, box.title, box.trained)))
