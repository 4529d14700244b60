"""Attention rollout through a whole model: the decoder, what lies before it, and the encoder.

Legend: `U` words, `P` positions of the context, `L` of the text, `S = P + L`, `T` encoder tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....backbones.base import Backbone
from ....modalities.base import Features
from ...model import AttentionTap
from .cells import Cells
from .methods import Baseline, attention_rollout, encoder_flow
from .scorer import Scorer


def decoder_rollout(scorer: Scorer, cells: Cells, baseline: Baseline = "mean") -> np.ndarray:
    """Return the attention rollout (Abnar & Zuidema 2020) from the positions that predict a word,
    through the decoder to its context, and on to the encoder's input tokens.

    A position of the context rests on the encoder tokens that change it if they are replaced by
    their mean, which holds for any connector. Weights of a word add up to at most 1, the rest lies
    on the prompt and the text. The tokens have to lie on the grid of the cells. baseline: not used.

    Raise ValueError if the task does not write by a decoder whose layers attend to its context and
    its text together.
    """
    stream = cells.place[0]
    flow = encoder_flow(scorer, cells, "decoder_rollout")
    decoder = _writer(scorer)
    layers, context = _attention(scorer, cells, decoder)
    real = context.mask[0].cpu()
    first = int(real.sum()) - 1  # the position that predicts the first token
    rollout = attention_rollout(layers)  # [S, S], what is real first
    places = [torch.tensor(unit.target[1]) for unit in scorer.units]
    words = torch.stack([rollout[first + each].mean(0) for each in places])  # [U, S]
    dependence = _dependence(scorer, stream, decoder)[real]  # [P, T]
    tokens = words[:, : first + 1].cpu().double() @ dependence
    if flow is not None:
        tokens = tokens @ flow.cpu().double()
    return np.asarray(tokens.numpy().reshape(-1, *cells.grid))


def _writer(scorer: Scorer) -> Backbone:
    """Return the decoder that writes the words."""
    names = [name for name, use in scorer.task.decoders.items() if use.role == "student"]  # type: ignore[attr-defined]
    decoders = [scorer.model.decoders[name] for name in names]
    writers = [each for each in decoders if isinstance(each, Backbone)]
    if len(writers) != 1:
        raise ValueError(
            f"decoder_rollout: {type(scorer.task).__name__} has {len(writers)} decoders that "
            "write, expected one; take rollout or occlusion"
        )
    return writers[0]


def _attention(scorer: Scorer, cells: Cells, decoder: Backbone) -> tuple[list[Tensor], Features]:
    """Return the mean attention `[S, S]` of the heads of each layer of the decoder, and the
    context."""
    contexts: list[Features] = []
    with (
        watched_contexts(decoder, contexts),
        AttentionTap(list(decoder.blocks())) as tap,
        torch.no_grad(),
    ):
        scorer.scores(cells.place, scorer.tensor(cells.place))
    seen = [each for _, each in sorted(tap.seen.weights.items())]
    length = len(scorer.units[0].target[0]) if isinstance(scorer.units[0].target, tuple) else 0
    total = length + (contexts[-1].tokens.shape[1] if contexts else 0)
    size = (total, total)
    if not (contexts and seen and all(len(e) == 1 and e[0].shape[-2:] == size for e in seen)):
        raise ValueError(
            f"decoder_rollout: {type(decoder).__name__} does not attend to the context and the "
            "text in one sequence; take rollout or occlusion"
        )
    return [each[0][0].mean(0) for each in seen], contexts[-1]


def _dependence(scorer: Scorer, stream: str, decoder: Backbone) -> Tensor:
    """Return `[P, T]` the share of each encoder token in the change of each position of the context
    if one token at a time is replaced by the mean of all; a row without change is 0."""
    with torch.no_grad():
        tokens = scorer.features(stream).tokens[0]  # [T, D]
    count, mean = len(tokens), tokens.mean(0)
    variants = tokens.expand(count, -1, -1).clone()
    variants[range(count), range(count)] = mean
    whole = _context(scorer, stream, decoder, tokens[None])
    changes = torch.cat(
        [
            (_context(scorer, stream, decoder, part) - whole).norm(dim=-1)
            for part in variants.split(scorer.size)
        ]
    )  # [T, P]
    changes = changes.T.cpu().double()
    return changes / changes.sum(1, keepdim=True).clamp(min=1e-12)


@torch.no_grad()
def _context(scorer: Scorer, stream: str, decoder: Backbone, tokens: Tensor) -> Tensor:
    """Return the context's tokens `[N, P, D]` where the encoder returns tokens `[N, T, D]`."""

    def replace(_: object, __: object, output: Any) -> Any:
        return output.replace(tokens=tokens.to(output.tokens))

    contexts: list[Features] = []
    name = next(iter(scorer.batch.streams[stream]["main"]))
    place = (stream, str(name))
    handle = scorer.model.stream(stream).encoder.register_forward_hook(replace)
    try:
        with watched_contexts(decoder, contexts):
            value = scorer.tensor(place)
            scorer.scores(place, value.expand(len(tokens), *value.shape[1:]))
    finally:
        handle.remove()
    return contexts[-1].tokens


@contextlib.contextmanager
def watched_contexts(decoder: Backbone, into: list[Features]) -> Iterator[None]:
    """Within it every context of a decoder's `teacher_force` is kept."""
    compute = decoder.teacher_force

    def keep(context: Features, *args: Any, **options: Any) -> Tensor:
        into.append(context)
        return compute(context, *args, **options)

    decoder.teacher_force = keep  # type: ignore[method-assign]
    try:
        yield
    finally:
        del decoder.teacher_force
