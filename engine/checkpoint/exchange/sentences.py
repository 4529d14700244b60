"""Folders of sentence-transformers as recipes: dense vectors and sparse ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...model import Model
from ...utils import ConfigError
from .common import Imported, Json, tokenizer_of
from .sentence_modules import (
    ACTIVATIONS,
    SETTINGS,
    Modules,
    check_settings,
    model_config,
    pooling_mode,
    read_json,
    routes,
    stream_prompts,
    text_length,
    transformer_settings,
)

CONNECTORS = {"mean": "mean", "max": "max", "cls": "cls", "lasttoken": "cls"}
"""Pooling, and the connector of the same vectors; a `causal_lm` pools its last token."""

ORDER = "Transformer Pooling( Dense)*( Normalize)?"
SPARSE = ["MLMTransformer", "SpladePooling"], ["Transformer", "SpladePooling"]
KNOWN = {"MLMTransformer", "Transformer", "Pooling", "SpladePooling", "Dense", "Normalize"}


@dataclass(frozen=True)
class Side:
    """A stream's section, the width of its vectors, and what fills its connector."""

    section: Json
    dim: int | None
    fill: Callable[[Any], None] = lambda connector: None


def sentence_transformers(path: Path) -> Imported:
    """A SentenceTransformer (Reimers and Gurevych 2019): a model, a pooling and dense layers, whose
    vectors are compared by their cosine; or a SparseEncoder, by the dot product.

    The streams are those of `encode_query` and `encode_document`, with their prompts. A Router's
    routes of the two are different streams; other folders have one encoder.
    """
    by_stream, settings = routes(path), read_json(path / SETTINGS)
    sparse = {_is_sparse(modules) for modules in by_stream.values()}
    if len(sparse) > 1:
        raise ConfigError("router_config.json: one route is sparse, the other dense")
    kind = "SparseEncoder" if sparse == {True} else "SentenceTransformer"
    normalized = all(modules[-1][0] == "Normalize" for modules in by_stream.values())
    check_settings(settings, kind, normalized)
    prompts = stream_prompts(settings)
    shared = by_stream["query"] == by_stream["passage"]
    sides: dict[str, Side] = {}
    for name, modules in by_stream.items():
        if not (shared and sides):
            read = _sparse if sparse == {True} else _dense
            sides[name] = read(modules, any(prompts.values()) if shared else bool(prompts[name]))
    if len({side.dim for side in sides.values()}) > 1:
        widths = " and ".join(str(side.dim) for side in sides.values())
        raise ConfigError(f"router_config.json: the routes' vectors have the widths {widths}")
    inputs = {name: side.section for name, side in sides.items()}
    inputs.setdefault("passage", {"share": "query"})
    if any(prompts.values()):
        inputs = {name: {**section, "prompt": prompts[name]} for name, section in inputs.items()}
    task = {"type": "contrastive", "streams": [*inputs], "dim": sides["query"].dim}
    task |= {"similarity": "dot"} if sparse == {True} else {}

    def fill(ours: Model) -> None:
        for name, side in sides.items():
            side.fill(ours.stream(name).connector)

    return Imported({"inputs": inputs, "tasks": {"search": task}}, fill)


def _is_sparse(modules: Modules) -> bool:
    """Return whether modules make sparse vectors. Raise ConfigError for kinds or an order that a
    recipe does not have."""
    names = [kind for kind, _ in modules]
    if names in SPARSE:
        return True
    if others := [kind for kind in names if kind not in KNOWN]:
        raise ConfigError(f"modules.json: {others[0]} is no part that a recipe has")
    if not re.fullmatch(ORDER, " ".join(names)):
        raise ConfigError(
            f"modules.json: found {', '.join(names)}, expected Transformer, Pooling, Dense modules "
            "or none, and Normalize, in this order; or Transformer, SpladePooling"
        )
    return False


def _dense(modules: Modules, prompted: bool) -> Side:
    """Return the stream of a Transformer, a Pooling, and Dense modules."""
    (_, inner), (_, pooling), *rest = modules
    transformer_settings(inner, ("feature-extraction",))
    mode, config = pooling_mode(pooling, prompted), model_config(inner)
    width: int = config.hidden_size
    layers = [_layer(folder) for kind, folder in rest if kind == "Dense"]
    activations = {layer["activation"] for layer in layers}
    if len(activations) > 1:
        raise ConfigError(f"Dense: found {', '.join(sorted(activations))}, expected one activation")
    dim = layers[-1]["weight"].shape[0] if layers else width
    connector: Any = CONNECTORS[mode]
    if layers and (len(layers) > 1 or activations != {"identity"} or dim == width):
        hidden = [layer["weight"].shape[0] for layer in layers[:-1]]
        connector = {"type": "dense", "pool": connector, "hidden": hidden}
        connector["activation"] = activations.pop()

    def fill(target: Any) -> None:
        maps = target.layers if isinstance(connector, dict) else [target.map] if layers else []
        for linear, layer in zip(maps, layers, strict=True):
            linear.weight.copy_(layer["weight"])
            linear.bias.copy_(layer.get("bias", torch.zeros(len(layer["weight"]))))

    encoder = {
        "type": "causal_lm" if mode == "lasttoken" else "transformers",
        **_text(inner, config),
    }
    return Side({"modality": "text", "encoder": encoder, "connector": connector}, dim, fill)


def _text(inner: Path, config: Any) -> Json:
    return {
        "name": str(inner),
        "weights": "pretrained",
        "tokenizer": tokenizer_of(inner),
        "max_length": text_length(inner, config),
    }


def _layer(folder: Path) -> dict[str, Any]:
    """Return `weight`, perhaps `bias`, and `activation` of a Dense module. Raise ConfigError for
    one that reads other values than the pooled vector."""
    config = read_json(folder / "config.json")
    named = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if named not in ACTIVATIONS:
        raise ConfigError(
            f"{folder.name}: activation_function {named}, expected one of {', '.join(ACTIVATIONS)}"
        )
    for key in ("module_input_name", "module_output_name"):
        if (place := config.get(key) or "sentence_embedding") != "sentence_embedding":
            raise ConfigError(f"{folder.name}: {key} {place}, expected sentence_embedding")
    state: dict[str, Tensor] = load_file(folder / "model.safetensors")
    values = {name.removeprefix("linear."): value for name, value in state.items()}
    return {**values, "activation": ACTIVATIONS[named]}


def _sparse(modules: Modules, prompted: bool) -> Side:
    """Return the stream of a language-model head and SPLADE's pooling."""
    (_, inner), (_, pooling) = modules
    transformer_settings(inner, ("fill-mask",))
    config = read_json(pooling / "config.json")
    if config.get("activation_function", "relu") != "relu":
        raise ConfigError(
            f"SpladePooling: found activation_function {config['activation_function']}, expected "
            "relu"
        )
    text = {"type": "transformers", **_text(inner, model_config(inner)), "lm_head": True}
    section = {
        "modality": "text",
        "encoder": {"type": "vocabulary", "encoder": text},
        "connector": {"type": "lexical", "pool": config.get("pooling_strategy", "max")},
    }
    return Side(section, None)
