"""Folders that sentence-transformers saved, as runs with equal vectors; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from torch import nn

from sensorium.engine.checkpoint.exchange import export_part, import_model
from sensorium.engine.embedding.embedder import Embedder
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.checkpoint.exchange.exchange_cases import (
    IDS,
    TEXT,
    drawn,
    loaded,
    save_tokenizer,
)

TEXTS = ["w3 w4", "w5 w6 w7 w8", "w9", " ".join(f"w{i}" for i in range(26))]
WIDTH = TEXT["hidden_size"]
PROMPTS = {"query": "w1 w2 ", "document": "w20 ", "sts": "w21 "}

Make = Callable[[Path], Any]


def transformer(folder: Path, task: str = "feature-extraction", **options: Any) -> Any:
    from sentence_transformers.sentence_transformer.modules import Transformer

    config = transformers.BertConfig(**{**TEXT, **IDS}, max_position_embeddings=32)
    family = transformers.BertForMaskedLM if task == "fill-mask" else transformers.BertModel
    drawn(family(config)).save_pretrained(folder)
    save_tokenizer(folder)
    return Transformer(str(folder), transformer_task=task, max_seq_length=12, **options)


def sentence(*after: Any, mode: Any = "mean", **settings: Any) -> Make:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    return lambda folder: SentenceTransformer(
        modules=[transformer(folder), Pooling(WIDTH, mode), *after], device="cpu", **settings
    )


def routed(folder: Path, **settings: Any) -> Any:
    """Other encoders, other poolings, one normalization behind both."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Router

    sides = []
    for name, mode in (("a", "mean"), ("b", "cls")):
        part = transformer(folder / name)
        part.model.embeddings.word_embeddings.weight.data.mul_(1.0 + (name == "b"))
        sides.append([part, Pooling(WIDTH, mode)])
    router = Router.for_query_document(*sides)
    return SentenceTransformer(modules=[router, Normalize()], device="cpu", **settings)


def modules() -> Any:
    from sentence_transformers.sentence_transformer import modules

    return modules


def saved(make: Make, folder: Path) -> Any:
    theirs = make(folder / "parts")
    theirs.save(str(folder / "saved"))
    return theirs


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def vectors(run: Any, stream: str) -> np.ndarray:
    embedder = Embedder(run, stream, "cpu")
    return np.concatenate([np.asarray(embedder.query(text)) for text in TEXTS])


CASES: dict[str, Callable[[], Make]] = {
    "labse": lambda: sentence(modules().Dense(WIDTH, WIDTH), modules().Normalize(), mode="cls"),
    "narrower": lambda: sentence(modules().Dense(WIDTH, 10, activation_function=nn.Identity())),
    "tanh": lambda: sentence(modules().Dense(WIDTH, 10, bias=False)),
    "two layers": lambda: sentence(
        modules().Dense(WIDTH, 30, activation_function=nn.GELU()),
        modules().Dense(30, WIDTH, bias=False, activation_function=nn.GELU()),
    ),
    "prompts": lambda: sentence(prompts=PROMPTS, default_prompt_name="document"),
    "passage prompt": lambda: sentence(prompts={"passage": "w20 "}),
    "router": lambda: routed,
    "router with prompts": lambda: lambda folder: routed(folder, prompts=PROMPTS),
}


@pytest.mark.filterwarnings("ignore:text")
@pytest.mark.parametrize("case", CASES)
def test_queries_and_documents_have_the_library_s_vectors(tmp_path: Path, case: str) -> None:
    """Of one that is longer than `max_seq_length` too."""
    theirs = saved(CASES[case](), tmp_path)
    run = loaded("sentence-transformers", tmp_path / "saved", tmp_path / "run")
    named = {"prompt_name": "passage"} if case == "passage prompt" else {}
    sides = {"query": theirs.encode_query(TEXTS), "passage": theirs.encode_document(TEXTS, **named)}
    for stream, expected in sides.items():
        np.testing.assert_allclose(vectors(run, stream), unit(expected), atol=1e-6)
    differ = np.abs(unit(sides["query"]) - unit(sides["passage"])).max()
    assert (differ > 1e-3) == ("prompt" in case or "router" in case)  # the control
    if "router" in case:
        return
    for stream, expected in sides.items():
        export_part(run, f"inputs.{stream}", "sentence-transformers", tmp_path / stream)
        again = type(theirs)(str(tmp_path / stream), device="cpu").encode(TEXTS)
        np.testing.assert_allclose(again, unit(expected), atol=1e-6)


