"""A trial of an architecture: how a stack of layers treats masks, measured by its outputs.

That a class is in transformers' mapping of causal language models does not make it causal: a BERT
with a plain configuration attends both ways without notice. A small random stack is run on
four positions, and the outputs that change with one of them show who attends to whom.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .layers import first_position

POSITIONS = 4
LONG = 24
"""Positions of a second trial: attention by buckets or chunks (Reformer) is exact in short rows."""
VOCABULARY = 16
MAX_PARAMETERS = 100_000_000
"""Larger stacks than this, of one layer of each kind, are not tried."""


@dataclass(frozen=True)
class Trial:
    """What was seen. is_causal: without a mask no position attends to a later one. obeys_masks: an
    additive 4-D mask defines who attends to whom. skips_padding: a row behind padding, with a mask
    of two axes as in the library's `generate`, is as without."""

    is_causal: bool
    obeys_masks: bool
    skips_padding: bool


def try_stack(stack: nn.Module, attn: str, pair: bool = False) -> Trial | None:
    """Try a small copy of a stack of layers of transformers; None if there is none that runs.

    pair: it is the decoder of an encoder-decoder.
    """
    config: Any = stack.config
    key = json.dumps(config.to_dict(), sort_keys=True, default=str)
    return _try(cast(Hashable, type(stack)), key, _Config(config), attn, pair)


class _Config:
    """A configuration that takes no part in the key of the cache."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Config)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=64)
def _try(family: Any, key: str, config: _Config, attn: str, pair: bool) -> Trial | None:
    for implementation in dict.fromkeys((attn, "eager")):  # inner models may support one of them
        try:
            with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
                torch.manual_seed(0)
                small = _small(family, config.value, implementation)
                return None if small is None else _observe(small, pair)
        except Exception:  # any error of a library's class built in another size
            continue
    return None


def _small(family: Any, config: Any, attn: str) -> nn.Module | None:
    """Return a random stack with one layer of each kind and a small table; None if it is large."""
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    kinds = _layer_kinds(text)
    for each in {id(config): config, id(text): text}.values():
        each._attn_implementation = attn
        each.dtype = torch.float32
        if getattr(each, "vocab_size", None):
            each.vocab_size = VOCABULARY
        if getattr(each, "sliding_window", None) is not None:
            each.sliding_window = max(each.sliding_window, POSITIONS + 1)
        if getattr(each, "pad_token_id", None) is not None:
            each.pad_token_id = min(each.pad_token_id, VOCABULARY - 1)
        for name in [key for key in vars(each) if key.endswith("attn_chunk_length")]:
            setattr(each, name, POSITIONS)
    if kinds:
        text.num_hidden_layers = len(next(iter(kinds.values())))
        for name, values in kinds.items():
            setattr(text, name, values)
    elif getattr(text, "num_hidden_layers", 1) > 1:
        text.num_hidden_layers = 1
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in family(config).parameters())
    if count > MAX_PARAMETERS:
        return None
    small: nn.Module = family(config).float().eval()
    for parameter in small.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=1 / math.sqrt(parameter[0].numel()))
    return small


def _layer_kinds(config: Any) -> dict[str, list[str]]:
    """Return the lists of a configuration that name the kind of each layer, with one entry for each
    combination of kinds."""
    count = getattr(config, "num_hidden_layers", 0)
    lists = {k: v for k, v in vars(config).items() if isinstance(v, list) and len(v) == count}
    lists = {k: v for k, v in lists.items() if v and all(isinstance(kind, str) for kind in v)}
    rows = list(dict.fromkeys(zip(*lists.values(), strict=True)))
    return {key: [row[i] for row in rows] for i, key in enumerate(lists)}


def _observe(stack: nn.Module, pair: bool) -> Trial:
    takes = inspect.signature(stack.forward).parameters
    width = stack.get_input_embeddings().embedding_dim  # type: ignore[operator]
    tokens = torch.randn(1, POSITIONS, width)
    changed = tokens.clone()
    changed[:, -1] = torch.randn(width)
    inputs: dict[str, Any] = {"use_cache": False} if "use_cache" in takes else {}
    if "encoder_hidden_states" in takes and pair:
        inputs["encoder_hidden_states"] = torch.randn(1, POSITIONS, width)
        inputs["encoder_attention_mask"] = torch.ones(1, POSITIONS)

    def run(values: Tensor, **kwargs: Any) -> Tensor:
        hidden: Tensor = stack(inputs_embeds=values.clone(), **inputs, **kwargs).last_hidden_state
        return hidden

    reference = run(tokens)
    is_causal = _unchanged(reference, run(changed)) and _is_causal_when_long(run, width)
    positions = {}
    if "position_ids" in takes:
        positions["position_ids"] = torch.arange(POSITIONS)[None] + first_position(stack)
    try:
        everything = torch.zeros(1, 1, POSITIONS, POSITIONS)
        causal = torch.full_like(everything, torch.finfo(torch.float32).min).triu(1)
        both = run(tokens, attention_mask=everything, **positions)
        perturbed = run(changed, attention_mask=everything, **positions)
        obeys = not _unchanged(both[:, :1], perturbed[:, :1])
        masked = run(tokens, attention_mask=causal, **positions)
        obeys &= _unchanged(masked, run(changed, attention_mask=causal, **positions))
        gap = float((masked - reference).abs().max()) if is_causal else 0.0
        obeys &= gap <= 1e-4 * float(reference.abs().max())
    except Exception:  # it takes no mask of four axes
        obeys = False
    return Trial(is_causal, obeys, _skips_padding(run, tokens, reference, positions))


def _is_causal_when_long(run: Callable[..., Tensor], width: int) -> bool:
    """Return whether no position attends to later ones in a row of more than a few positions; True
    where rows as long do not run."""
    tokens = torch.randn(1, LONG, width)
    changed = tokens.clone()
    changed[:, LONG // 2 :] = torch.randn(LONG - LONG // 2, width)
    try:
        hidden, other = run(tokens)[:, : LONG // 2], run(changed)[:, : LONG // 2]
    except Exception:  # its table of positions is shorter
        return True
    return bool((hidden - other).abs().max() <= 1e-4 * hidden.abs().max())


@torch.no_grad()
def runs_from_embeddings(model: Any, attn: str) -> bool:
    """Return whether a small copy of an encoder-decoder runs on padded rows of embeddings: what
    then fails on the meta device is the device's."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            small: Any = _small(type(model), model.config, attn)
            tokens = torch.randn(2, POSITIONS, small.get_input_embeddings().embedding_dim)
            table = small.get_decoder().get_input_embeddings()
            inputs = {"decoder_inputs_embeds": torch.randn(2, POSITIONS, table.embedding_dim)}
            inputs["attention_mask"] = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
            small(inputs_embeds=tokens, **inputs)
    except Exception:  # any error of a library's class
        return False
    return True


