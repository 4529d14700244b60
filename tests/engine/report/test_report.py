"""The report: whole, self-contained, and harmless whatever a run's files hold."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.data import load_split
from sensorium.engine.recipe import load_recipe, parse, plan_recipe
from sensorium.engine.report import write_report
from sensorium.engine.utils import ConfigError
from sensorium.modalities.image.datasets.digits import Digits
from sensorium.modalities.image.preview import preview
from sensorium.modalities.image.read import read

HOSTILE = "<script>alert('x')</script> & <img src=https://example.org/x onerror=alert(1)>"
VOID = {"img", "meta", "br", "link", "hr"}
CLASSIFY = """
inputs:
  image: {modality: image, encoder: {type: patches, size: 8, patch_size: 4, dim: 8}}
tasks:
  digit:
    type: classification
    input: image
    target: word
    data:
      train: {source: digits, split: train, holdout: 0.1}
      test: {source: digits, split: test}
train: {steps: 40, validate: {every: 10, metric: digit/accuracy}}
"""
CAPTION = """
inputs:
  picture:
    modality: image
    encoder: {type: patches, size: 8, patch_size: 4, dim: 8, freeze: true}
    connector: mlp
  hint: {modality: text, encoder: {type: stranger:Encoder}}
backbone: {type: causal, name: tiny-llama, tokenizer: bytes, weights: none}
tasks:
  caption:
    type: captioning
    prompt: "<picture> <hint> Describe:"
    data: {test: {source: json, path: gone.jsonl}}
