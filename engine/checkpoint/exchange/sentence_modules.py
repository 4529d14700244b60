"""Folders of sentence-transformers: their modules, routes, settings and prompts."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoConfig

from ...utils import ConfigError
from .common import Json

logger = logging.getLogger(__name__)

SETTINGS = "config_sentence_transformers.json"

POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Older keys of a pooling, and its name."""

ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.SiLU": "silu",
}
"""Classes of torch, and the activations of the connector `dense`."""

Modules = list[tuple[str, Path]]
"""Kind and folder of each module, in order."""

TASKS = {"query": "query", "passage": "document"}
"""Stream, and the library's task, whose route and prompt are the stream's."""

DOCUMENTS = ("document", "passage", "corpus")
"""Names of the prompt of documents; the first that is not empty. (The library's own
`encode_document` takes an empty `document`, which it writes into each folder, before `passage`.)"""


def read_json(file: Path) -> Json:
    """Return a JSON file's values, none if there is no such file."""
    values: Json = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return values


def routes(path: Path) -> dict[str, Modules]:
    """Return the modules of each stream of `TASKS`. Raise ConfigError for a router that chooses by
    more than the task."""
    listed = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    modules = [(_kind(m["type"]), path / m["path"]) for m in listed]
    if modules and modules[0][0] in ("Router", "Asym"):
        (_, folder), after = modules[0], modules[1:]
        config = read_json(folder / "router_config.json") or read_json(folder / "config.json")
        return {
            stream: [
                *((_kind(config["types"][m]), folder / m) for m in _route(config, task)),
                *after,
            ]
            for stream, task in TASKS.items()
        }
    return dict.fromkeys(TASKS, modules)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _route(config: Json, task: str) -> list[str]:
    """Return the modules that a router applies to texts of a task."""
    structure: dict[str, list[str]] = config["structure"]
    parameters = config.get("parameters") or {}
    by_key = {
        ast.literal_eval(key): route
        for key, route in (parameters.get("route_mappings") or {}).items()
    }
    for key in ((task, "text"), (task, None), (None, "text"), (None, None)):
        if key in by_key:
            return structure[by_key[key]]
    for name in (task, "text"):
        if name in structure:
            return structure[name]
    default = parameters.get("default_route")
    if default is None and parameters.get("allow_empty_key", True):
        default = next(iter(structure))
    if default is None:
        raise ConfigError(
            f"router_config.json: has no route of {task} texts; found {', '.join(structure)}"
        )
    return structure[default]


def check_settings(settings: Mapping[str, Any], kind: str, normalized: bool) -> None:
    """Raise ConfigError for vectors that are compared or cut as no index does.

    kind: the model's class. normalized: its vectors are of unit length.
    """
    found = settings.get("model_type", kind)
    if found != kind:
        raise ConfigError(f"{SETTINGS}: holds a {found}, expected a {kind}; use its own kind")
    named = settings.get("similarity_fn_name")
    fits = {"SparseEncoder": (None, "dot"), "SentenceTransformer": (None, "cosine")}[kind]
    if named not in fits and not (normalized and named in ("dot", "euclidean")):
        cure = ", or dot with a last module Normalize" if kind == "SentenceTransformer" else ""
        raise ConfigError(f"{SETTINGS}: similarity_fn_name {named}, expected {fits[1]}{cure}")
    if settings.get("truncate_dim") is not None:
        raise ConfigError(
            f"{SETTINGS}: truncate_dim {settings['truncate_dim']} cuts the vectors; set it to "
            "null, and choose the width by `sensorium embed --dim`"
        )


def stream_prompts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the prompt of each stream of `TASKS`: those of `encode_query` and `encode_document`,
    or the default one of `encode` for a folder that has neither. Log the others."""
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    document = next((name for name in DOCUMENTS if name in prompts), "document")
    by_stream = {"query": prompts.get("query", ""), "passage": prompts.get(document, "")}
    default = settings.get("default_prompt_name")
    if default in prompts and not any(by_stream.values()):
        by_stream = dict.fromkeys(TASKS, prompts[default])
    for name, text in prompts.items():
        if text not in by_stream.values():
            logger.warning("the prompt %r of %s texts is not read; set it as `prompt`", text, name)
    return by_stream


def transformer_settings(folder: Path, tasks: tuple[str, ...]) -> Json:
    """Return the settings of a Transformer module. Raise ConfigError for those that would change
    its ids or its output. tasks: `transformer_task`s that fit."""
    file = next(iter(sorted(folder.glob("sentence_*_config.json"))), folder / "none")
    settings = read_json(file)
    if (task := settings.get("transformer_task", tasks[0])) not in tasks:
        raise ConfigError(f"{file.name}: transformer_task {task}, expected {tasks[0]}")
    for key in ("processing_kwargs", "tokenizer_name_or_path"):
        if settings.get(key):
            raise ConfigError(f"{file.name}: {key} is not read here; found {settings[key]}")
    output = settings.get("modality_config", {}).get("text", {})
    names = ("last_hidden_state", "logits")
    if "message" in settings.get("modality_config", {}) or not (
        output.get("method", "forward") == "forward"
        and output.get("method_output_name", names[0]) in names
    ):
        raise ConfigError(
            f"{file.name}: modality_config {settings['modality_config']}, expected texts whose "
            "last_hidden_state is read"
        )
    if settings.get("do_lower_case") and not _lowercases(folder):
        raise ConfigError(
            f"{file.name}: do_lower_case, and the tokenizer keeps capitals; add a Lowercase "
            "normalizer to tokenizer.json"
        )
    return settings


def _lowercases(folder: Path) -> bool:
    file = folder / "tokenizer.json"
    normalizer = Tokenizer.from_file(str(file)).normalizer if file.is_file() else None
    return normalizer is not None and normalizer.normalize_str("A") == "a"


def text_length(folder: Path, config: Any) -> int:
    """Return the tokens of a text that are read: `max_seq_length`, or the tokenizer's limit, or the
    model's positions."""
    file = next(iter(sorted(folder.glob("sentence_*_config.json"))), folder / "none")
    settings, limits = read_json(file), read_json(folder / "tokenizer_config.json")
    whole: int = getattr(config, "max_position_embeddings", 512)
    padded = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
    whole -= 2 if padded else 0
    return int(
        settings.get("max_seq_length") or min(whole, limits.get("model_max_length") or whole)
    )


def pooling_mode(folder: Path, prompted: bool) -> str:
    """Return the name of a pooling. Raise ConfigError for one that no connector is.

    prompted: texts begin with a prompt, which has to be pooled too.
    """
    config = read_json(folder / "config.json")
    older = [k for k, v in config.items() if v is True and k.startswith("pooling_mode")]
    mode = config.get("pooling_mode") or [POOLING.get(key, key) for key in older] or "mean"
    modes = [mode] if isinstance(mode, str) else mode
    if len(modes) > 1 or modes[0] not in POOLING.values():
        raise ConfigError(
            f"{folder.name}: found {', '.join(modes)}, expected one of "
            f"{', '.join(POOLING.values())}"
        )
    if prompted and not config.get("include_prompt", True):
        raise ConfigError(
            f"{folder.name}: include_prompt false leaves the prompt out of the pooling, which no "
            "connector does"
        )
    return str(modes[0])


def model_config(folder: Path) -> Any:
    return AutoConfig.from_pretrained(folder)
