"""Folders of sentence-transformers as recipes, and streams as such folders."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoTokenizer

from ....connectors.poolers import Cls, First, Last, Max, Mean
from ....modalities.messages import did_you_mean, quiet_loading
from ....modalities.text.causal_lm import CausalLM
from ....modalities.text.hf import HubText
from ....modalities.text.transformers import NoPooler
from ...model import Model
from ...utils import ConfigError, atomic_folder, write_json
from .common import Imported, Json, tokenizer_of
from .export import merge_adapters, save_tokenizer

logger = logging.getLogger(__name__)

POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


def sentence_transformers(path: Path) -> Imported:
    """sentence-transformers (Reimers and Gurevych 2019): a model, a pooling, an optional dense map;
    vectors are compared by their cosine. A SparseEncoder's are compared by the dot product."""
    kinds = _modules(path)
    _check_prompts(path)
    if "SpladePooling" in kinds:
        return _sparse(kinds)
    inner = kinds["Transformer"]
    pooling = json.loads((kinds["Pooling"] / "config.json").read_text(encoding="utf-8"))
    modes = [mode for key, mode in POOLING.items() if pooling.get(key)]
    modes += [k for k, v in pooling.items() if v is True and k not in POOLING
              and k.startswith("pooling_mode")]  # fmt: skip
    mode = pooling.get("pooling_mode") or (modes[0] if len(modes) == 1 else "")
    connector = {"mean": "mean", "max": "max", "cls": "cls", "last": "cls", "lasttoken": "cls"}
    if mode not in connector or len(modes) > 1:
        listed = ", ".join(modes) or mode
        raise ConfigError(f"1_Pooling: found {listed}, expected one of mean, max, cls, lasttoken")
    config = AutoConfig.from_pretrained(inner)
    length = text_length(inner, config)
    width = config.hidden_size
    dense = _dense(kinds["Dense"], width) if "Dense" in kinds else None
    dim = width if dense is None else dense["out_features"]
    encoder = {
        "type": "causal_lm" if mode in ("last", "lasttoken") else "transformers",
        "name": str(inner),
        "weights": "pretrained",
        "tokenizer": tokenizer_of(inner),
        "max_length": length,
    }
    recipe = {
        "inputs": {
            "query": {"modality": "text", "encoder": encoder, "connector": connector[mode]},
            "passage": {"share": "query"},
        },
        "tasks": {"search": {"type": "contrastive", "streams": ["query", "passage"], "dim": dim}},
    }

    def fill(ours: Model) -> None:
        if dense is not None:
            target: Any = ours.stream("query").connector
            target.map.weight.copy_(dense["weight"])
            target.map.bias.copy_(dense.get("bias", torch.zeros(dim)))

    return Imported(recipe, fill)


def text_length(folder: Path, config: Any) -> int:
    """Return the tokens of a text that are read: `max_seq_length`, or the tokenizer's limit, or the
    model's positions."""
    file, own = folder / "sentence_bert_config.json", folder / "tokenizer_config.json"
    settings = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    limits = json.loads(own.read_text("utf-8")) if own.is_file() else {}
    whole: int = getattr(config, "max_position_embeddings", 512)
    padded = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
    whole -= 2 if padded else 0
    return int(
        settings.get("max_seq_length") or min(whole, limits.get("model_max_length") or whole)
    )


def _sparse(kinds: dict[str, Path]) -> Imported:
    """Return the recipe of a SparseEncoder: a language-model head and SPLADE's pooling."""
    inner = kinds["MLMTransformer"]
    pooling = json.loads((kinds["SpladePooling"] / "config.json").read_text(encoding="utf-8"))
    if pooling.get("activation_function", "relu") != "relu":
        raise ConfigError(
            f"SpladePooling: found activation_function {pooling['activation_function']}, expected "
            "relu"
        )
    text = {
        "type": "transformers",
        "name": str(inner),
        "weights": "pretrained",
        "tokenizer": tokenizer_of(inner),
        "max_length": text_length(inner, AutoConfig.from_pretrained(inner)),
        "lm_head": True,
    }
    query = {
        "modality": "text",
        "encoder": {"type": "vocabulary", "encoder": text},
        "connector": {"type": "lexical", "pool": pooling.get("pooling_strategy", "max")},
    }
    task = {"type": "contrastive", "streams": ["query", "passage"], "similarity": "dot"}
    return Imported(
        {
            "inputs": {"query": query, "passage": {"share": "query"}},
            "tasks": {"search": {**task, "dim": None}},
        }
    )


