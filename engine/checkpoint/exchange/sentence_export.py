"""Text streams as folders of sentence-transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoTokenizer

from ....connectors.poolers import Cls, Dense, First, Last, Max, Mean
from ....modalities.messages import did_you_mean, quiet_loading
from ....modalities.text.causal_lm import CausalLM
from ....modalities.text.hf import HubText
from ....modalities.text.transformers import NoPooler
from ...model import Model
from ...utils import ConfigError, atomic_folder, write_json
from .common import Json
from .export import merge_adapters, save_tokenizer
from .sentence_modules import ACTIVATIONS, POOLING, SETTINGS

POOLERS: dict[type, str] = {Mean: "mean", Max: "max", Cls: "cls", First: "cls", Last: "lasttoken"}
"""Connectors, and the library's pooling."""


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
    layers, activation = _layers(stream.connector)
    kinds = ["Transformer", "Pooling", *["Dense"] * len(layers), "Normalize"]
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
        write_json(beside / SETTINGS, _settings(model.plan.streams[name].prompt))
        pooling = {k: value == mode for k, value in POOLING.items()}
        pooling = {"word_embedding_dimension": encoder.dim, **pooling}
        write_json(beside / folders[1] / "config.json", pooling)
        for folder, layer in zip(folders[2:], layers, strict=False):
            _save_dense(beside / folder, layer, activation)
    return where


def _settings(prompt: str) -> Json:
    """Return the settings of the folder: its prompt stands before every text."""
    settings = {"similarity_fn_name": "cosine"}
    if not prompt:
        return settings
    prompts = {"query": prompt, "document": prompt}
    return {**settings, "prompts": prompts, "default_prompt_name": "query"}


def _layers(connector: Any) -> tuple[list[nn.Linear], str]:
    """Return the linear layers behind the pooling, and the activation after each."""
    if isinstance(connector, Dense):
        return [*connector.layers], connector.activation_name
    return [connector.map] if isinstance(connector.map, nn.Linear) else [], "identity"


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
    inner = stream.connector
    pooler = inner.pool if isinstance(inner, Dense) else inner
    mode = POOLERS.get(type(pooler))
    if mode is None:
        kind = type(stream.connector).__name__ if stream.connector else "none"
        raise ConfigError(
            f"{where}.connector: found {kind}, expected dense, mean, max, cls, first or last"
        )
    causal = isinstance(stream.encoder, CausalLM)
    return "lasttoken" if mode == "cls" and type(pooler) is Cls and causal else mode


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


def _save_dense(folder: Path, layer: nn.Linear, activation: str) -> None:
    state = {"linear.weight": layer.weight, "linear.bias": layer.bias}
    save_file({name: value.detach().contiguous() for name, value in state.items()},
              folder / "model.safetensors")  # fmt: skip
    named = next(path for path, name in ACTIVATIONS.items() if name == activation)
    sizes = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": True}
    write_json(folder / "config.json", {**sizes, "activation_function": named})
