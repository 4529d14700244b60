"""make demo: classify scanned digits, freeze what was learned, and describe them in words.

python -m sensorium.scripts.examples.demo [--out runs/demo]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def main(
    out: Annotated[Path, typer.Option(help="where the two runs and the page go")] = Path(
        "runs/demo"
    ),
) -> None:
    """Train both, score them on pictures that training has not seen, write report.html."""
    import shutil

    from sensorium.engine.checkpoint import load_model
    from sensorium.engine.evaluation import evaluate, format_evaluation, input_streams
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.report import write_report
    from sensorium.engine.training import train
    from sensorium.engine.utils import RunLogger

    began = time.perf_counter()
    classifier, captioner = out / "classifier", out / "captioner"
    frozen = [
        f"inputs.image.encoder.weights={classifier}",
        "inputs.image.encoder.freeze=true",
        "inputs.image.augment=null",  # what does not vary is computed once and kept
        "train.steps=500",
    ]
    stages: tuple[tuple[str, str, list[str], Path], ...] = (
        ("a small ViT learns the digits", "configs/classification/digits.yaml", [], classifier),
        ("frozen, it is described in words", "configs/captioning/digits.yaml", frozen, captioner),
    )
    shutil.rmtree(out, ignore_errors=True)
    metrics: dict[str, dict[str, float]] = {}
    streams: dict[str, tuple[str, ...]] = {}
    for i, (what, recipe, overrides, folder) in enumerate(stages):
        sys.stderr.write(f"\n[{i + 1}/{len(stages)}] {what}: {recipe}\n")
        command = " ".join(["sensorium", "train", recipe, *overrides])
        train(load_recipe(recipe, overrides), folder, command=command)
        model = load_model(folder)
        streams |= input_streams(model.plan)
        metrics |= evaluate(model, log=RunLogger(None), folder=folder)
    page = write_report([captioner, classifier], out / "report.html")
    print(format_evaluation(metrics, streams))
    for line in (captioner / "predictions-caption.jsonl").read_text().splitlines()[:5]:
        row = json.loads(line)
        print(f"{row['key']:>12}: {row['prediction']['text']}")
    print(f"\n{page}\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    from sensorium.engine.utils import console

    with console():
        typer.run(main)
