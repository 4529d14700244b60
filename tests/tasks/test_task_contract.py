"""Every task meets the contract that `sensorium.testing` checks, on its own example."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.engine.recipe import find, registered
from sensorium.testing import check_task

HEADS_OF_DINO = {"prototypes": 12, "hidden": 8, "bottleneck": 6, "mask_ratio": (0.6, 1.0)}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "action_regression": [{"input": "state"}],
    "asr": [{"prompt": "<state> {question}:", "max_new_tokens": 3}, {"prompt": "<image> <state>"}],
    "asr_diffusion": [
        {"prompt": "<image> {question}", "draft_prob": 0.5},
        {"prompt": "<state> <image> say:", "target": "{said}", "max_passes": 2},
    ],
    "captioning": [
        {"prompt": "<image> {question} Answer:", "max_new_tokens": 3},
        {
            "prompt": "{x:.1f} <image> <state>",
            "target": "{caption} {x:d}",
            "max_new_tokens": 3,
            "metrics": ["sari", "chrf"],
            "source": "{caption}",
        },
    ],
    "choice": [{"prompt": "{question} <image>", "choices": ["yes", "not {question}"]}],
    "classification": [
        {"input": "image"},
        {"input": "state", "target": "colours", "multi_label": True},
    ],
    "contrastive": [
        {"streams": ["image", "state"], "dim": 16},
        {
            "streams": ["image", "state"],
            "dim": 16,
            "loss": "siglip",
            "positive_group": "study",
            "metric_group": "region",
        },
        {
            "streams": ["image", "state"],
            "dim": 16,
            "hard_negatives": {"state": "wrong"},
            "in_batch_negatives": False,
            "matryoshka": [8],
        },
        {"streams": ["image", "state"], "dim": None, "similarity": "maxsim"},
        {
            "streams": ["image", "state"],
            "dim": None,
            "similarity": "dot",
            "flops": {"state": 0.1},
            "flops_warmup": 0.0,
        },
        {"streams": ["image", "state"], "dim": 16, "loss": "cosent", "scores": "score"},
    ],
    "control": [
        {"prompt": "<image> {instruction} <state>"},
        {"prompt": "<state>", "action_decoder": "continuous"},
        {"prompt": "<image>", "action_decoder": "fourier", "frequencies": 4},
        {"prompt": "{instruction} <state>", "action_decoder": "autoregressive"},
    ],
    "ctc": [{"input": "image", "target": "{said}"}, {"input": "state", "allow_empty": True}],
    "dino": [
        {"input": "image", "size": 4, "local_size": 2, "local_crops": 1, **HEADS_OF_DINO},
        {"input": "state", "size": 4, "local_size": 2, "local_crops": 0, **HEADS_OF_DINO},
    ],
    "distill_actions": [
        {"prompt": "<image> {instruction}", "expert": "state", "action_weight": 1.0},
        {"prompt": "<image>", "expert": "state", "action_weight": 1.0, "distance": "cosine"},
    ],
    "distill_embedding": [
        {"student": "image", "teacher": "state"},
        {
            "student": "state",
            "teacher": "image",
            "loss": "cosine",
            "dim": 16,
            "positive_group": "text",
        },
    ],
    "forecast": [
        {"input": "image", "season": 12},
        {"input": "image", "examples": "state", "hidden": 8, "timestamps": "{start} to {end}"},
    ],
    "generation": [
        {"condition": "image", "target": "state"},
        {"condition": ["image", "state"], "target": "label", "refiner": 1},
    ],
    "grounded": [
        {"input": "image", "text": "state", "dim": 16},
        {
            "input": "image",
            "text": "state",
            "finding": "f",
            "negative_group": "a",
            "group": "study",
        },
    ],
    "image_tokens": [
        {"prompt": "{question}", "image": "image", "condition": "state", "dim": 8, "tokens": 2},
        {
            "prompt": "<text> {question}",
            "condition": "state",
            "decide": "what",
            "dim": 8,
            "queries": 5,
        },
    ],
    "language_modeling": [
        {"text": "{question}"},
        {
            "text": "{question}",
            "objectives": dict.fromkeys(
                ("causal", "prefix", "identifiers", "fill_in_the_middle", "ul2"), 1.0
            ),
            "attention": "prefix",
            "sentinels": 4,
        },
    ],
    "listening": [
        {"speak": "image", "listen": "state", "max_new_tokens": 3},
        {"speak": "image", "listen": "state", "max_new_tokens": 3, "fusion": "late"},
    ],
    "localization": [{"input": "image"}, {"input": "state", "target": "found", "l1": 0.0}],
    "masked_answer": [{"choices": ["a", "b"], "cloze": ": <mask>!", "plain_share": 0.3}],
    "masked_lm": [
        {},
        {
            "before": ["image"],
            "conditions": {"language": ["de", "sw"]},
            "pretext": [
                {"type": "condenser", "early": 0},
                {"type": "decoder", "feed": "embeddings"},
                {"type": "enhanced"},
                {"type": "weak", "layers": 1},
                {"type": "bow"},
                {"type": "sections", "columns": {"question": 0.5}},
                {"type": "future", "tokens": 2},
            ],
        },
        {"pretext": [{"type": "visible"}], "weight": 0.0},
        {
            "before": ["image"],
            "pretext": [
                {"type": "ctc"},
                {"type": "frames"},
                {"type": "matching"},
                {"type": "infilling", "column": "question"},
                {"type": "replaced_phrases", "column": "question"},
                {"type": "triples"},
                {"type": "triplet", "column": "question"},
                {"type": "hierarchy", "column": "path", "paths": ["a/b", "a/c"]},
            ],
        },
    ],
    "masked_contrast": [
        {"input": "image", "mask_length": 2},
        {"input": "state", "mask_prob": 0.9, "negatives": 2, "diversity_weight": 1.0},
    ],
    "masked_signal": [
        {"input": "image", "masking": "block"},
        {"input": "state", "masking": "span", "mask_ratio": 0.4, "depth": 0, "normalize": False},
    ],
    "mixed_sequence": [
        {"prompt": "<image> {question}", "values": "path", "numbers": 2, "max_new_tokens": 3},
        {
            "prompt": "{question}",
            "target": " {name}",
            "values": "path",
            "numbers": 3,
            "head": "diffusion",
            "modality_weights": True,
            "max_new_tokens": 3,
        },
    ],
    "perturbed_captioning": [{"prompt": "<image>", "noise": "state", "max_new_tokens": 3}],
    "referring": [
        {
            "input": "image",
            "text": "words",
            "mask": "state",
            "layers": [0, 1],
            "head": {"type": "unetr", "axes": 3},
        }
    ],
    "regression": [{"input": "image", "target": "age"}, {"input": "state", "target": ["a", "b"]}],
    "replaced_token": [{"generator": "image"}],
    "reranking": [
        {},
        {
            "query": "image",
            "passage": None,
            "candidates": "state",
            "relevance": "right",
            "first_scores": "found",
            "loss": "softmax",
            "template": "{query}: {passage}?",
            "head": {"type": "last"},
        },
        {"loss": "classes", "num_labels": 3, "relevance": "right", "activation": "softmax"},
        {"candidates": "wrong", "loss": "hinge"},
        {"candidates": "wrong", "loss": "margin_mse", "relevance": "teacher"},
    ],
    "segmentation": [{"input": "image", "mask": "state"}],
    "signal_generation": [
        {"prompt": "<image> {question}", "target": "<state>", "max_new_tokens": 4},
        {"target": "{said} <image><state>", "z_loss": 1e-4, "max_new_tokens": 4},
    ],
    "tagging": [{"input": "image"}, {"input": "state", "target": "found", "smoothing": 0.1}],
}
TOKENIZERS = {
    **dict.fromkeys(("action_regression", "control", "distill_actions"), "bspline"),
    **dict.fromkeys(("asr_diffusion", "ctc"), "characters"),
}
"""What a recipe names for an argument that several classes fit."""

LIMITS: dict[str, dict[str, Any]] = {
    "asr_diffusion": {"decoder": "diffusion", "sums_rows": False},  # noise is spread over a batch
    "contrastive": {"sums_rows": False},
    "dino": {"sums_rows": False},
    "generation": {"decoder": "sensorium.tests.tasks.generation.toy_decoder:Toy"},
    "image_tokens": {"sums_rows": False},
    "grounded": {"axes": 3, "sums_rows": False},
    "language_modeling": {"sums_rows": False},  # corruptions are drawn by the row's place
    "localization": {"axes": 3},
    "masked_answer": {"sums_rows": False},
    "replaced_token": {"sums_rows": False},
    "masked_lm": {"sums_rows": False},  # masks are drawn for a batch
    "masked_contrast": {"sums_rows": False},  # masks are drawn by the row's place
    "masked_signal": {"sums_rows": False},  # masks are drawn by the row's place
    "mixed_sequence": {"sums_rows": False},  # noise is drawn by the row's place
    "perturbed_captioning": {"sums_rows": False},  # the noise is drawn by the row's place
    "referring": {"axes": 3},
    "segmentation": {"axes": 3},
}
QUESTION = {"question": "what?", "instruction": "push it", "x": 2}
CASES = [(name, i) for name in OPTIONS for i in range(len(OPTIONS[name]))]


@pytest.mark.quick_share(4)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_task_meets_the_contract(name: str, case: int) -> None:
    options = dict(OPTIONS[name][case])
    if name in TOKENIZERS:
        options["tokenizer"] = TOKENIZERS[name]
    cls = find("task", name, "here")
    question = QUESTION | ({"image": [1.0, 2.0, 4.0]} if name == "forecast" else {})
    check_task(cls, question=question, **LIMITS.get(name, {}), **options)


def test_every_task_has_options_here() -> None:
    assert set(OPTIONS) == set(registered("task"))
