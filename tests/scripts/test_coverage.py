"""The coverage of transformers' language models: a sample of it, and the machinery that runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sensorium.scripts.coverage import decoders
from sensorium.scripts.coverage.forks import Report, run_rows
from sensorium.scripts.coverage.steps import NotApplicable, Wrong, outcome, same
from sensorium.scripts.coverage.table import page, passes, status

CAUSAL = [
    "apertus",
    "arcee",
    "bamba",
    "bart",
    "bert",
    "bert-generation",
    "big_bird",
    "biogpt",
    "bloom",
    "camembert",
    "codegen",
    "cohere2",
    "ctrl",
    "deepseek_v3",
    "electra",
    "ernie4_5_moe",
    "falcon",
    "falcon_h1",
    "falcon_mamba",
    "gemma",
    "gemma3_text",
    "git",
    "glm4_moe",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granitemoehybrid",
    "helium",
    "jamba",
    "llama",
    "mamba",
    "mamba2",
    "mistral",
    "mixtral",
    "modernbert-decoder",
    "mpt",
    "nemotron",
    "olmoe",
    "openai-gpt",
    "opt",
    "phi",
    "phi3",
    "qwen3",
    "qwen3_moe",
    "recurrent_gemma",
    "roberta",
    "roformer",
    "rwkv",
    "smollm3",
    "starcoder2",
    "xglm",
    "xlm-roberta",
    "xmod",
    "zamba2",
]
PAIRS = ["bart", "blenderbot", "m2m_100", "mbart", "mt5", "pegasus", "plbart", "t5", "umt5"]
MASKED = ["bert", "deberta-v2", "distilbert", "electra", "modernbert", "roberta"]
SAMPLE = [
    *(f"causal/{name}" for name in CAUSAL),
    *(f"seq2seq/{name}" for name in PAIRS),
    *(f"masked/{name}" for name in MASKED),
]


@pytest.mark.slow
def test_no_row_of_the_sample_is_wrong_or_fails(tmp_path: Path) -> None:
    """None is silently wrong, none ends in an error that is not one line of ours.

    In a process of its own: threads of libraries that another test started do not survive a fork.
    """
    known = {*decoders.rows("causal"), *decoders.rows("seq2seq"), *decoders.rows("masked")}
    sample = [row for row in SAMPLE if row in known]
    assert len(sample) >= 60
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "sensorium.scripts.coverage", "--out", str(out), *sample]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads(out.read_text())
    assert set(results) == set(sample)
    bad = {
        row: {
            name: text
            for name, text in steps.items()
            if status(text) in ("wrong", "error") and name != "library"
        }
        for row, steps in results.items()
    }
    assert {row: steps for row, steps in bad.items() if steps} == {}


def test_a_row_that_dies_ends_no_other() -> None:
    def run(row: str, report: Report) -> None:
        report("first", "ok")
        if row == "dies":
            os._exit(3)
        report("second", "ok")

    results = dict(run_rows(["lives", "dies", "lives too"], run, jobs=1))
    assert results["dies"] == {"first": "ok", "process": "error: ended with status 768"}
    assert results["lives"] == results["lives too"] == {"first": "ok", "second": "ok"}


def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Wrong("x"), "wrong: x"),
        (NotApplicable("y"), "n/a: y"),
        (ValueError("a\nb"), "refused: a b"),
        (KeyError("z"), "error: KeyError: 'z'"),
    ],
)
def test_an_outcome_is_a_word_and_a_reason(error: Exception, expected: str) -> None:
    assert outcome(lambda: raising(error)) == expected
    assert outcome(lambda: None) == "ok"


def test_values_that_differ_are_wrong() -> None:
    same(torch.ones(3), torch.ones(3) + 1e-5, "x")
    for found in (torch.ones(3) + 1e-2, torch.ones(2), torch.full((3,), torch.nan)):
        with pytest.raises(Wrong):
            same(found, torch.ones(3), "x")


def test_the_page_counts_what_passes() -> None:
    sound = dict.fromkeys(("build", "library", "logits"), "ok")
    results = {"causal/a": sound, "causal/b": {**sound, "logits": "wrong: by 3 | 4"}}
    text = page(results)
    assert "2 classes; the library itself runs 2" in text and "1 (50.0%) pass every step" in text
    assert "| logits | 1 | 0 | 0 | 1 | 0 |" in text and "by 3 \\| 4" in text
    assert passes(sound) and not passes(results["causal/b"])
