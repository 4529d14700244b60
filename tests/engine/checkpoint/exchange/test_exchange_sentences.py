"""A text stream as a folder that sentence-transformers opens, with equal vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.checkpoint.exchange import export_part
from sensorium.engine.embedding.embedder import Embedder
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.checkpoint.exchange.exchange_cases import (
    IDS,
    TEXT,
    loaded,
    save_tokenizer,
)

TEXTS = ["a red cup", "the blue house by the sea", "red", "one two three four five six seven eight"]
SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CONFIG = {"hidden_size": 16, **SIZES, "max_position_embeddings": 40}


def composed(
    folder: Path, kind: str = "bert", connector: str = "mean", dim: int = 16, **more: Any
) -> Model:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": t, "passage": t}) + "\n" for t in TEXTS))
    encoder = {
        "type": "causal_lm" if kind == "llama" else "transformers",
        "config": {"model_type": kind, **CONFIG},
        "tokenizer": {"type": "bpe", "size": 290},
        "max_length": 24,
        **more,
    }
    data = {"train": {"source": "json", "path": str(rows)}}
    search = {"type": "contrastive", "streams": ["query", "passage"], "dim": dim, "data": data}
    inputs = {
        "query": {"modality": "text", "encoder": encoder, "connector": connector},
        "passage": {"share": "query"},
    }
    return build(parse_recipe({"inputs": inputs, "tasks": {"search": search}})).eval()


@pytest.mark.parametrize(
    ("kind", "connector", "dim"),
    [("bert", "mean", 16), ("bert", "mean", 10), ("roberta", "cls", 16), ("bert", "max", 16),
     ("llama", "cls", 16), ("llama", "last", 16), ("llama", "mean", 12)],
)  # fmt: skip
def test_its_vectors_are_the_run_s(tmp_path: Path, kind: str, connector: str, dim: int) -> None:
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(0)
    model = composed(tmp_path, kind, connector, dim)
    done = export_part(model, "inputs.query", "sentence-transformers", tmp_path / "st")
    assert done.component == "inputs.query"
    theirs = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    assert theirs.max_seq_length == 24
    embedder = Embedder(model, "query", "cpu")
    ours = np.concatenate([np.asarray(embedder.query(text)) for text in (*TEXTS, " ".join(TEXTS))])
    np.testing.assert_allclose(theirs.encode([*TEXTS, " ".join(TEXTS)]), ours, atol=1e-6)
    assert abs(ours[0] @ ours[1]) < 0.999999  # texts differ: the control


@pytest.mark.parametrize(
    ("options", "part", "message"),
    [
        ({"connector": "attention_pool"}, "inputs.query", "connector: found AttentionPool"),
        ({"tokenizer": "bytes"}, "query", "tokenizer: Bytes is none of the tokenizers library"),
        ({"kind": "llama", "attention": "bidirectional"}, "query", "no parts of sentence-trans"),
        ({}, "inputs.queri", "did you mean 'query'"),
    ],
)
def test_what_the_library_lacks_is_one_line(
    tmp_path: Path, options: dict[str, Any], part: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        export_part(composed(tmp_path, **options), part, "sentence-transformers", tmp_path / "st")
    assert "\n" not in str(error.value) and not (tmp_path / "st").exists()


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_a_sparse_encoder_is_read_with_equal_vectors(tmp_path: Path, strategy: Any) -> None:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(**TEXT, **IDS, max_position_embeddings=32)  # type: ignore[arg-type]
    model = BertForMaskedLM(config).eval()
    model.cls.predictions.bias.data.normal_()
    model.save_pretrained(tmp_path / "bert")
    save_tokenizer(tmp_path / "bert")
    parts = [MLMTransformer(str(tmp_path / "bert")), SpladePooling(strategy)]
    theirs = SparseEncoder(modules=parts, device="cpu")
    theirs.save(str(tmp_path / "sparse"))
    ours = loaded("sentence-transformers", tmp_path / "sparse", tmp_path / "run")
    embedder = Embedder(ours, "query", "cpu", form="sparse")
    for text in ("w3 w4", "w5 w6 w7 w8", "w9"):
        ((indices, values),) = embedder.query(text)
        vector = np.zeros(ours.stream("query").dim, np.float32)
        vector[indices] = values
        expected = theirs.encode(text, convert_to_sparse_tensor=False)
        np.testing.assert_allclose(vector, np.asarray(expected), atol=1e-6)
        assert vector.any()
