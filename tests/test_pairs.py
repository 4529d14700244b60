"""Every modality with every kind of decoder and every task: two steps, saved, read, asked.

What a recipe may combine is decided by what the parts say that they can do. A pair either runs from
its recipe to a prediction of the run that was read back, or is refused in one line before anything
is trained. New modalities, decoders and tasks are asked for here by the registries.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.inference import load
from sensorium.engine.recipe import parse_recipe, registered
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
}
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
BACKBONES: dict[str, dict[str, Any]] = {
    "causal": {"config": LLAMA},
    "diffusion": {"config": LLAMA},
    "masked": {"config": BERT},
    "seq2seq": {"name": "tiny-t5", "options": T5},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "action": {"type": "trajectory", "dim": 16, "depth": 1, "heads": 2},
    "audio": {"type": "logmel_conformer", "dim": 16, "front": 0, "depth": 1, "heads": 2,
              "kernel": 3},
    "image": {"type": "patches", "size": 32, "patch_size": 8, "dim": 16},
    "mri": {"type": "vit3d", "size": [16, 16, 16], "patch": [8, 8, 8], "dim": 16, "depth": 1,
            "heads": 2},
    "series": {"type": "patches", "patch": 25, "dim": 16, "depth": 1, "heads": 2},
    "text": {"type": "causal_lm", "config": LLAMA, "tokenizer": "bytes"},
}  # fmt: skip
TOKENIZER = {"type": "bspline", "num_basis": 3, "degree": 2}

DECODED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "captioning": (
        {"type": "captioning", "prompt": "<x> Say:", "target": "{text}", "max_new_tokens": 3},
        {"causal", "seq2seq"},
    ),
    "asr": ({"type": "asr", "prompt": "<x>", "max_new_tokens": 3}, {"causal", "seq2seq"}),
    "asr_diffusion": (
        {"type": "asr_diffusion", "prompt": "<x>", "tokenizer": "characters", "target": "{word}"},
        {"diffusion"},
    ),
    "language_modeling": ({"type": "language_modeling", "max_length": 16}, {"causal"}),
    "span_corruption": (
        {"type": "language_modeling", "objectives": {"span_corruption": 1}, "max_length": 16},
        {"causal", "seq2seq"},
    ),
    **{
        f"control_{name}": (
            {"type": "control", "prompt": "<x> {text}", "action_decoder": name, **options},
            decoders,
        )
        for name, options, decoders in (
            ("parallel", {"tokenizer": TOKENIZER}, {"causal", "diffusion", "seq2seq"}),
            ("continuous", {"tokenizer": TOKENIZER}, {"causal", "diffusion", "seq2seq"}),
            ("autoregressive", {"tokenizer": TOKENIZER}, {"causal", "seq2seq"}),
            (
                "fourier",
                {"tokenizer": TOKENIZER, "frequencies": 2},
                {"causal", "diffusion", "seq2seq"},
            ),
        )
    },
    "choice": (
        {"type": "choice", "prompt": "<x>", "choices": ["red", "green", "blue"], "answer": "word"},
        {"causal", "seq2seq"},
    ),
    "mixed_sequence": (
        {
            "type": "mixed_sequence",
            "prompt": "<x>",
            "target": " {word}",
            "values": "action",
            "numbers": 2,
            "max_new_tokens": 3,
        },
        {"causal", "seq2seq"},
    ),
    "distill_actions": (
        {"type": "distill_actions", "prompt": "<x>", "expert": "expert", "tokenizer": TOKENIZER},
        {"causal", "seq2seq"},
    ),
}
"""Name -> the section of a task that needs a decoder, and the kinds of decoder that can do it."""

EVERY = frozenset(ENCODERS)
PLAIN: dict[str, tuple[dict[str, Any], frozenset[str]]] = {
    "action_regression": (
        {"type": "action_regression", "input": "x", "tokenizer": TOKENIZER}, EVERY,
    ),
    "classification": ({"type": "classification", "input": "x", "target": "word"}, EVERY),
    "contrastive": ({"type": "contrastive", "streams": ["x", "text"], "dim": 8}, EVERY),
    "ctc": ({"type": "ctc", "input": "x", "tokenizer": "characters", "target": "{word}"}, EVERY),
    "distill_embedding": ({"type": "distill_embedding", "student": "x", "teacher": "text"}, EVERY),
    "regression": ({"type": "regression", "input": "x", "target": "number"}, EVERY),
    "dino": ({"type": "dino", "input": "x", "size": 16, "local_size": 8, "prototypes": 8,
              "hidden": 8, "bottleneck": 4, "local_crops": 1}, frozenset({"mri"})),
    "localization": ({"type": "localization", "input": "x"}, frozenset({"mri"})),
}  # fmt: skip
"""Name -> the section of a task without a decoder, and the modalities for which it makes sense."""


def recipe(modality: str, task: dict[str, Any], backbone: str | None = None) -> dict[str, Any]:
    """Return the smallest recipe of a task on a modality, with a kind of decoder."""
    task = copy.deepcopy(task)
    data: dict[str, Any] = {"source": "sensorium.tests.pair_rows:PairRows", "modality": modality}
    encoders = {"x": {"modality": modality, "encoder": ENCODERS[modality]}}
    text = {
        "modality": "text",
        "encoder": {**ENCODERS["text"], "freeze": True},
        "connector": "mean",
    }
    expert = {"modality": "action", "encoder": {**ENCODERS["action"], "freeze": True}}
    if task["type"] == "language_modeling":
        encoders = {}
    elif task["type"] in ("contrastive", "distill_embedding"):
        encoders = {"x": {**encoders["x"], "connector": "mean"}, "text": text}
    elif task["type"] == "distill_actions":
        encoders["expert"] = expert
    values = {
        "inputs": encoders,
        "tasks": {"it": {**task, "data": {"train": data, "test": data}}},
        "train": {"steps": 2, "batch_size": 4, "log_every": 1},
        "cache": {"samples": False, "features": False},
    }
    if backbone is not None:
        section = {"type": backbone, "tokenizer": "bytes", "weights": "none", **BACKBONES[backbone]}
        values["backbone"] = copy.deepcopy(section)
    return values


def run(values: dict[str, Any], folder: Path) -> None:
    """Train two steps, save, read back, and predict a row."""
    model = train(parse_recipe(values), folder / "run", show=False)
    (name,) = model.plan.tasks
    rows = values["tasks"][name]["data"]["test"]
    from sensorium.tests.pair_rows import PairRows

    row = PairRows(modality=rows["modality"])[0]
    pipeline = load(folder / "run")
    inputs = {stream: [row[stream]] for stream in pipeline.model.plan.tasks[name].task.inputs()}
    columns = {
        c: [row[c]] for c in ("text",) if c in pipeline.model.plan.tasks[name].task.columns()
    }
    (prediction,) = pipeline.generate(name, **inputs, **columns)
    assert prediction is not None


DECODED_PAIRS = [
    (modality, name, backbone)
    for modality in ENCODERS
    for name, (task, decoders) in DECODED.items()
    for backbone in sorted(decoders)
    if task["type"] != "language_modeling" or modality == "text"
]
PLAIN_PAIRS = [(m, name) for name, (_, modalities) in PLAIN.items() for m in sorted(modalities)]
QUICK = {
    ("image", "captioning", "causal"),
    ("series", "contrastive"),
    ("audio", "asr_diffusion", "diffusion"),
    ("action", "control_parallel", "diffusion"),
    ("text", "control_autoregressive", "causal"),
    ("mri", "contrastive"),
    ("action", "ctc"),
}
"""A diagonal of the matrix, for the quick suite."""


def marked(pairs: list[Any]) -> list[Any]:
    marks = [() if pair in QUICK else (pytest.mark.slow,) for pair in pairs]
    return [pytest.param(*p, id="-".join(p), marks=m) for p, m in zip(pairs, marks, strict=True)]


@pytest.mark.parametrize(("modality", "task", "backbone"), marked(DECODED_PAIRS))
def test_a_modality_a_decoder_and_a_task_run(
    modality: str, task: str, backbone: str, tmp_path: Path
) -> None:
    run(recipe(modality, DECODED[task][0], backbone), tmp_path)


@pytest.mark.parametrize(("modality", "task"), marked(PLAIN_PAIRS))
def test_a_modality_and_a_task_without_a_decoder_run(
    modality: str, task: str, tmp_path: Path
) -> None:
    run(recipe(modality, PLAIN[task][0]), tmp_path)


REFUSED = [(n, b) for n, (_, able) in DECODED.items() for b in BACKBONES if b not in able]


@pytest.mark.parametrize(("task", "backbone"), REFUSED)
def test_what_a_decoder_cannot_do_is_refused_in_one_line(task: str, backbone: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(parse_recipe(recipe("text", DECODED[task][0], backbone)))
    assert "\n" not in str(error.value) and str(error.value).startswith("tasks.it")


def test_every_part_of_the_registries_is_in_the_matrix() -> None:
    tasks = {section["type"] for section, _ in (*DECODED.values(), *PLAIN.values())}
    elsewhere = {
        *("grounded", "referring", "segmentation"),  # of a volume or picture and its mask
        *("forecast", "generation", "image_tokens"),  # of a signal as the target
        *("listening", "signal_generation"),  # of a signal's own tokens
        *("masked_answer", "masked_lm", "replaced_token", "perturbed_captioning"),  # of texts alone
        *("reranking", "tagging"),  # of pairs of texts, of the words of a text
        *("masked_contrast", "masked_signal"),  # of encoders that return targets
    }
    """Tasks that need other rows than these."""
    assert set(registered("task")) == tasks | elsewhere
    assert set(registered("backbone")) == set(BACKBONES)
    labels = {"boxes", "image_mask", "mri_mask"}  # targets of dense tasks, no inputs
    assert set(registered("modality")) == set(ENCODERS) | labels
