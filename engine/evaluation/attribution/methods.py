"""Maps of what in a signal each word of a prediction rests on.

Each method takes a scorer and cells, and returns `[U, *grid]` for `U` words.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...model import AttentionTap
from .cells import Cells
from .scorer import Scorer, differentiable

Baseline = Literal["zero", "mean"]


def gradient_times_input(scorer: Scorer, cells: Cells, baseline: Baseline = "mean") -> np.ndarray:
    """Return the gradient of each word's score times the input less its baseline, summed over each
    cell (Shrikumar et al. 2016; with the baseline zero it is captum's InputXGradient)."""
    value = scorer.tensor(cells.place)[0]
    difference = value - baseline_of(value, cells, baseline)
    return np.stack([cells.sums(g * difference) for g in input_gradients(scorer, cells)])


def input_gradients(scorer: Scorer, cells: Cells) -> list[Tensor]:
    """Return the gradient of each word's score by the signal."""
    with differentiable(scorer.model), torch.enable_grad():
        value = scorer.tensor(cells.place).clone().requires_grad_(True)
        scores = scorer.scores(cells.place, value)[0]
        gradients = [
            torch.autograd.grad(score, value, retain_graph=True, allow_unused=True)[0]
            for score in scores
        ]
    return [(torch.zeros_like(value) if g is None else g)[0].detach() for g in gradients]


def occlusion(scorer: Scorer, cells: Cells, baseline: Baseline = "mean") -> np.ndarray:
    """Return how much the score of each word falls if a cell is replaced by the baseline (Zeiler &
    Fergus 2014; captum's Occlusion with windows of one cell)."""
    value = scorer.tensor(cells.place)[0]
    other = baseline_of(value, cells, baseline)
    variants = [value, *(cells.replaced(value, other, [k]) for k in range(len(cells)))]
    scores = scorer.score_many(cells.place, variants)  # [1 + K, U]
    falls = (scores[:1] - scores[1:]).T.cpu().double().numpy()
    return np.asarray(falls.reshape(-1, *cells.grid))


def rollout(scorer: Scorer, cells: Cells, baseline: Baseline = "mean") -> np.ndarray:
    """Return the attention rollout of the encoder (Abnar & Zuidema 2020) from its output tokens,
    each weighted by the gradient times its value for the word.

    The encoder's tokens have to lie on the grid of the cells; an encoder without attention leaves
    the unchanged weights of its tokens. baseline: not used.
    """
    weights = token_relevance(scorer, cells.place[0])  # [U, T]
    flow = encoder_flow(scorer, cells, "rollout")
    if flow is not None:
        weights = weights @ flow.to(weights)
    return np.asarray(weights.cpu().double().numpy().reshape(-1, *cells.grid))


def encoder_flow(scorer: Scorer, cells: Cells, method: str) -> Tensor | None:
    """Return `[T, T]`, the rollout from the output tokens of a stream's encoder to its input
    tokens; None without attention. Raise ValueError if the tokens do not lie on the cells' grid."""
    stream = cells.place[0]
    encoder = scorer.model.stream(stream).encoder
    with AttentionTap(list(encoder.blocks())) as tap, torch.no_grad():
        features = scorer.features(stream)
    if features.grid != cells.grid:
        raise ValueError(
            f"{method}: the tokens of {stream} lie on the grid {features.grid}, the map on "
            f"{cells.grid}; leave cells out, or take occlusion"
        )
    layers = [each[0][0].mean(0) for _, each in sorted(tap.seen.weights.items()) if each]
    if not layers:
        return None
    flow, tokens = attention_rollout(layers), features.tokens.shape[1]
    if flow.shape[0] < tokens:
        raise ValueError(f"{method}: {type(encoder).__name__} attends to groups of its tokens")
    return flow[-tokens:, -tokens:]  # classes and registers lead


def attention_rollout(layers: list[Tensor]) -> Tensor:
    """Return `[S, S]`, from which input token each output token takes: the product over layers of
    half the mean attention and half the identity, rows summing to 1."""
    flow = torch.eye(len(layers[0]), device=layers[0].device)
    for weights in layers:
        mixed = 0.5 * weights + 0.5 * torch.eye(len(weights), device=weights.device)
        flow = mixed / mixed.sum(-1, keepdim=True) @ flow
    return flow


def token_relevance(scorer: Scorer, stream: str) -> Tensor:
    """Return `[U, T]`, the size of the gradient times the value of each output token of an
    encoder, of each word; a word's values sum to 1."""
    encoder = scorer.model.stream(stream).encoder
    seen: list[Tensor] = []

    def watch(_: object, __: object, output: object) -> object:
        tokens = output.tokens.detach().requires_grad_(True)  # type: ignore[attr-defined]
        seen.append(tokens)
        return output.replace(tokens=tokens)  # type: ignore[attr-defined]

    handle = encoder.register_forward_hook(watch)
    try:
        with differentiable(scorer.model), torch.enable_grad():
            name = next(iter(scorer.batch.streams[stream]["main"]))
            scores = scorer.scores((stream, str(name)), scorer.tensor((stream, str(name))))[0]
            gradients = [
                torch.autograd.grad(s, seen[-1], retain_graph=True, allow_unused=True)[0]
                for s in scores
            ]
    finally:
        handle.remove()
    tokens = seen[-1].detach()
    sizes = [
        torch.zeros(tokens.shape[1]).to(tokens) if g is None else (g * tokens).sum(-1).abs()[0]
        for g in gradients
    ]
    relevance = torch.stack(sizes)
    return relevance / relevance.sum(1, keepdim=True).clamp(min=1e-12)


def baseline_of(value: Tensor, cells: Cells, baseline: Baseline) -> Tensor:
    """Return the replacement of a part that is ablated: zero, or the mean of each channel."""
    if baseline == "zero":
        return torch.zeros_like(value)
    return value.mean(list(cells.axes), keepdim=True).expand_as(value)
