"""sentence-transformers as recipes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ...model import Model
from ...utils import ConfigError
from .common import Imported, Json, tokenizer_of

logger = logging.getLogger(__name__)

POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


def sentence_transformers(path: Path) -> Imported:
    """sentence-transformers (Reimers and Gurevych 2019): a model, a pooling, an optional dense map;
    vectors are compared by their cosine."""
    kinds = _modules(path)
    _check_prompts(path)
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
    settings_file = inner / "sentence_bert_config.json"
    settings = json.loads(settings_file.read_text("utf-8")) if settings_file.is_file() else {}
    length = settings.get("max_seq_length") or getattr(config, "max_position_embeddings", 512)
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


def _modules(path: Path) -> dict[str, Path]:
    """Return the folder of each module, by kind. Raise ConfigError for kinds or an order that a
    recipe does not have."""
    modules = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    names = [m["type"].rpartition(".")[2] for m in modules]
    kinds = dict(zip(names, [path / m["path"] for m in modules], strict=True))
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