def _modules(path: Path) -> dict[str, Path]:
    """Return the folder of each module, by kind. Raise ConfigError for kinds or an order that a
    recipe does not have."""
    modules = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    names = [m["type"].rpartition(".")[2] for m in modules]
    kinds = dict(zip(names, [path / m["path"] for m in modules], strict=True))
    if names == ["MLMTransformer", "SpladePooling"]:
        return kinds
    known = ("Transformer", "Pooling", "Dense", "Normalize")
    if others := [kind for kind in kinds if kind not in known]:
        raise ConfigError(f"modules.json: {others[0]} is no part that a recipe has")
    if names != [kind for kind in known if kind in kinds] or "Pooling" not in kinds:
        raise ConfigError(
            f"modules.json: found {', '.join(names)}, expected Transformer, Pooling, at most one "
            "Dense, and Normalize, in this order"
        )
    return kinds


def _check_prompts(path: Path) -> None:
    """Raise ConfigError for a prompt that the library puts before every text, and log those that it
    puts there by name: a stream reads its texts as they are."""
    file = path / "config_sentence_transformers.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    default = settings.get("default_prompt_name")
    if default in prompts:
        raise ConfigError(
            f"{file.name}: default_prompt_name puts {prompts[default]!r} before every text, which "
            "a stream does not; put it into the texts, and set default_prompt_name to null"
        )
    for name, text in prompts.items():
        logger.warning(
            "the prompt %r of %s texts is not added; their column must hold it", text, name
        )


def _dense(folder: Path, width: int) -> Json:
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    linear = config.get("activation_function", "").rpartition(".")[2] == "Identity"
    if not linear or config["in_features"] != width or config["out_features"] == width:
        raise ConfigError(
            f"{folder.name}: is no linear map to another width, which the connectors have"
        )
    state = load_file(folder / "model.safetensors")
    return {**config, **{name.removeprefix("linear."): value for name, value in state.items()}}


POOLERS: dict[type, str] = {Mean: "mean", Max: "max", Cls: "cls", First: "cls", Last: "lasttoken"}


