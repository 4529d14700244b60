"""Cross-encoders of sentence-transformers as runs, and runs as such folders."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from ....connectors.poolers import Mean
from ....modalities.messages import did_you_mean, quiet_loading
from ....modalities.text.encoders import SequenceClassifier
from ....tasks.reranking import Reranking
from ...model import Model
from ...utils import ConfigError, atomic_folder, write_json
from .common import Imported, Json, tokenizer_of
from .export import merge_adapters
from .sentence_export import export_sentence_transformers, save_text_tokenizer
from .sentence_modules import SETTINGS, read_json, text_length, transformer_settings

ACTIVATIONS = {"Identity": "none", "Sigmoid": "sigmoid", "Softmax": "softmax"}
"""Classes of torch, and the activations of the task `reranking`."""


def cross_encoder(path: Path) -> Imported:
    """A CrossEncoder (Reimers and Gurevych 2019): a sequence classifier, whose scores of a query
    and a passage are those of the folder after its activation."""
    prompt = _check_modules(path)
    config = AutoConfig.from_pretrained(path)
    labels = int(config.num_labels)
    encoder = {
        "type": "sequence_classifier",
        "name": str(path),
        "weights": "pretrained",
        "tokenizer": tokenizer_of(path),
        "max_length": text_length(path, config),
        "token_types": "token_type_ids" in AutoTokenizer.from_pretrained(path)("a", "b"),
    }
    task: Json = {
        "type": "reranking",
        "head": {"type": "mean"},
        "activation": _activation(path, config, labels),
        **({"loss": "classes", "num_labels": labels, "relevance": "label"} if labels > 1 else {}),
    }
    inputs: Json = {"query": {"modality": "text", "encoder": encoder}}
    inputs["passage"] = {"share": "query"}
    if prompt:
        inputs["query"]["prompt"], inputs["passage"]["prompt"] = prompt, ""
    return Imported({"inputs": inputs, "tasks": {"rank": task}})


def _check_modules(path: Path) -> str:
    """Return the prompt that stands before the queries. Raise ConfigError if the folder's score is
    not that of one sequence classifier."""
    file = path / "modules.json"
    modules = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    names = [m["type"].rpartition(".")[2] for m in modules]
    if names not in ([], ["Transformer"]) or any(m["path"] for m in modules):
        raise ConfigError(
            f"modules.json: found {', '.join(names)}, expected one Transformer, a sequence "
            "classifier in the folder itself"
        )
    transformer_settings(path, ("sequence-classification",))
    settings = read_json(path / SETTINGS)
    kind = settings.get("model_type", "SentenceTransformer" if modules else "CrossEncoder")
    if kind != "CrossEncoder":
        raise ConfigError(f"holds a {kind}, expected a CrossEncoder; use its own kind")
    prompts = settings.get("prompts") or {}
    return prompts.get(settings.get("default_prompt_name")) or ""


def _activation(path: Path, config: Any, labels: int) -> str:
    """Return the activation of the scores: the one that the folder names, or the library's."""
    older = getattr(config, "sentence_transformers", None) or {}
    listed = read_json(path / SETTINGS) if (path / "modules.json").is_file() else {}
    named = (
        listed.get("activation_fn")
        or older.get("activation_fn")
        or getattr(config, "sbert_ce_default_activation_function", None)
        or ("Sigmoid" if labels == 1 else "Identity")
    )
    name = str(named).rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation_fn: found {named}, expected one of {', '.join(ACTIVATIONS)} of torch"
        )
    return ACTIVATIONS[name]


def export_cross_encoder(model: Model, part: str, out: Path) -> str:
    """Write a reranking task as a folder that `CrossEncoder(...)` opens, and return its place.

    part: the task, `tasks.rank`. Raise ConfigError, one line, for a task or a part that the library
    does not have.
    """
    name = part.removeprefix("tasks.")
    tasks = {n: t.task for n, t in model.plan.tasks.items() if isinstance(t.task, Reranking)}
    if name not in tasks:
        raise ConfigError(
            f"--part: there is no reranking task {part!r}{did_you_mean(name, tasks)}; name one, as "
            "in --part tasks.rank"
        )
    task, where = tasks[name], f"tasks.{name}"
    encoder, head = model.stream(task.query).encoder, task.heads["head"]
    if not isinstance(encoder, SequenceClassifier) or not isinstance(head, Mean):
        raise ConfigError(
            f"{where}: is no sequence classifier of transformers; train one with encoder: {{type: "
            "sequence_classifier, ...}} and head: {type: mean}"
        )
    prompt = model.plan.streams[task.query].prompt
    others = (n for n in (task.passage, task.candidates) if n is not None)
    if unread := [name for name in others if model.plan.streams[name].prompt]:
        raise ConfigError(
            f"inputs.{unread[0]}.prompt: a CrossEncoder has a prompt before queries alone"
        )
    if task.template is not None or any(True for _ in head.parameters()):
        raise ConfigError(f"{where}: has a template or a map behind its scores; leave both out")
    activation = next(key for key, value in ACTIVATIONS.items() if value == task.activation)
    encoder = copy.deepcopy(encoder)
    merge_adapters(encoder)
    place = "linear" if activation == "Identity" else "activation"
    settings = {"activation_fn": f"torch.nn.modules.{place}.{activation}"}
    encoder.model.config.sentence_transformers = settings
    with quiet_loading(), atomic_folder(out, "--out") as beside, torch.no_grad():
        encoder.model.save_pretrained(beside)
        if prompt:
            _save_prompt(beside, prompt, settings)
        save_text_tokenizer(beside, encoder, where)
        file = beside / "tokenizer_config.json"
        read = ["input_ids", "attention_mask"]
        read += ["token_type_ids"] if "types" in encoder.supports else []
        limits = {"model_max_length": encoder.processor.max_length, "model_input_names": read}
        write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **limits})
    return where


def _save_prompt(folder: Path, prompt: str, settings: Json) -> None:
    """Write the files that the library reads a prompt from."""
    kind = "sentence_transformers.models.Transformer"
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    write_json(
        folder / "sentence_bert_config.json", {"transformer_task": "sequence-classification"}
    )
    prompts = {"prompts": {"query": prompt}, "default_prompt_name": "query"}
    write_json(folder / SETTINGS, {"model_type": "CrossEncoder", **settings, **prompts})


FOLDERS = {
    "sentence-transformers": export_sentence_transformers,
    "cross-encoder": export_cross_encoder,
}
"""Formats of sentence-transformers, of a stream and of a task."""
