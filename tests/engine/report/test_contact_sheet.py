"""A retrieval on the page of its run."""

from __future__ import annotations

import json
from pathlib import Path

from sensorium.engine.report import write_report
from sensorium.engine.report.contact_sheet import SHEETS
from sensorium.modalities.image.datasets.shapes import Shapes

RETRIEVAL = """
inputs:
  image:
    modality: image
    encoder: {type: patches, size: 64, patch_size: 16, dim: 16}
    connector: mean
  caption:
    modality: text
    encoder: {type: causal_lm, config: {model_type: llama, hidden_size: 16}, tokenizer: bytes}
    connector: mean
tasks:
  match:
    type: contrastive
    streams: [image, caption]
    data: {test: {source: shapes, split: test, count: 6}}
"""


def test_a_retrieval_is_shown_as_contact_sheets(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RETRIEVAL)
    keys = [Shapes(split="test", count=6).key(i) for i in range(6)]
    with (tmp_path / "predictions-match.jsonl").open("w") as file:
        for key in keys:
            answer = {"rank": 2, "nearest": keys[:3]}
            prediction = {"image_to_caption": answer, "caption_to_image": answer}
            file.write(json.dumps({"key": key, "prediction": prediction, "target": {}}) + "\n")
    page = write_report([tmp_path], tmp_path / "report.html").read_text("utf-8")
    assert "cannot be shown" not in page
    assert page.count('<div class="sheet">') == 2 * SHEETS
    assert page.count("caption to image, right answer: rank 2") == SHEETS
    assert page.count('<li class="sample') == 3 * 2 * SHEETS
    assert page.count('<li class="sample right">') == 2 * SHEETS
