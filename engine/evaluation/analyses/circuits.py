"""Heads and feed-forwards taken out of a model, how heads attend, and the channels between them.

Yao et al., "Knowledge Circuits in Pretrained Transformers", 2024; Merullo et al., "Talking Heads",
2024; Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from ....backbones.base import Backbone
from ...model import AttentionTap, normalized_entropy
from ...model.transforms.layers import attention_of, find_stack, rows_of
from ..taps import muted_feed_forwards
from .subject import Subject, captured_logits

Rows = list[dict[str, Any]]


def ablation(
    subject: Subject,
    part: str | None = None,
    heads: list[tuple[int, int]] | None = None,
    layers: list[int] | None = None,
    feed_forward: bool = True,
) -> Rows:
    """Loss and logits of the model with the output of attention heads and of feed-forwards zero,
    one at a time.

    part: a decoder, or a stream (its encoder); by default the backbone. heads: `[[layer, head]]`,
    by default each. layers: whose feed-forward is zeroed, by default each; none with
    feed_forward: false. `loss_change` is per item; `logit_change` the mean absolute change of the
    logits of a language model. The first row takes nothing out.
    """
    _, blocks = subject.blocks(part)
    with AttentionTap(blocks, record=False) as tap:
        whole, logits = _run(subject)
    every = [(i, h) for i, count in sorted(tap.heads.items()) for h in range(count)]
    rows: Rows = [_row("nothing", whole, logits, whole, logits)]
    for layer, head in every if heads is None else heads:
        if not 0 <= layer < len(blocks):
            raise ValueError(f"heads: found layer {layer}, expected 0 to {len(blocks) - 1}")
        with AttentionTap(blocks, [(layer, head)], record=False):
            rows.append(_row(f"head {layer}.{head}", *_run(subject), whole, logits))
    for layer in (range(len(blocks)) if layers is None else layers) if feed_forward else ():
        with muted_feed_forwards(blocks, [layer]):
            rows.append(_row(f"feed-forward {layer}", *_run(subject), whole, logits))
    return rows


def _run(subject: Subject) -> tuple[float, Tensor | None]:
    """Return the loss and all logits of the rows."""
    logits: list[Tensor] = []
    decoders = [m for m in subject.model.decoders.values() if isinstance(m, Backbone)]
    with contextlib.ExitStack() as stack:
        for decoder in decoders:
            stack.enter_context(captured_logits(decoder, logits))
        loss = subject.loss()
    return loss, torch.cat(logits) if logits else None


def _row(
    without: str, loss: float, logits: Tensor | None, whole: float, before: Tensor | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"without": without, "loss": loss, "loss_change": loss - whole}
    if logits is not None and before is not None:
        row["logit_change"] = float((logits - before).abs().mean())
    return row


def composition(subject: Subject, part: str | None = None, top: int = 20, seed: int = 0) -> Rows:
    """The strongest channels from a head's output to the queries, keys and values of later heads.

    `score`: `|W' W_OV| / (|W'| |W_OV|)` (Frobenius), W' the map by which the later head reads.
    `component`: the share of its square that one singular vector of W_OV carries (near 1: a channel
    of rank one). `random`: the score of the same W' with random directions in place of
    those of W_OV.

    part: a decoder or a stream. top: how many pairs are listed.
    """
    name, module = subject.part(part)
    stack = find_stack(module, "decoder" if _has_both(module) else None)
    maps = [head_maps(layer, i, stack) for i, layer in enumerate(stack.layers)]
    generator = torch.Generator().manual_seed(seed)
    rows: Rows = []
    for early in range(len(maps)):
        for late in range(early + 1, len(maps)):
            for h, source in enumerate(maps[early]):
                rotated = _rotated(source.ov, generator)
                for g, reader in enumerate(maps[late]):
                    for kind, matrix in reader.readers().items():
                        score, share = channel(matrix, source.ov)
                        rows.append(
                            {
                                "from": f"{early}.{h}",
                                "to": f"{late}.{g}",
                                "by": kind,
                                "score": score,
                                "component": share,
                                "random": channel(matrix, rotated)[0],
                            }
                        )
    if not rows:
        raise ValueError(f"part: {name} has {len(maps)} layer; a channel needs two")
    return sorted(rows, key=lambda row: -row["score"])[:top]


class HeadMaps:
    """The maps `[D, D]` of one head: `qk` of scores, `ov` from its input to its output."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        self.qk = query.T @ key  # score(x, y) = x' qk y
        self.ov = output @ value

    def readers(self) -> dict[str, Tensor]:
        """Return the matrices that another head's output enters: as a query, key or value."""
        return {"query": self.qk.T, "key": self.qk, "value": self.ov}


