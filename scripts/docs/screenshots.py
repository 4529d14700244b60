"""python -m sensorium.scripts.docs.screenshots [FOLDER]: pictures of a report for the site

They are made with each build by a headless Chromium, from a run that is trained here; without one
the page says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image, ImageChops

from sensorium.engine.utils import RuntimeFailure, write_text

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 120
MARGIN = 16
WIDTH, HEIGHT = 1200, 8000
"""px of a picture; one of a shorter page ends with it."""

SHOTS = {
    "report": "The report of a run: `sensorium report runs/digits`",
    "explain": "What a prediction rests on: `sensorium explain runs/digits`",
    "look": "Rows before anything is trained: `sensorium look digits.yaml`",
}
"""Name of a picture -> its caption."""

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 32, "patch_size": 8, "dim": 64,
                        "stem": [16, 32, 48]},
        }
    },
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "target": "word",
            "data": {
                "train": {"source": "digits", "split": "train", "holdout": 0.1},
                "test": {"source": "digits", "split": "test", "limit": 100},
            },
        }
    },
    "train": {"steps": 150, "batch_size": 64, "optimizer": {"lr": 2e-3}, "log_every": 5,
              "validate": {"every": 50}},
}  # fmt: skip


def browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def capture(program: str, page: Path | str, picture: Path, width: int, height: int) -> None:
    """Write a picture of a page, `width` by at most `height` px: what is empty below the page is
    left out. Raise RuntimeFailure if there is none."""
    address = page if isinstance(page, str) else page.absolute().as_uri()
    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},{height}",
        f"--screenshot={picture.absolute()}",
        address,
    ]
    picture.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeFailure(f"{program}: no picture of {address} in {SECONDS} s") from None
    if done.returncode or not picture.is_file():
        reason = " ".join(done.stderr.split())[-400:]
        raise RuntimeFailure(f"{program}: no picture of {address}: {reason}")
    trim(picture)


def trim(picture: Path) -> None:
    """Cut the rows at the bottom of a picture that are all of one colour, but for a margin."""
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    below = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    filled = ImageChops.difference(image, below).getbbox()
    if filled is not None:
        image.crop((0, 0, image.width, min(image.height, filled[3] + MARGIN))).save(picture)


def make_pages(folder: Path) -> Mapping[str, Path]:
    """Train a small run in a folder, and return the pages that are pictured."""
    from sensorium.engine.data import load_split
    from sensorium.engine.evaluation import evaluate
    from sensorium.engine.evaluation.attribution import explain, write_explanation
    from sensorium.engine.inference import Pipeline
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.report import write_look, write_report
    from sensorium.engine.training import train

    recipe, run = parse_recipe(RECIPE), folder / "digits"
    model = train(recipe, run, show=False, command="sensorium train digits.yaml")
    evaluate(model, folder=run)
    row = {"image": load_split(model.plan, "digit", "test")[0]["image"]}
    explanation = explain(Pipeline(model), "digit", row)
    return {
        "report": write_report([run], folder / "report.html"),
        "explain": write_explanation(explanation, folder / "explain.html"),
        "look": write_look(recipe, folder / "look.html", rows=8, split="train"),
    }


def screens_page(pictures: Mapping[str, str], reason: str = "") -> str:
    """Return the page of the pictures in Markdown. reason: why there are none."""
    lines = [
        "# Screens",
        "",
        "Pictures of the pages that the verbs write, made with this build.",
        "",
    ]
    if not pictures:
        lines += [f"There are none here: {reason}.", ""]
    for name, path in pictures.items():
        caption = SHOTS[name]
        lines += [f"## {name.capitalize()}", "", caption, "", f"![{name}]({path})", ""]
    return "\n".join(lines)


def main(
    folder: Annotated[Path, typer.Argument(help="of the site")] = ROOT / "docs",
) -> None:
    """Write the page of pictures, and the pictures, into `reference` of the site's folder."""
    target, program = folder / "reference", browser()
    target.mkdir(parents=True, exist_ok=True)
    if program is None:
        reason = "no Chromium was found where the site was built"
        print(f"screenshots: left out, {reason}")
        write_text(target / "screens.md", screens_page({}, reason))
        return
    pictures = {}
    with tempfile.TemporaryDirectory() as work:
        os.environ.setdefault("SENSORIUM_CACHE", str(Path(work) / "cache"))
        for name, page in make_pages(Path(work)).items():
            capture(program, page, target / "screens" / f"{name}.png", WIDTH, HEIGHT)
            pictures[name] = f"screens/{name}.png"
    write_text(target / "screens.md", screens_page(pictures))
    print(target / "screens.md")


if __name__ == "__main__":
    from sensorium.engine.utils import console

    with console():
        typer.run(main)