def export_sentence_transformers(model: Model, part: str, out: Path) -> str:
    """Write a text stream as a folder that `SentenceTransformer(...)` opens, its vectors of unit
    length, and return the stream's place.

    part: the stream, `inputs.query`. Raise ConfigError, one line, for a part that the library does
    not have.
    """
    name = part.removeprefix("inputs.")
    if name not in model.streams:
        raise ConfigError(
            f"--part: there is no stream {part!r}{did_you_mean(name, model.streams)}; name one, as "
            "in --part inputs.query"
        )
    where, stream = f"inputs.{name}", model.stream(name)
    inner, mode = _text_model(stream.encoder, where), _pooling(stream, where)
    encoder: Any = stream.encoder
    dim, width = stream.dim, encoder.dim
    kinds = ["Transformer", "Pooling", *(["Dense"] if dim != width else []), "Normalize"]
    with quiet_loading(), atomic_folder(out, "--out") as beside:
        folders = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
        for folder in folders:
            (beside / folder).mkdir(exist_ok=True)
        modules = [
            {
                "idx": i,
                "name": str(i),
                "path": folder,
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, (kind, folder) in enumerate(zip(kinds, folders, strict=True))
        ]
        write_json(beside / "modules.json", modules)
        inner.save_pretrained(beside)
        save_text_tokenizer(beside, encoder, where)
        lengths = {"max_seq_length": encoder.processor.max_length, "do_lower_case": False}
        write_json(beside / "sentence_bert_config.json", lengths)
        write_json(beside / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
        key = next(key for key, value in POOLING.items() if value == mode.removesuffix("token"))
        pooling = {"word_embedding_dimension": width, **{k: k == key for k in POOLING}}
        write_json(beside / folders[1] / "config.json", pooling)
        if "Dense" in kinds:
            _save_dense(beside / folders[2], stream.connector, width, dim)
    return where


def _text_model(encoder: Any, where: str) -> Any:
    """Return a copy of the model of transformers, without its head. Raise ConfigError."""
    plain = isinstance(encoder, HubText) and not getattr(encoder, "echo", False)
    if not plain or getattr(encoder, "attention", "causal") != "causal":
        raise ConfigError(
            f"{where}.encoder: {type(encoder).__name__}, echo and attention: bidirectional are no "
            "parts of sentence-transformers; take type: transformers or causal_lm"
        )
    encoder = copy.deepcopy(encoder)
    merge_adapters(encoder)
    inner = encoder.encoder
    if isinstance(getattr(inner, "pooler", None), NoPooler):
        inner.pooler = None
    foreign = [m for m in inner.modules() if type(m).__module__.startswith("sensorium.")]
    if foreign:
        raise ConfigError(f"{where}.encoder: holds a {type(foreign[0]).__name__}, which is ours")
    return inner


def _pooling(stream: Any, where: str) -> str:
    """Return the library's pooling of a stream. Raise ConfigError for another connector."""
    mode = POOLERS.get(type(stream.connector))
    if mode is None:
        kind = type(stream.connector).__name__ if stream.connector else "none"
        raise ConfigError(
            f"{where}.connector: found {kind}, expected mean, max, cls, first or last"
        )
    causal = isinstance(stream.encoder, CausalLM)
    return "lasttoken" if mode == "cls" and type(stream.connector) is Cls and causal else mode


def save_text_tokenizer(folder: Path, encoder: Any, where: str) -> None:
    """Write the tokenizer with the ids that it puts around a text. Raise ConfigError if the
    library's reads a text otherwise."""
    tokenizer, sample = encoder.tokenizer, "a text, of two"
    if getattr(tokenizer, "backend", None) is None:
        kind = type(tokenizer).__name__
        raise ConfigError(f"{where}.encoder.tokenizer: {kind} is none of the tokenizers library")
    tokenizer = copy.deepcopy(tokenizer)
    ids, plain = tokenizer.encode(sample, special=True), tokenizer.encode(sample)
    if tokenizer.backend.encode(sample).ids != ids and len(ids) > len(plain):
        start = next(i for i in range(len(ids)) if ids[i : i + len(plain)] == plain)
        pieces = [tokenizer.backend.id_to_token(i) for i in ids]
        around = [*pieces[:start], "$A", *pieces[start + len(plain) :]]
        special = [(piece, tokenizer.backend.token_to_id(piece)) for piece in set(around) - {"$A"}]
        tokenizer.backend.post_processor = TemplateProcessing(
            single=" ".join(around), special_tokens=special
        )
    save_tokenizer(folder, tokenizer)
    if AutoTokenizer.from_pretrained(folder)(sample)["input_ids"] != ids:
        raise ConfigError(f"{where}.encoder.tokenizer: transformers reads a text as other ids")


def _save_dense(folder: Path, connector: Any, width: int, dim: int) -> None:
    state = {"linear.weight": connector.map.weight, "linear.bias": connector.map.bias}
    save_file({name: value.detach().contiguous() for name, value in state.items()},
              folder / "model.safetensors")  # fmt: skip
    activation = "torch.nn.modules.linear.Identity"
    sizes = {"in_features": width, "out_features": dim, "bias": True}
    write_json(folder / "config.json", {**sizes, "activation_function": activation})
