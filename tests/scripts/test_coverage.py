"""The coverage of transformers' language models: a sample of it, and the machinery that runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.scripts.coverage import __main__ as coverage
from sensorium.scripts.coverage import decoders
from sensorium.scripts.coverage.cases import enliven, recipe_values, set_running_statistics
from sensorium.scripts.coverage.encoder_cases import as_json
from sensorium.scripts.coverage.forks import Report, run_rows
from sensorium.scripts.coverage.results import Row, append, latest, passes, read, status
from sensorium.scripts.coverage.steps import NotApplicable, Wrong, outcome, same
from sensorium.scripts.coverage.table import page
from sensorium.scripts.coverage.tiny_configs import tiny_config

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

NUMBERS = (
    "check", "logits", "ids", "padding", "inputs", "causal", "prefill", "prefix", "block",
    "bidirectional", "generate", "teacher_forcing",
)  # fmt: skip
"""Steps that can be silently wrong. Training, saving and adapters, which take most of the time, are
left to `make coverage`."""


@pytest.mark.slow
def test_no_row_of_the_sample_is_wrong_or_fails(tmp_path: Path) -> None:
    """None is silently wrong, none ends in an error that is not one line of ours.

    In a process of its own: threads of libraries that another test started do not survive a fork.
    """
    known = {*decoders.rows("causal"), *decoders.rows("seq2seq"), *decoders.rows("masked")}
    sample = [row for row in SAMPLE if row in known]
    assert len(sample) >= 60
    out = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "sensorium.scripts.coverage", *sample]
    command += ["--out", str(out), "--steps", *NUMBERS]
    subprocess.run(command, check=True, capture_output=True)
    results = {name: row.steps for name, row in latest(read(out)).items()}
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


def recipe_of(model_type: str, **lora: Any) -> Any:
    config = as_json(tiny_config(CONFIG_MAPPING[model_type]))
    section = {"type": "causal", "config": config, "lora": {"r": 2, **lora}}
    return parse_recipe(recipe_values("causal", section))


def test_default_adapters_leave_out_what_does_not_run() -> None:
    """BART's decoder alone has a cross attention that nothing calls; what is named is refused."""
    notes = check(recipe_of("bart")).notes
    assert any("backbone.lora" in note and "encoder_attn" in note for note in notes)
    with pytest.raises(ConfigError, match=r"no gradient reaches .*encoder_attn"):
        check(recipe_of("bart", target_modules=["encoder_attn.k_proj"]))


def test_default_adapters_take_a_linear_map_of_a_subclass() -> None:
    """Falcon's linear maps are a class of its own, with a forward of its own."""
    assert check(recipe_of("falcon")).components


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
    for value in (torch.ones(3) + 1e-2, torch.ones(2), torch.full((3,), torch.nan)):
        with pytest.raises(Wrong):
            same(value, torch.ones(3), "x")


def rows_of(**results: dict[str, str]) -> dict[str, Row]:
    rows = [Row(f"causal/{name}", steps) for name, steps in results.items()]
    return latest(rows)


SOUND = dict.fromkeys(("build", "library", "logits"), "ok")


def test_the_page_counts_what_passes() -> None:
    results = rows_of(a=SOUND, b={**SOUND, "logits": "wrong: by 3 | 4"})
    text = page(results)
    assert "| causal | 2 | 0 | 2 | 1 (50.0%) | 1 (50.0%) | 1 |" in text
    assert "| logits | 1 | 0 | 0 | 1 | 0 | 0 |" in text and "by 3 \\| 4" in text
    assert "| 1 | logits: wrong: by N \\| N |" in text
    assert passes(SOUND) and not passes(results["causal/b"].steps)


def test_the_page_says_what_did_not_run() -> None:
    results = rows_of(a={"build": "ok"}, b={"build": "ok", "limit": "limit: more than 60 s"})
    results |= {"timm/d": Row("timm/d", {"build": "ok"}, ("build", "check"))}
    text = page(results, ["causal/a", "causal/c", "timm/d", "monai/e"])
    assert "3 of 5 rows have a result" in text
    assert "1 rows ran these steps alone: build check." in text
    assert "At a limit ended 1 rows: causal/b." in text
    assert "Not run (1): c." in text and "Not run (1): e." in text


def test_a_run_is_taken_up_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    llama = Row("causal/llama", {"build": "ok"})
    append(path, Row("causal/llama", {"build": "error: x"}))
    append(path, llama)
    append(path, Row("causal/gpt2", {"build": "limit: memory: y"}))
    with path.open("a") as file:
        file.write('{"row": "causal/ba')
    done = latest(read(path))
    assert done["causal/llama"] == llama and len(done) == 2
    every = decoders.rows("causal")
    remaining = [row for row in every if row not in done]
    assert coverage.chosen_rows(["causal"], done) == remaining
    again = coverage.chosen_rows(["causal"], done, ["limit"])
    assert set(again) - set(remaining) == {"causal/gpt2"}
    assert coverage.chosen_rows(["causal"], done, ["all"]) == every
    assert coverage.chosen_rows(["causal/llama"], done) == ["causal/llama"]


@pytest.mark.slow
def test_a_limit_is_no_error_of_the_row() -> None:
    def run(row: str, report: Report) -> None:
        report("first", "ok")
        while True:
            pass

    results = dict(run_rows(["endless"], run, jobs=1, seconds=1))
    assert results["endless"]["limit"].startswith("limit: more than ")
    for error in (MemoryError(), Wrong("x: DefaultCPUAllocator: can't allocate memory: 3")):
        assert outcome(lambda error=error: raising(error)).startswith("limit: memory")


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_running_statistics_keep_a_signal_alive(gain: float) -> None:
    """Behind ten norms with mean 0, variance 1 and a small or no gain, all inputs looked alike."""
    layers = [[nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU()] for _ in range(10)]
    model = nn.Sequential(*(module for layer in layers for module in layer)).eval()
    for _, norm, _ in layers:
        nn.init.constant_(norm.weight, gain)
    enliven(model)
    pixels = torch.randn(3, 4, 8, 8)
    set_running_statistics(model, lambda: model(pixels))
    with torch.no_grad():
        features = model(pixels)
    assert not model.training and float(features.std(0).mean()) > 0.1
