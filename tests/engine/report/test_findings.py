"""What a row says is in its picture or volume is drawn there, whatever the task predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.report import write_look
from sensorium.engine.report.judge import judge
from sensorium.engine.report.look import cell_text
from sensorium.engine.report.previews import findings
from sensorium.engine.report.samples import ReportRow, SampleGrid
from sensorium.modalities.image.preview import preview as preview_picture
from sensorium.modalities.mri.io.read import example, read
from sensorium.modalities.mri.preview import preview as preview_volume

BACKBONE = {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"}
LEGEND = "green: reference"


def look(stream: str, part: dict[str, Any], data: dict[str, Any], page: Path) -> str:
    task = {
        "type": "captioning",
        "prompt": f"<{stream}>",
        "target": "{text}",
        "data": {"train": data},
    }
    values = {
        "inputs": {stream: {**part, "connector": "mlp"}},
        "backbone": BACKBONE,
        "tasks": {"describe": task},
    }
    return write_look(parse_recipe(values), page).read_text("utf-8")


def test_cells_of_streams_are_no_findings() -> None:
    row = {"mask": "m.png", "box": np.arange(4), "text": "a"}
    assert findings(row, ()) == {"mask": "m.png", "boxes": [[0, 1, 2, 3]]}
    assert findings(row, ("mask", "box")) == {}
    assert findings({"boxes": "top left", "box": None, "mask": None}, ()) == {}


@pytest.mark.parametrize(
    ("cells", "drawn"),
    [
        ({"boxes": [[2, 2, 9, 9]]}, True),
        ({"box": [2, 2, 9, 9]}, True),
        ({"mask": {"size": [16, 16], "shapes": [[[2, 2, 9, 2, 9, 9]]]}}, True),
        ({"mask": "worn on the face"}, False),
        ({"boxes": []}, False),
        ({}, False),
    ],
)
def test_findings_of_a_picture(cells: dict[str, Any], drawn: bool, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "grey").save(tmp_path / "a.png")
    row = json.dumps({"image": "a.png", "text": "a thing", **cells})
    (tmp_path / "rows.jsonl").write_text(row)
    data = {"source": "json", "path": str(tmp_path / "rows.jsonl"), "paths": ["image"]}
    encoder = {"type": "patches", "size": 16, "patch_size": 8, "dim": 8}
    page = look("image", {"modality": "image", "encoder": encoder}, data, tmp_path / "look.html")
    assert (LEGEND in page) is drawn
    assert page.count("<img") == 1


def test_lesions_of_volumes_and_no_others(tmp_path: Path) -> None:
    """A page has as many legends as rows with a lesion that the scan's voxels hold."""
    encoder = {"type": "vit3d", "size": [8, 8, 8], "spacing": [24, 24, 24], "patch": [4, 4, 4],
               "dim": 8, "depth": 1, "heads": 1}  # fmt: skip
    part = {"modality": "mri", "encoder": encoder}
    counts = {}
    for healthy in (0.0, 0.99):
        data = {"source": "phantom", "subjects": 4, "sequences": ["T1w"], "spacing": 6,
                "healthy": healthy, "columns": {"text": "report"}}  # fmt: skip
        page = look("volume", part, data, tmp_path / "look.html")
        counts[healthy] = page.count(LEGEND), page.count("<img")
        assert "Cell(" not in page
    assert counts == {0.0: (4, 4), 0.99: (0, 4)}


def test_a_strip_of_slices_takes_a_wide_sample() -> None:
    def grid(html: str) -> str:
        row = ReportRow("0", judge({"text": "a"}, {"text": "a"}), "", {"text": "a"}, {"text": "a"})
        row.inputs = [("input", Markup(html))]
        return SampleGrid("test", 1, [("Right", [row])]).grid

    assert grid(preview_volume(read(example(np.random.default_rng(0))))) == "wide"
    assert grid(preview_picture(Image.new("RGB", (8, 8)))) == ""


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "None"),
        ({"path": "a.wav", "start": 2.5}, "path: a.wav, start: 2.5"),
        ([{"text": "a", "mask": None}, 3], "text: a, mask: None; 3"),
        (object(), "(object)"),
        (np.zeros((3, 4)), "(ndarray)"),
    ],
)
def test_cells_are_short(cell: Any, text: str) -> None:
    assert cell_text(cell) == text