@pytest.mark.filterwarnings("ignore:text")
def test_a_default_prompt_alone_stands_before_every_text(tmp_path: Path) -> None:
    theirs = saved(sentence(prompts={"sts": "w21 "}, default_prompt_name="sts"), tmp_path)
    run = loaded("sentence-transformers", tmp_path / "saved", tmp_path / "run")
    for stream in ("query", "passage"):
        np.testing.assert_allclose(vectors(run, stream), unit(theirs.encode(TEXTS)), atol=1e-6)


@pytest.mark.filterwarnings("ignore:text")
@pytest.mark.parametrize("prompts", [{}, PROMPTS])
def test_sparse_vectors_are_those_of_the_library(tmp_path: Path, prompts: dict[str, str]) -> None:
    """In the form of newer folders: a Transformer with its head, and SpladePooling."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    def make(folder: Path) -> Any:
        parts = [transformer(folder, "fill-mask"), SpladePooling("max")]
        return SparseEncoder(modules=parts, device="cpu", prompts=prompts)

    theirs = saved(make, tmp_path)
    run = loaded("sentence-transformers", tmp_path / "saved", tmp_path / "run")
    for stream, encode in (("query", theirs.encode_query), ("passage", theirs.encode_document)):
        expected = np.asarray(encode(TEXTS, convert_to_sparse_tensor=False))
        embedder = Embedder(run, stream, "cpu", form="sparse")
        for text, row in zip(TEXTS, expected, strict=True):
            ((indices, values),) = embedder.query(text)
            assert indices.tolist() == np.flatnonzero(row).tolist() and len(indices)
            np.testing.assert_allclose(values, row[indices], atol=1e-6)


def changed(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        before = json.loads((folder / file).read_text("utf-8"))
        (folder / file).write_text(json.dumps({**before, **values}), "utf-8")

    return change


SETTINGS, BERT = "config_sentence_transformers.json", "sentence_bert_config.json"
POOLING, DENSE = "1_Pooling/config.json", "2_Dense/config.json"
REFUSED = {
    "similarity_fn_name dot": changed(SETTINGS, similarity_fn_name="dot"),
    "similarity_fn_name manhattan": changed(SETTINGS, similarity_fn_name="manhattan"),
    "truncate_dim 8": changed(SETTINGS, truncate_dim=8),
    "holds a CrossEncoder": changed(SETTINGS, model_type="CrossEncoder"),
    "do_lower_case": changed(BERT, do_lower_case=True),
    "processing_kwargs": changed(BERT, processing_kwargs={"text": {"max_length": 3}}),
    "transformer_task text-generation": changed(BERT, transformer_task="text-generation"),
    "modality_config": changed(BERT, modality_config={"message": {"method": "forward"}}),
    "found weightedmean": changed(POOLING, pooling_mode="weightedmean"),
    "found mean, max": changed(POOLING, pooling_mode=["mean", "max"]),
    "include_prompt false": changed(POOLING, include_prompt=False),
    "activation_function torch.nn.modules.activation.ELU": changed(
        DENSE, activation_function="torch.nn.modules.activation.ELU"
    ),
    "module_input_name token_embeddings": changed(DENSE, module_input_name="token_embeddings"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("refused")
    saved(sentence(modules().Dense(WIDTH, 10), prompts=PROMPTS), path)
    return path / "saved"


@pytest.mark.parametrize("line", REFUSED)
def test_what_a_recipe_has_not_is_refused_by_name(tmp_path: Path, folder: Path, line: str) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "folder")
    REFUSED[line](tmp_path / "folder")
    with pytest.raises(ConfigError, match=line) as error:
        import_model("sentence-transformers", tmp_path / "folder", tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "kinds",
    [
        ["Transformer", "Pooling", "LSTM"],
        ["Transformer", "Pooling", "LayerNorm"],
        ["Transformer"],
        ["Transformer", "Normalize"],
        ["StaticEmbedding"],
        ["Transformer", "Dense", "Pooling"],
        ["Transformer", "Pooling", "Normalize", "Dense"],
    ],
)
def test_other_modules_are_refused_by_name(tmp_path: Path, kinds: list[str]) -> None:
    rows = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(ConfigError, match=r"modules.json: ") as error:
        import_model("sentence-transformers", tmp_path, tmp_path / "run")
    assert "\n" not in str(error.value)