"""


class Page(HTMLParser):
    """Tags in balance, every attribute, and the text that a person sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        result = [attrs for name, attrs in self.tags if name == tag]
        return [a for a in result if kind in (a.get("class") or "").split()] if kind else result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished and evaluated run of a classifier, its predictions made up: 30 right, 10 wrong."""
    folder = tmp_path / "classifier"
    _write_run(folder, CLASSIFY)
    rows = Digits(split="test")
    lines = []
    for i in range(40):
        word = rows[i]["word"]
        label = word if i % 4 else "none of them"
        built = {"label": label, "score": 0.5, "scores": {word: 0.5}}
        lines.append({"key": rows.key(i), "prediction": built, "target": {"label": word}})
    _predictions(folder / "predictions-digit.jsonl", lines)
    result = {"accuracy": 0.75, "auroc": None, "batch_gap": 0.0}
    result |= {"accuracy_image_shuffled": 0.1, "auroc_image_shuffled": None}
    (folder / "evaluation.json").write_text(json.dumps({"digit": result}))
    return folder


def _write_run(folder: Path, recipe: str) -> None:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "README.md").write_text(
        "# x\n\nTrained by `sensorium train it.yaml`.\n\n"
        "| inputs.image.encoder | patches | none | 12,345 | no |\n"
    )
    log: list[dict[str, Any]] = []
    for step in range(1, 41):
        log.append({"step": step, "task": "digit", "loss": 2.5 * 0.8**step, "lr": 1e-3})
        if step % 10 == 0:
            metrics = {"accuracy": step / 40, "auroc": float("nan"), "cider_d": 2.0 + step}
            log.append({"step": step, "validation": {"digit": metrics}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def _predictions(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_page_is_whole_and_needs_nothing_else(run: Path, tmp_path: Path) -> None:
    page = Page(write_report([run], tmp_path / "deep" / "report.html"))
    assert page.open == []
    assert not page.all("script") and not page.all("link")
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attrs.get(name) or "data:").startswith(("data:", "#"))
    assert "url(" not in page.source.replace("url(#", "") and "@import" not in page.source


def test_page_says_what_was_run(run: Path, tmp_path: Path) -> None:
    text = Page(write_report([run], tmp_path / "r.html")).text
    assert "sensorium train it.yaml" in text
    assert "40 of 40" in text
    assert "12.3" in text  # the encoder's parameters, in thousands
    assert "split test" in text


def test_every_metric_stands_beside_its_shuffled_reading(run: Path, tmp_path: Path) -> None:
    page = Page(write_report([run], tmp_path / "r.html"))
    for text in ("accuracy", "0.7500", "image shuffled", "0.1000", "auroc", "not defined"):
        assert text in page.text
    assert "goes from 0.75 to 0.1: the model uses it" in page.text
    assert all("scope" in attrs for attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))


@pytest.mark.parametrize(("samples", "wrong"), [(8, 4), (24, 10), (100, 10), (0, 0)])
def test_samples_are_counted_and_wrong_ones_marked(
    run: Path, tmp_path: Path, samples: int, wrong: int
) -> None:
    page = Page(write_report([run], tmp_path / "r.html", samples=samples))
    assert len(page.all("li", "sample")) == min(samples, 40)
    assert len(page.all("li", "wrong")) == wrong
    pictures = page.all("img")
    assert len(pictures) == min(samples, 40)
    assert all(attrs["alt"] for attrs in pictures)


def test_a_sample_shows_the_picture_of_its_own_row(run: Path, tmp_path: Path) -> None:
    source = write_report([run], tmp_path / "r.html").read_text()
    rows = Digits(split="test")
    assert source.index(preview(read(rows[0]["image"]))) < source.index(f"{rows.key(0)}</p>")
    shown = re.findall(r"data:image/png;base64,([^\"]+)\"", source)
    expected = [i for i in range(40) if not i % 4][:10] + [i for i in range(40) if i % 4][:14]
    for data, i in zip(shown, expected, strict=True):
        assert data in preview(read(rows[i]["image"]))


def test_same_run_same_page(run: Path, tmp_path: Path) -> None:
    first = write_report([run], tmp_path / "a.html").read_bytes()
    assert write_report([run], tmp_path / "b.html").read_bytes() == first


def test_hostile_text_is_shown_and_never_run(run: Path, tmp_path: Path) -> None:
    line = {"key": HOSTILE, "prediction": {"text": HOSTILE}, "target": {"references": [HOSTILE]}}
    wrong = {**line, "target": {"references": [f"no {HOSTILE}"], "prompt": [HOSTILE, "?"]}}
    _predictions(run / "predictions-digit.jsonl", [line, wrong])
    (run / "evaluation.json").write_text(json.dumps({"digit": {HOSTILE: 1.0}}))
    (run / "README.md").write_text(f"Trained by `{HOSTILE}`.\n")
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 41, "task": HOSTILE, "loss": 1.0, HOSTILE: 2.0}) + "\n")
        log.write(json.dumps({"step": 41, "validation": {HOSTILE: {HOSTILE: 0.5}}}) + "\n")
    page = Page(write_report([run], tmp_path / "r.html"))
    assert page.text.count(HOSTILE) >= 6
    assert not page.all("script")
    assert not page.all("img")


def test_a_run_that_was_not_evaluated(run: Path, tmp_path: Path) -> None:
    for name in ("evaluation.json", "predictions-digit.jsonl", "README.md"):
        (run / name).unlink()
    page = Page(write_report([run], tmp_path / "r.html"))
    assert f"Not evaluated yet: sensorium evaluate {run}" in page.text
    assert "not come to its end" in page.text
    assert page.all("figure", "chart")


def test_a_run_without_a_log(run: Path, tmp_path: Path) -> None:
    (run / "metrics.jsonl").unlink()
    page = Page(write_report([run], tmp_path / "r.html"))
    assert "nothing to draw" in page.text
    assert not page.all("figure", "chart")
    assert "0.7500" in page.text


def test_several_runs_and_inputs_that_are_gone(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "captioner"
    _write_run(other, CAPTION)
    line = {"prediction": {"text": "a red dot"}, "target": {"references": ["a blue dot"]}}
    _predictions(other / "predictions-caption.jsonl", [{"key": "0", **line}])
    page = Page(write_report([run, other], tmp_path / "r.html"))
    assert len(page.all("article")) == 2
    assert "Overview" in page.text and "image: yes" in page.text
    assert "The inputs cannot be shown here" in page.text and "stranger" in page.text
    assert "red" in page.text and "a blue dot" in page.text
    assert page.all("div", "frozen") and "tiny-llama" in page.text


def test_the_weights_that_a_run_began_with_may_be_gone(run: Path, tmp_path: Path) -> None:
    recipe = parse(CLASSIFY, "recipe")
    recipe["inputs"]["image"]["encoder"]["weights"] = "runs/gone"
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    page = Page(write_report([run], tmp_path / "r.html"))
    assert "cannot be shown" not in page.text and page.all("img")


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other" / run.name
    twin.parent.mkdir()
    run.rename(twin)
    _write_run(run, CLASSIFY)
    text = Page(write_report([run, twin], tmp_path / "r.html")).text
    assert str(run) in text and str(twin) in text


def test_rows_that_left_the_data_are_named(run: Path, tmp_path: Path) -> None:
    line = {"key": "digits/none", "prediction": {"label": "one"}, "target": {"label": "one"}}
    _predictions(run / "predictions-digit.jsonl", [line])
    assert (
        "'digits/none' the first, are no longer"
        in Page(write_report([run], tmp_path / "r.html")).text
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recipe.yaml", None, "is it a run's folder"),
        ("evaluation.json", "{", "evaluate the run again"),
        ("predictions-digit.jsonl", '{"key": ', "jsonl:1"),
    ],
)
def test_files_that_cannot_be_read(
    run: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        write_report([run], tmp_path / "r.html")


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run"):
        write_report([], tmp_path / "r.html")


def test_text_rows_are_shown_by_their_own_modality(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"said": HOSTILE, "label": "rude"}) + "\n")
    recipe = f"""
inputs: {{said: {{modality: text, encoder: {{type: causal_lm, name: tiny-llama, weights: none}}}}}}
tasks:
  kind:
    type: classification
    input: said
    data: {{test: {{source: json, path: {rows}}}}}
"""
    _write_run(tmp_path / "texts", recipe)
    line = {"prediction": {"label": "kind"}, "target": {"label": "rude"}}
    plan = plan_recipe(load_recipe(tmp_path / "texts" / "recipe.yaml"))
    key = load_split(plan, "kind", "test").key(0)
    _predictions(tmp_path / "texts" / "predictions-kind.jsonl", [{"key": key, **line}])
    page = Page(write_report([tmp_path / "texts"], tmp_path / "r.html"))
    assert HOSTILE in page.text and not page.all("script")
    assert "cannot be shown" not in page.text
