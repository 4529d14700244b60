"""CrossEncoder folders as runs and back, with equal scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from sensorium.engine.checkpoint.exchange import export_part, import_model
from sensorium.engine.inference import Pipeline
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.checkpoint.exchange.exchange_cases import BOS, EOS, IDS, TEXT, drawn

IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity"}
CROSS = {"model_type": "CrossEncoder"}
PROMPT = {"prompts": {"task": "w4 w4 w8 "}, "default_prompt_name": "task"}
PAIRS = [
    ("w1 w2", "w3 w4 w5 w1"),
    ("w6", "w6"),
    ("w1 w9 w7 w3", " ".join(f"w{i}" for i in range(26))),
    (" ".join(f"w{i}" for i in range(20)), "w2 w5"),
]


def saved_tokenizer(folder: Path) -> None:
    from tokenizers import processors

    from sensorium.tests.engine.checkpoint.exchange.exchange_cases import save_tokenizer

    save_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        pair="<bos> $A <eos> $B:1 <eos>:1",
        special_tokens=[("<bos>", BOS), ("<eos>", EOS)],
    )
    tokenizer.model_max_length = 20
    tokenizer.save_pretrained(folder)


def edit(file: Path, **values: Any) -> None:
    before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**before, **values}), "utf-8")


def folder_of(folder: Path, family: str, labels: int, types: bool = False, **settings: Any) -> Path:
    config = getattr(transformers, f"{family}Config")(
        **{**TEXT, **IDS}, num_labels=labels, max_position_embeddings=24
    )
    model = drawn(getattr(transformers, f"{family}ForSequenceClassification")(config))
    model.save_pretrained(folder)
    saved_tokenizer(folder)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    edit(folder / "tokenizer_config.json", model_input_names=names)
    for name, values in settings.items():
        edit(folder / f"{name}.json", **values)
    if "config_sentence_transformers" in settings:
        kind = "sentence_transformers.models.Transformer"
        modules = [{"idx": 0, "name": "0", "path": "", "type": kind}]
        (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
        task = {"transformer_task": "sequence-classification"}
        edit(folder / "sentence_bert_config.json", **task)
    return folder


def scores(run: Any) -> np.ndarray:
    rows = {"query": [q for q, _ in PAIRS], "passage": [p for _, p in PAIRS]}
    return np.array([row["scores"][0] for row in Pipeline(run).generate("rank", rows)])


@pytest.mark.filterwarnings("ignore:text")
@pytest.mark.parametrize(
    ("family", "labels", "settings"),
    [
        ("Bert", 1, {}),
        ("Bert", 1, {"types": True, "config": {"sentence_transformers": IDENTITY}}),
        ("Bert", 3, {"types": True}),
        (
            "Roberta",
            1,
            {"config_sentence_transformers": {**CROSS, **IDENTITY}},
        ),
        ("Bert", 1, {"config_sentence_transformers": {**CROSS, **IDENTITY, **PROMPT}}),
        ("Llama", 1, {}),
    ],
)
def test_scores_are_those_of_the_library(
    tmp_path: Path, family: str, labels: int, settings: dict[str, Any]
) -> None:
    from sentence_transformers import CrossEncoder

    folder = folder_of(tmp_path / "ce", family, labels, **settings)
    theirs = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    model = import_model("cross-encoder", folder, tmp_path / "run")
    folder.rename(tmp_path / "gone")
    ours = scores(model)
    assert ours.shape == theirs.shape and np.ptp(ours) > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    export_part(tmp_path / "run", "tasks.rank", "cross-encoder", tmp_path / "back")
    again = CrossEncoder(str(tmp_path / "back"), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(again, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model_type": "SentenceTransformer"}, "holds a SentenceTransformer"),
        ({}, "holds a SentenceTransformer"),  # as the library reads an older folder
        ({**CROSS, "activation_fn": "torch.nn.Tanh"}, "activation_fn: found"),
    ],
)
def test_what_a_task_has_not_is_one_line(
    tmp_path: Path, settings: dict[str, Any], line: str
) -> None:
    folder = folder_of(tmp_path / "ce", "Bert", 1, config_sentence_transformers=settings)
    with pytest.raises(ConfigError, match=line):
        import_model("cross-encoder", folder, tmp_path / "run")