def problem_of_rows(stack: nn.Module, attn: str) -> str | None:
    """Return what is wrong with the rows of a stack that attends both ways: they depend on the
    padding behind them, although a mask of two axes says where it is (convolutions, ConvBERT), or
    no position sees another (MRA without its kernels); None if nothing is, or no small copy runs.
    """
    config: Any = stack.config
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
            torch.manual_seed(0)
            small: Any = _small(type(stack), config, attn)
            width = small.get_input_embeddings().embedding_dim
            tokens, mask = torch.randn(1, LONG, width), torch.ones(1, LONG, dtype=torch.long)
            mask[:, LONG // 2 :] = 0
            changed = tokens.clone()
            changed[:, LONG // 2 :] = torch.randn(LONG - LONG // 2, width)
            first, other, everything = (
                small(inputs_embeds=row.clone(), attention_mask=known).last_hidden_state
                for row, known in ((tokens, mask), (changed, mask), (changed, mask * 0 + 1))
            )
            plain = small(inputs_embeds=tokens, attention_mask=mask * 0 + 1).last_hidden_state
    except Exception:  # any error of a library's class built in another size
        return None
    half, scale = slice(None, LONG // 2), 1e-4 * first.abs().max()
    if bool((first - other)[:, half].abs().max() > scale):
        return "mixes tokens with the padding behind them, so a row depends on its neighbours"
    if bool((plain - everything)[:, half].abs().max() <= 1e-2 * scale):
        return "lets no position see another, without the kernels that it needs"
    return None


def _skips_padding(
    run: Callable[..., Tensor], tokens: Tensor, reference: Tensor, positions: dict[str, Tensor]
) -> bool:
    padding = torch.randn(1, 2, tokens.shape[-1])
    mask = torch.tensor([[0, 0, *[1] * POSITIONS]])
    ids = {k: torch.cat([v[:, :1].expand(-1, 2), v], 1) for k, v in positions.items()}
    try:
        padded = run(torch.cat([padding, tokens], 1), attention_mask=mask, **ids)[:, 2:]
    except Exception:  # it takes no mask, or another form
        return False
    return float((padded - reference).abs().max()) <= 1e-4 * float(reference.abs().max())


def _unchanged(hidden: Tensor, other: Tensor) -> bool:
    """Return whether the positions before the last one (of one: it itself) are the same."""
    earlier = slice(None, -1) if hidden.shape[1] == POSITIONS else slice(None)
    difference = (hidden - other)[:, earlier].abs().max()
    return bool(difference <= 1e-5 * hidden.abs().max())
