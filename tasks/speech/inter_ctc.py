"""The CTC loss, and intermediate CTC heads in an encoder.

The loss is `-log p(text | frames)` summed over all paths, by torch, in float32 (Graves et al.
2006). Intermediate heads that condition the layers after them: Nozaki and Komatsu, "Relaxing the
Conditional Independence Assumption of CTC-based ASR by Conditioning on Intermediate Predictions",
2021; Peng et al., "OWSM-CTC", 2024.

Legend: `B` rows, `T` frames, `V` classes, the blank among them, `D` width of the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modalities.base import Features
from ..base import Task

LayerHook = Callable[[Tensor, Tensor], Tensor]
"""The tokens `[B, T, D]` of a layer and their mask `[B, T]` -> new tokens."""


def frame_logits(task: Task, name: str, features: Features) -> Tensor:
    """Return the head's logits `[B, T, V]` of each frame, in float32.

    Raise ValueError if the head is missing, or does not keep the frames.
    """
    use = task.head_uses[name]
    stream, width = use.stream, use.out_dim
    where = f"{type(task).__name__.lower()}: its head {name!r} on the stream {stream!r}"
    if name not in task.heads:
        raise ValueError(f"{where} was not built; add a section `{name}: per_token`")
    output: Features = task.heads[name](features)
    expected = (*features.tokens.shape[:2], width)
    if output.tokens.shape != expected:
        raise ValueError(
            f"{where} returns tokens {tuple(output.tokens.shape)}, expected {expected}, one a "
            "frame; use a head such as per_token"
        )
    return output.tokens.float()


def ctc_losses(logits: Tensor, frames: Sequence[int], ids: Sequence[Sequence[int]]) -> Tensor:
    """Return the losses `[B]` in float32 of `logits [B, T, V]` whose last class is the blank.

    A row with fewer frames than its text needs (`frames_needed`) has an infinite loss.
    """
    log_probs = logits.float().log_softmax(-1)
    if log_probs.is_meta:  # a dry run has shapes only, for which torch has no CTC loss
        return log_probs.sum((1, 2))
    targets = torch.tensor([i for row in ids for i in row], dtype=torch.long)
    return F.ctc_loss(
        log_probs.transpose(0, 1),  # [T, B, V]
        targets.to(log_probs.device),
        torch.tensor(frames),
        torch.tensor([len(row) for row in ids]),
        blank=logits.shape[-1] - 1,
        reduction="none",
    )


class InterCTCHead(nn.Module):
    """One head for all intermediate layers. Its predictions are added back to the hidden states, `x
    + U softmax(W norm(x))`; with U = 0 the encoder is unchanged."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.read = nn.Linear(dim, classes)
        self.back = nn.Linear(classes, dim)

    def tap(self, outputs: list[tuple[Tensor, Tensor]]) -> LayerHook:
        """Return a hook that appends its logits `[B, T, V]` and their mask `[B, T]` to
        `outputs`."""

        def run(tokens: Tensor, mask: Tensor) -> Tensor:
            logits = self.read(self.norm(tokens))
            outputs.append((logits, mask))
            return tokens + self.back(logits.float().softmax(-1).to(tokens.dtype))

        return run


class ConditionEmbedding(nn.Module):
    """Embedding of a row's conditions, added to every frame after the first layer."""

    def __init__(self, dim: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size + 1, dim) for size in sizes)

    def forward(self, indices: Tensor) -> Tensor:
        """Return `[B, D]` of indices `[B, columns]`, 0 for an unknown value."""
        embedded = [table(indices[:, i]) for i, table in enumerate(self.tables)]
        return torch.stack(embedded).sum(0)


@dataclass(frozen=True)
class AddCondition:
    """A hook that adds a vector of each row, `[B, D]`, to all its frames."""

    vectors: Tensor

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens + (self.vectors[:, None] * mask[..., None]).to(tokens.dtype)

    def of(self, rows: Sequence[int]) -> AddCondition:
        """Return the hook for other rows, those of encoded windows."""
        return AddCondition(self.vectors[list(rows)])


@dataclass(frozen=True)
class Chain:
    """Hooks of one layer, applied in order."""

    taps: tuple[LayerHook, ...]

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        for tap in self.taps:
            tokens = tap(tokens, mask)
        return tokens

    def of(self, rows: Sequence[int]) -> Chain:
        return Chain(
            tuple(tap.of(rows) if isinstance(tap, AddCondition) else tap for tap in self.taps)
        )


def compose_hooks(taps: Sequence[tuple[int, LayerHook]]) -> Mapping[int, LayerHook]:
    """Return the hooks by layer."""
    layers = dict.fromkeys(layer for layer, _ in taps)
    return {number: Chain(tuple(t for layer, t in taps if layer == number)) for number in layers}


def check_options(
    *, interctc_layers: list[int] | None, window: int | None, **fractions: float
) -> None:
    """Raise ValueError for an option of `CTC` that is out of its range."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1 and not (name == "condition_prob" and fraction == 1):
            raise ValueError(f"{name}: found {fraction}, expected at least 0 and less than 1")
    if interctc_layers and (
        len(set(interctc_layers)) < len(interctc_layers) or min(interctc_layers) < 0
    ):
        raise ValueError(
            f"interctc_layers: found {interctc_layers}, expected layers from 0 on, each once"
        )
    if window is not None and window < 4:
        raise ValueError(f"window: found {window}, expected at least 4 frames")
