"""The model card of a run: its parts, its training data and its scores."""

from __future__ import annotations

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from ..model import Model, count_own_parameters
from ..model.parameters import is_frozen
from ..utils import read_metrics, write_text

PIPELINE_TAGS = {
    ("image", "caption"): "image-to-text",
    ("image", "classify"): "image-classification",
    ("image", "segment"): "image-segmentation",
    ("image", "localize"): "object-detection",
    ("image", "embed"): "image-feature-extraction",
    ("audio", "transcribe"): "automatic-speech-recognition",
    ("audio", "classify"): "audio-classification",
    ("action", "act"): "robotics",
    ("text", "caption"): "text-generation",
    ("text", "classify"): "text-classification",
    ("text", "tag"): "token-classification",
}
"""The hub's pipeline tag of a model, by the modality of its first stream and its ability."""

_CARD = """---
{metadata}
---
# {name}

{command}
Load it with `sensorium.load("{folder}")`. The resolved recipe is in `recipe.yaml`.

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
        metadata=_metadata(model, folder),
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


def _metadata(model: Model, folder: Path) -> str:
    """Return the hub's metadata: the pipeline tag, the base models, its data and scores."""
    plan = model.plan
    hub = {str(c.plan.section.options.get("name")): c.plan for c in model.components}
    bases = [n for n, part in hub.items() if _HUB_ID.fullmatch(n) and part.weights != "none"]
    data = [(task, s) for task, t in plan.recipe.tasks.items() for s in t.data.values()]
    paths = {str(s.options.get("path")) for _, s in data if s.source == "hub"}
    tags = {"sensorium", "multimodal", *(stream.modality for stream in plan.recipe.inputs.values())}
    metrics, _ = _read_metrics(folder)
    results = [
        EvalResult(
            task_type=plan.recipe.tasks[name].type,
            dataset_type=plan.recipe.tasks[name].data[split or "test"].source,
            dataset_name=plan.recipe.tasks[name].data[split or "test"].source,
            metric_type=metric,
            metric_value=value,
        )
        for task, values in metrics.items()
        for name, _, split in [task.partition("@")]
        for metric, value in values.items()
        if value is not None
        and name in plan.recipe.tasks
        and (split or "test") in plan.recipe.tasks[name].data
        and not metric.endswith(("_shuffled", "_margin"))
    ]
    card = ModelCardData(
        library_name="sensorium",
        tags=sorted(tags),
        pipeline_tag=_pipeline_tag(model),
        base_model=sorted(bases) or None,
        datasets=sorted(paths) or None,
        model_name=folder.name if results else None,
        eval_results=results or None,
    )
    return card.to_yaml()


_HUB_ID = re.compile(r"(hf-hub:)?[\w.-]+/[\w.-]+(@[\w.-]+)?")


def _pipeline_tag(model: Model) -> str | None:
    """Return the hub's word for the first task that it has a word for."""
    for planned in model.plan.tasks.values():
        task = planned.task
        streams = list(task.inputs())
        modality = model.plan.recipe.inputs[streams[0]].modality if streams else "text"
        tag = PIPELINE_TAGS.get((modality, task.ability or "embed"))
        if tag is not None:
            return tag
    return None


def _read_metrics(folder: Path) -> tuple[dict[str, dict[str, float | None]], str]:
    """Return the metrics of an evaluation, or else of the last validation, and where they are."""
    metrics: dict[str, dict[str, float | None]] = {}
    where = "evaluation.json"
    if (folder / where).is_file():
        metrics = json.loads((folder / where).read_text(encoding="utf-8"))
    else:
        for line in read_metrics(folder):
            if "validation" in line:
                metrics, where = line["validation"], f"validation at step {line['step']}"
    return metrics, where


def _metrics(folder: Path) -> str:
    metrics, where = _read_metrics(folder)
    if not metrics:
        return "Not evaluated yet: `sensorium evaluate`."
    rows = [
        f"| {task} | {m} | {'not defined' if v is None else format(v, '.4g')} |"
        for task, ms in metrics.items()
        for m, v in ms.items()
    ]
    return f"From {where}.\n\n| task | metric | value |\n|---|---|---|\n" + "\n".join(rows)