def head_maps(layer: Any, index: int, stack: Any) -> list[HeadMaps]:
    """Return the maps of every query head of a layer."""
    attention = attention_of(layer, index, stack)
    size, group = attention.head_dim, attention.heads // attention.kv_heads
    query, key, value = (rows_of(m).detach().float() for m in _maps(attention))
    if attention.fused:
        width, inner = attention.heads * size, attention.kv_heads * size
        query, key, value = query[:width], key[width : width + inner], value[width + inner :]
    output = rows_of(attention.output).detach().float()
    heads = []
    for h in range(attention.heads):
        query_rows, shared = (
            slice(h * size, (h + 1) * size),
            slice(h // group * size, (h // group + 1) * size),
        )
        heads.append(HeadMaps(query[query_rows], key[shared], value[shared], output[:, query_rows]))
    return heads


def _maps(attention: Any) -> tuple[Any, Any, Any]:
    return attention.query, attention.key, attention.value


def channel(reader: Tensor, writer: Tensor) -> tuple[float, float]:
    """Return the composition score of `[D, D]` maps, and the share of its square that the strongest
    singular vector of the writer carries."""
    u, s, _ = torch.linalg.svd(writer, full_matrices=False)
    squares = ((reader @ u) * s).square().sum(0)  # of each component; they add up
    total = float(squares.sum())
    norm = float(reader.norm() * writer.norm())
    if not total or not norm:
        return 0.0, math.nan
    return math.sqrt(total) / norm, float(squares.max()) / total


def _rotated(writer: Tensor, generator: torch.Generator) -> Tensor:
    """Return a map with the singular values of another and random directions of output."""
    random = torch.randn(writer.shape, generator=generator)
    rotation, _ = torch.linalg.qr(random)
    return rotation @ writer


def _has_both(module: Any) -> bool:
    return bool(getattr(module, "encodes_context", False))


def attention(subject: Subject, part: str | None = None) -> Rows:
    """How sharply each attention head looks, averaged over the positions of the rows.

    `entropy`: of the weights of a position as a share of the largest that it can have, the
    logarithm of how many positions it sees (1: it looks everywhere alike). `peak`: its largest
    weight, beside `even`, that of equal weights. `first`: the weight of the first position, where
    heads without a task look. part: a decoder or a stream (its encoder); by default the backbone.

    Of a recipe `tasks.x.attention=causal,prefix` compares the two masks of a prompt (Huang et al.,
    "Masking in Multi-hop QA", 2025, whose statistic is the peak).
    """
    name, blocks = subject.blocks(part)
    sums: dict[tuple[int, int], Tensor] = {}  # by layer and place in it `[H, 5]`, the last counts
    for batch in subject.batches(1):  # alone, a row has no padding
        with AttentionTap(blocks) as tap, torch.no_grad():
            subject.model(batch)
        for layer, calls in tap.seen.weights.items():
            for call, weights in enumerate(calls):
                key = layer, call
                sums[key] = sums.get(key, torch.zeros(())) + attention_statistics(weights).cpu()
    if not sums:
        raise ValueError(f"part: {name} has no attention in its layers")
    several = max(call for _, call in sums) > 0
    rows: Rows = []
    for (layer, call), heads in sorted(sums.items()):
        place = {"layer": layer, **({"attention": call} if several else {})}
        for head, (*values, count) in enumerate(heads.tolist()):
            means = [value / count if count else math.nan for value in values]
            rows.append(
                {
                    **place,
                    "head": head,
                    **dict(zip(("entropy", "peak", "even", "first"), means, strict=True)),
                }
            )
    return rows


def attention_statistics(weights: Tensor) -> Tensor:
    """Return `[H, 5]`, sums over positions that see at least two of: normalized entropy, peak, even
    weight, weight of the first; and their number. weights: `[B, H, Q, K]`."""
    weights = weights.double()
    entropy, visible = normalized_entropy(weights)
    counted = (visible > 1).double()
    values = torch.stack(
        [
            entropy,
            weights.amax(-1),
            (1 / visible).expand_as(entropy),
            weights[..., 0],
            torch.ones_like(entropy),
        ],
        -1,
    )  # [B, H, Q, 5]
    return (values * counted[..., None]).sum((0, 2))
