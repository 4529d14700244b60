"""Models of transformers that read text: classes that AutoModel does not map by their
configuration, and what a small copy of a model shows of it."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, PreTrainedModel

from ..base import Tokenizer
from ..submodules import list_of_layers, unreached


def class_of(config: Any) -> Any:
    """Return the class of a configuration that AutoModel does not map, as those of the towers of
    dual models; None if it does, or there is no one class that reads ids."""
    if type(config) in MODEL_MAPPING:
        return None
    path = type(config).__module__.replace(".configuration_", ".modeling_")
    known: dict[str, Any] = vars(importlib.import_module(path))
    classes: list[Any] = [
        kind
        for kind in known.values()
        if isinstance(kind, type)
        and issubclass(kind, PreTrainedModel)
        and getattr(kind, "config_class", None) is type(config)
        and kind.__module__ == path
        and getattr(kind, "main_input_name", None) == "input_ids"
    ]
    return _Direct(classes[0]) if len(classes) == 1 else None


class _Direct:
    """A class of transformers, used as an Auto class is."""

    def __init__(self, kind: Any) -> None:
        self.from_config, self.from_pretrained = kind._from_config, kind.from_pretrained


def check_length(kind: str, limit: int | None, embeds: torch.Tensor | None) -> None:
    """Raise ValueError for embeddings `[B, L, E]` of more tokens than a model has positions."""
    if embeds is not None and limit is not None and embeds.shape[1] > limit:
        raise ValueError(
            f"{kind}: found {embeds.shape[1]} embeddings, the model has {limit} positions; shorten "
            "the text or what stands in front of it"
        )


ROWS = 64
"""Rows of the table of a small copy."""


@dataclass(frozen=True)
class TextTrial:
    """What a small copy showed. fails: abilities that it does not have (`inputs_embeds`: embeddings
    of ids give what the ids give; `layer_hooks`: every layer is called). unused: parameters that
    its hidden states do not depend on, `#` for each number. causal: the last token changes no
    state before it, in a model that was seen to run."""

    fails: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    causal: bool = False


def try_text(model: Any, *ends: int | None) -> TextTrial:
    """Try a copy of a text model with two layers and few ids, on the CPU; cached by configuration.

    ends: ids that stand around every text. Of a model that does not run so, nothing is known.
    """
    key = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
    known = tuple(i for i in ends if i is not None and i < ROWS)
    return _try(cast(Hashable, type(model)), key, _Config(model.config), known)


class _Config:
    """A configuration that takes no part in the key of the cache."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Config)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=64)
def _try(family: Any, key: str, config: _Config, ends: tuple[int, ...]) -> TextTrial:
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.enable_grad():
            torch.manual_seed(0)
            return _observe(_small(family, copy.deepcopy(config.value)), ends)
    except Exception:  # whatever a library's class raises where it is built in another size
        return TextTrial()


def _small(family: Any, config: Any) -> Any:
    count = getattr(config, "num_hidden_layers", 1)
    kinds = [v for v in vars(config).values() if isinstance(v, list) and len(v) == count]
    if count > 2 and not kinds:
        config.num_hidden_layers = 2
    config.vocab_size = min(config.vocab_size, ROWS)
    for name in [key for key in vars(config) if key.endswith("_token_id")]:
        value = getattr(config, name)
        setattr(config, name, min(value, 3) if isinstance(value, int) else value)
    return family(config).float().eval()


def _observe(small: Any, ends: tuple[int, ...]) -> TextTrial:
    ids = torch.arange(8, 20).view(2, 6)
    ids[:, : len(ends)] = torch.tensor(ends, dtype=torch.long)
    mask = torch.ones_like(ids)
    blocks = list_of_layers(small, getattr(small.config, "num_hidden_layers", None))
    called: set[int] = set()
    for block in blocks:
        block.register_forward_hook(functools.partial(_note, called, ids.shape[1]))
    states = small(input_ids=ids, attention_mask=mask).last_hidden_state
    unused = unreached(small, states)
    fails = set() if {id(block) for block in blocks} <= called else {"layer_hooks"}
    if not _takes_embeddings(small, ids, mask, states.detach()):
        fails.add("inputs_embeds")
    return TextTrial(frozenset(fails), unused, _is_causal(small, ids, mask, states.detach()))


