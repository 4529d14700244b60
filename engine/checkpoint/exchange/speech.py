"""Recognizers of speech as recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ...model import Model
from ...utils import ConfigError
from .common import Imported, Json, copy_weights, opened, plain, tokenizer_of

OFF = -1e4
"""The bias of a class that is never chosen, and has no share in a softmax."""


def wav2vec2_ctc(path: Path) -> Imported:
    """wav2vec 2.0, HuBERT, WavLM with a CTC head (Baevski et al. 2020): the letters of its
    vocabulary as classes, `|` as the space, its padding as the blank."""
    import transformers

    config = AutoConfig.from_pretrained(path)
    family = transformers.AutoModelForCTC._model_mapping.get(type(config), None)
    if family is None:
        raise ConfigError(f"holds a {config.model_type}, which has no CTC head")
    model = opened(path, family.__name__)
    if getattr(config, "add_adapter", False):
        raise ConfigError("add_adapter: its head follows an adapter, which is not supported")
    ids, settings = _vocabulary(path, config)
    classes, letters = _ctc_classes(ids, settings, config.pad_token_id)
    recipe = {
        "inputs": {
            "audio": {
                "modality": "audio",
                "encoder": {"type": "wav2vec2", "name": str(path), "weights": "pretrained"},
            }
        },
        "tasks": {"transcribe": {"type": "ctc", "tokenizer": {"type": "characters"}}},
    }
    states: dict[str, Json] = {
        "tasks.transcribe.tokenizer": {
            "letters": letters,
            "lower": not any(letter.isupper() for letter in letters),
        },
        "tasks.transcribe.condition_encoder": {"values": {}},
        "tasks.transcribe.lexicon_words": {"words": []},
    }

    def fill(ours: Model) -> None:
        head: Any = ours.task("transcribe").heads["head"]
        for row, index in enumerate(classes):
            if index is None:
                head.map.weight[row].zero_()
                head.map.bias[row] = OFF
            else:
                head.map.weight[row] = model.lm_head.weight[index]
                head.map.bias[row] = model.lm_head.bias[index]

    return Imported(recipe, fill, states)


def _ctc_classes(
    ids: dict[str, int], settings: Json, blank: int
) -> tuple[list[int | None], list[str]]:
    """Return the checkpoint's class of each class of the task (three special ones, letters, the
    blank; None if it has no such class), and the letters. Raise ConfigError for a class of several
    characters."""
    special = {settings.get(f"{name}_token") for name in ("pad", "bos", "eos", "unk")}
    special |= {"<pad>", "<s>", "</s>", "<unk>"}
    space = settings.get("word_delimiter_token", "|")
    texts = {
        i: " " if token == space else token for token, i in ids.items() if token not in special
    }
    if long := sorted(text for text in texts.values() if len(text) != 1):
        raise ConfigError(f"vocab.json: {long[0]!r} is no single character, as a class must be")
    defaults = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
    order = [ids.get(settings.get(f"{name}_token") or token) for name, token in defaults.items()]
    return [*order, *texts, blank], list(texts.values())


GENERATION = ("suppress_tokens", "begin_suppress_tokens")


def whisper(path: Path) -> Imported:
    """Whisper (Radford et al. 2022): its encoder over the whole window, and its decoder, which
    attends to that and begins with the tokens of language and task."""
    model = opened(path, "WhisperForConditionalGeneration")
    stored, length = model.generation_config, model.config.max_target_positions
    start = _whisper_start(stored, model.config)
    options = {key: getattr(stored, key, None) for key in GENERATION}
    encoder = {"type": "whisper", "name": str(path), "weights": "pretrained"}
    recipe = {
        "inputs": {"audio": {"modality": "audio", "encoder": {**encoder, "whole_window": True}}},
        "backbone": {
            "type": "seq2seq",
            "config": plain(model.config),
            "tokenizer": tokenizer_of(path),
            "own_encoder": False,
            "start": start,
            "generation": {key: value for key, value in options.items() if value},
        },
        "tasks": {
            "transcribe": {
                "type": "asr",
                "prompt": "<audio>",
                "target": " {text}",
                "max_new_tokens": length - len(start),
            }
        },
    }

    def fill(ours: Model) -> None:
        backbone: Any = ours.backbone
        copy_weights(backbone.model, model)

    return Imported(recipe, fill)


def _whisper_start(stored: Any, config: Any) -> list[int]:
    """Return the ids before a transcript: those that the checkpoint forces, or else English's,
    if it has languages, to be transcribed, without times."""
    start = [stored.decoder_start_token_id or config.decoder_start_token_id]
    forced = getattr(stored, "forced_decoder_ids", None)
    forced = forced or getattr(config, "forced_decoder_ids", None) or []
    start += [int(token) for _, token in forced if token is not None]
    languages, tasks = getattr(stored, "lang_to_id", None), getattr(stored, "task_to_id", None)
    if languages and not set(start) & set(languages.values()):
        language = getattr(stored, "language", None) or "<|en|>"
        if language not in languages:
            language = f"<|{language}|>"
        if language not in languages:
            raise ConfigError(f"generation_config.language: found {language}, which has no id")
        start.insert(1, languages[language])
    if tasks and not set(start) & set(tasks.values()):
        start.append(tasks[getattr(stored, "task", None) or "transcribe"])
    last = getattr(stored, "no_timestamps_token_id", None)
    return start if last is None or last in start else [*start, last]


def _vocabulary(path: Path, config: Any) -> tuple[dict[str, int], Json]:
    file, settings = path / "vocab.json", path / "tokenizer_config.json"
    ids: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
    if len(ids) != config.vocab_size:
        extra = {v: k for k, v in ids.items()}
        added = path / "added_tokens.json"
        if added.is_file():
            ids |= json.loads(added.read_text(encoding="utf-8"))
        if len(ids) != config.vocab_size:
            raise ConfigError(
                f"vocab.json: has {len(extra)} tokens, the model {config.vocab_size} classes"
            )
    values = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return ids, {k: v["content"] if isinstance(v, dict) and "content" in v else v
                 for k, v in values.items()}  # fmt: skip
