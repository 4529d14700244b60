"""The model card of a run: what it is made of, what it was trained on, how well it does."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

from ..model import Model, count_own_parameters
from ..model.parameters import is_frozen
from ..utils import read_metrics, write_text

_CARD = """---
library_name: sensorium
tags: [sensorium, multimodal]
---
# {name}

{command}
Load it with `sensorium.load("{folder}")`. The recipe, resolved, stands in `recipe.yaml`.

## Parts

| part | type | weights | parameters | trained |
|---|---|---|---|---|
{parts}

## Data

| task | split | source |
|---|---|---|
{data}

## Metrics

{metrics}

Made with sensorium {sensorium}, torch {torch}, transformers {transformers}, Python {python}.
"""


def read_command(folder: Path) -> str:
    """Return the command that made a run: the first line of its recipe, where it is a comment."""
    path = folder / "recipe.yaml"
    first = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else ""
    return first.removeprefix("# ") if first.startswith("# ") else ""


def command_header(command: str) -> str:
    """Return the first line of a run's recipe."""
    return f"# {command}\n" if command else ""


def write_card(model: Model, folder: Path) -> None:
    """Write `README.md`: parts, data, the metrics of `evaluation.json` or the last validation."""
    command = model.command
    parts = [
        f"| {c.where} | {c.plan.section.type} | {c.plan.weights} | "
        f"{count_own_parameters(model, c):,} | "
        f"{'no' if is_frozen(c.module) else f'{count_own_parameters(model, c, True):,}'} |"
        for c in model.components
        if count_own_parameters(model, c)
    ]
    data = [
        f"| {task} | {split} | {section.source} {section.options or ''} |"
        for task, s in model.plan.recipe.tasks.items()
        for split, section in s.data.items()
    ]
    text = _CARD.format(
        name=folder.name,
        folder=folder.name,
        command=f"Trained by `{command}`.\n" if command else "",
        parts="\n".join(parts),
        data="\n".join(data),
        metrics=_metrics(folder),
        sensorium=version("sensorium"),
        torch=version("torch"),
        transformers=version("transformers"),
        python=platform.python_version(),
    )
    write_text(folder / "README.md", text)


def _metrics(folder: Path) -> str:
    metrics: dict[str, dict[str, float | None]] = {}
    where = "evaluation.json"
    if (folder / where).is_file():
        metrics = json.loads((folder / where).read_text(encoding="utf-8"))
    else:
        for line in read_metrics(folder):
            if "validation" in line:
                metrics, where = line["validation"], f"validation at step {line['step']}"
    if not metrics:
        return "Not evaluated yet: `sensorium evaluate`."
    rows = [
        f"| {task} | {m} | {'not defined' if v is None else format(v, '.4g')} |"
        for task, ms in metrics.items()
        for m, v in ms.items()
    ]
    return f"From {where}.\n\n| task | metric | value |\n|---|---|---|\n" + "\n".join(rows)
