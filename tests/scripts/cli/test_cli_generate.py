"""`generate` and `evaluate` of a trained run, on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_evaluate_prints_and_writes(run: Run, trained: Path) -> None:
    code, out, err = run("evaluate", str(trained))
    assert code == 0, err
    result = json.loads((trained / "evaluation.json").read_text())
    for name, value in result["answer"].items():
        assert isinstance(value, (float, type(None)))
        if not name.endswith("_shuffled"):
            (line,) = [ln for ln in out.splitlines() if ln.startswith(f"answer/{name} ")]
            assert ("(shuffled input " in line) == (name != "batch_gap")
    assert "exact_match_image_shuffled" in result["answer"]
    code, out, _ = run(
        "evaluate", str(trained), "--no-input-ablation", "--limit", "2", "--split", "test"
    )
    assert code == 0
    assert "shuffled" not in out


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_generate_takes_files_and_columns(run: Run, trained: Path) -> None:
    code, out, err = run("generate", str(trained), "a.png", "b=c.png", "parity=odd")
    assert code == 0, err
    lines = _lines(out)
    assert [line["image"] for line in lines] == ["a.png", "b=c.png"]
    assert all(line["parity"] == "odd" for line in lines)
    assert all(set(line["prediction"]) == {"text"} for line in lines)
    _, one, _ = run("generate", str(trained), "image=a.png", "parity=odd")
    assert _lines(one) == lines[:1]


def test_generate_takes_folders(run: Run, trained: Path, home: Path, tmp_path: Path) -> None:
    """Every file in order, those of its folders too; hidden ones are none, unreadable ones are
    counted."""
    for name in ("b/2.png", "b/10.png", "a.png", ".hidden.png", ".cache/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(home / "a.png", tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for words in ([str(tmp_path)], [f"image={tmp_path}"], [str(tmp_path), "a.png"]):
        code, out, err = run("generate", str(trained), *words, "parity=odd")
        assert code == 0, err
        images = [line["image"] for line in _lines(out)]
        expected = [str(tmp_path / name) for name in ("a.png", "b/10.png", "b/2.png")]
        assert images == expected + words[1:]
        assert "broken.png" in err and f"1 of {4 + len(words[1:])} inputs could not be used" in err
    (tmp_path / "empty").mkdir()
    code, out, err = run("generate", str(trained), str(tmp_path / "empty"), "parity=odd")
    assert (code, out, err.count("\n")) == (2, "", 1) and "Is a directory" in err
    code, out, err = run("generate", str(trained), str(tmp_path / "empty"), "a.png", "parity=odd")
    assert code == 0 and "Is a directory" in err and len(_lines(out)) == 1


@pytest.mark.parametrize("word", ["", "image=", "--out=", "--task="])
def test_an_empty_input_is_no_folder(run: Run, trained: Path, word: str) -> None:
    """A variable of a shell that is not set would stand for all files here."""
    code, out, err = run("generate", str(trained), word, "parity=odd")
    assert (code, out, err.count("\n")) == (2, "", 1) and "is empty" in err


def test_generate_writes_json_lines(run: Run, trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "said.jsonl"
    words = ["generate", str(trained), "a.png", "parity=gerade ü", "--task", "answer"]
    code, out, err = run(*words, "--out", str(target), "--generate-kwarg", "max_new_tokens=1")
    assert (code, out) == (0, ""), err
    assert "gerade ü" in target.read_text(encoding="utf-8")
    assert len(_lines(target.read_text(encoding="utf-8"))) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.png", "partiy=odd"], ("partiy=odd", "'partiy'", "'parity'")),
        (["gone.png", "parity=odd"], ("gone.png",)),
        (["parity=odd"], ("answer", "image")),
        (["a.png", "image=a.png", "parity=odd"], ("a.png", "image")),
        (["a.png"], ("'parity'",)),
        (["a.png", "parity=odd", "--task", "anwser"], ("--task", "'anwser'", "'answer'")),
        (
            ["a.png", "parity=odd", "--generate-kwarg", "max_new_tokens"],
            ("--generate-kwarg", "max_new_tokens"),
        ),
        (["a.png", "parity=odd", "--generate-kwarg", "beams=2"], ("beams",)),
        (["tiny.yaml", "parity=odd"], ("tiny.yaml",)),
    ],
)
def test_a_wrong_question_is_one_line(
    run: Run, trained: Path, words: list[str], expected: tuple[str, ...]
) -> None:
    code, out, err = run("generate", str(trained), *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in expected:
        assert word in err