def _note(called: set[int], length: int, module: nn.Module, args: Any, output: Any) -> None:
    """Note a layer that was called on rows of this length (Longformer's are padded to a window)."""
    hidden = output[0] if isinstance(output, tuple) else output
    if isinstance(hidden, torch.Tensor) and hidden.ndim == 3 and hidden.shape[1] == length:
        called.add(id(module))


@torch.no_grad()
def _is_causal(
    small: nn.Module, ids: torch.Tensor, mask: torch.Tensor, states: torch.Tensor
) -> bool:
    other = ids.clone()
    other[:, -1] = ids[:, -2]
    before = small(input_ids=other, attention_mask=mask).last_hidden_state[:, :-1]
    return bool((before - states[:, :-1]).abs().max() <= 1e-4 * states.abs().max())


@torch.no_grad()
def _takes_embeddings(
    small: nn.Module, ids: torch.Tensor, mask: torch.Tensor, states: torch.Tensor
) -> bool:
    try:
        embeds = small.get_input_embeddings()(ids)  # type: ignore[operator]
        other = small(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    except Exception:  # it takes none
        return False
    return bool((other - states).abs().max() <= 1e-4 * states.abs().max())


def has_types(model: Any) -> bool:
    """Return whether a model tells a first text from a second by token types."""
    named = "token_type_ids" in inspect.signature(model.forward).parameters
    return named and getattr(model.config, "type_vocab_size", 0) > 1


def languages_of(model: Any) -> tuple[tuple[str, ...], str | None]:
    """Return the languages that a model has parameters of, and which it takes by default."""
    if "lang_ids" not in inspect.signature(model.forward).parameters:
        return (), None
    return tuple(model.config.languages), model.config.default_language


def configuration(kind: str, options: dict[str, Any]) -> Any:
    """Return a transformers configuration from its dict. Raise ValueError if it is not for text
    only."""
    model_type = options.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"{kind}: config has model_type {model_type!r}, unknown to transformers")
    built = CONFIG_MAPPING[model_type].from_dict(options)
    if hasattr(built, "text_config"):
        raise ValueError(f"{kind}: {model_type} is a model of several towers; name a text model")
    languages = getattr(built, "languages", None)  # of X-MOD, which has adapters of each
    default = getattr(built, "default_language", None)
    if languages is not None and default is not None and default not in languages:
        raise ValueError(
            f"config.default_language: found {default!r}, and {model_type} has adapters of "
            f"{', '.join(languages)}; name one of these, or add it (transforms: add_language)"
        )
    return built


def vocabulary_fields(kind: str, config: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the fields that the tokenizer decides for a model with random weights."""
    if config.get("vocab_size", tokenizer.size) != tokenizer.size:
        raise ValueError(
            f"{kind}: config has vocab_size {config['vocab_size']}, "
            f"the tokenizer {tokenizer.size}; leave vocab_size out"
        )
    ids = {"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    ids |= {"cls": tokenizer.bos_id, "sep": tokenizer.eos_id}
    return {"vocab_size": tokenizer.size, **{f"{key}_token_id": i for key, i in ids.items()}}


def positions(model: nn.Module) -> int | None:
    """Return the model's maximum number of tokens; None without a limit."""
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    for name, table in model.named_modules():
        # RoBERTa and its relatives number positions from the padding id + 1.
        padded = isinstance(table, nn.Embedding) and table.padding_idx is not None
        if limit is not None and padded and name.endswith("position_embeddings"):
            limit -= table.padding_idx + 1
    return limit
