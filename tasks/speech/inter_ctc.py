"""What stands between a recogniser's frames and its loss.

The loss is `-log p(text | frames)` summed over all paths, by torch, in float32 (Graves et al.
2006). In-between heads that condition what comes after them: Nozaki and Komatsu, "Relaxing the
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
    """`[B, T, V]` what the head makes of each frame, in float32.

    Raises ValueError where the head is missing, or does not keep the frames.
    """
    use = task.head_uses[name]
    stream, width = use.stream, use.out_dim
    where = f"{type(task).__name__.lower()}: its head {name!r} on the stream {stream!r}"
    if name not in task.heads:
        raise ValueError(f"{where} was not built; give the task a section `{name}: per_token`")
    found: Features = task.heads[name](features)
    expected = (*features.tokens.shape[:2], width)
    if found.tokens.shape != expected:
        raise ValueError(
            f"{where} gives tokens {tuple(found.tokens.shape)}, expected {expected}: the frames as "
            "they are; use a head such as per_token"
        )
    return found.tokens.float()


def ctc_losses(logits: Tensor, frames: Sequence[int], ids: Sequence[Sequence[int]]) -> Tensor:
    """`[B]` in float32, of `logits [B, T, V]` whose last class is the blank.

    No row may have fewer frames than its text needs (`frames_needed`): its loss is infinite.
    """
    log_probs = logits.float().log_softmax(-1)
    if log_probs.is_meta:  # a dry run has shapes alone, for which torch has no such loss
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
    """One head for all layers in between: what it reads there is given back to the layers that
    follow, `x + U softmax(W norm(x))`. With U at zero the encoder is the plain one."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.read = nn.Linear(dim, classes)
        self.back = nn.Linear(classes, dim)

    def tap(self, heard: list[tuple[Tensor, Tensor]]) -> LayerHook:
        """A tap that keeps its logits `[B, T, V]` and their mask `[B, T]` in `heard`."""

        def run(tokens: Tensor, mask: Tensor) -> Tensor:
            logits = self.read(self.norm(tokens))
            heard.append((logits, mask))
            return tokens + self.back(logits.float().softmax(-1).to(tokens.dtype))

        return run


class ConditionEmbedding(nn.Module):
    """What is known of a row beforehand, added to every frame behind the first layer."""

    def __init__(self, dim: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size + 1, dim) for size in sizes)

    def forward(self, places: Tensor) -> Tensor:
        """places `[B, columns]` of each value in its table, 0 where it is not known -> `[B, D]`."""
        told = [table(places[:, i]) for i, table in enumerate(self.tables)]
        return torch.stack(told).sum(0)


@dataclass(frozen=True)
class AddCondition:
    """A tap that adds a vector of each row, `[B, D]`, to all its frames."""

    vectors: Tensor

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens + (self.vectors[:, None] * mask[..., None]).to(tokens.dtype)

    def of(self, rows: Sequence[int]) -> AddCondition:
        """The same tap for other rows: those of which pieces are encoded."""
        return AddCondition(self.vectors[list(rows)])


@dataclass(frozen=True)
class Chain:
    """Taps of one layer, one after the other."""

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
    """Taps by layer."""
    layers = dict.fromkeys(layer for layer, _ in taps)
    return {wanted: Chain(tuple(t for layer, t in taps if layer == wanted)) for wanted in layers}
