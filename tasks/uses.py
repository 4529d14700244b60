"""Declarations of a task: its streams, heads and decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from ..modalities.base import Features

BACKBONE = "backbone"
"""The name of the decoder that a recipe's `backbone` section describes."""


@dataclass(frozen=True, kw_only=True)
class StreamUse:
    """Requirements of a task on one input stream.

    role: `input` is read by `loss` and `predict`; `label` by the loss and the metrics alone;
    `teacher` must be frozen, is encoded without a graph, and prediction does without it.
    width: the width that the stream must end in: a number, the name of a decoder
    (`"backbone"`; `"generator.1"` is the width of its second condition), the name of another
    stream, or None for any.
    supports: abilities that the encoder must have beyond a forward (`token_mask`, `layer_hooks`),
    or properties of its tokens (`causal`, which the connector must have too, `aligned`).
    hidden_states: hidden layers of the encoder that the task reads.
    ema: the engine keeps a moving average of the encoder, or with `"stream"` of the encoder and the
    connector, `ctx.encode("image.ema")`; see `Task.ema_decay`.
    views: `Task.views` returns other samples than the one it is given, so that no cache can
    hold the encoder's features. augment: the target of the recipe's `augment`, the sample
    before `views` or each view.
    many: a cell holds a list of items (a bag, passages, several images).
    training_only: the loss alone reads it (hard negatives), so that validation and evaluation need
    no column of it.
    shares: a stream whose encoder it must share (`{share: query}`).
    """

    role: Literal["input", "label", "teacher"] = "input"
    width: int | str | None = None
    supports: frozenset[str] = frozenset()
    hidden_states: tuple[int, ...] = ()
    ema: bool | Literal["stream"] = False
    views: bool = False
    augment: Literal["sample", "view"] = "sample"
    many: bool = False
    training_only: bool = False
    shares: str | None = None

    @property
    def inner(self) -> frozenset[str]:
        """What must run inside the encoder, so that its output alone does not do."""
        return self.supports - {"hidden_states", "causal", "aligned"}


@dataclass(frozen=True, kw_only=True)
class HeadUse:
    """A head that the engine builds into `task.heads`: the stream it reads (`audio`, or
    `audio.encoder` for the features before the connector) and its `out_dim`."""

    stream: str
    out_dim: int


@dataclass(frozen=True, kw_only=True)
class DecoderUse:
    """Requirements of a task on one decoder.

    role: whether it learns (`student`) or not. attention: the kinds of attention it must do
    (`causal`, `prefix`, `block`, `bidirectional`, `visibility`). supports: what else it must
    support (`layer_hooks`, `hidden_states`, `vocabulary`).
    """

    role: Literal["student", "teacher"] = "student"
    attention: frozenset[str] = frozenset({"causal"})
    supports: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ChunkSpec:
    """Encode a signal of more than `limit` tokens in windows of `length` tokens, each of which
    shares `overlap` with the next."""

    length: int
    overlap: int
    limit: int


class VocabularyEncoder(Protocol):
    """An encoder of a text stream that supports `vocabulary`, as a task sees it.

    dim: width of its tokens. batch_invariant: see `modalities.base.Encoder`. processor: has the
    `tokenizer` whose ids it reads.
    """

    dim: int
    batch_invariant: bool
    supports: frozenset[str]

    @property
    def processor(self) -> Any: ...

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings `[..., L, E]` of ids `[..., L]`."""
        ...

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits `[..., V]` of hidden `[..., D]`, or `[..., len(ids)]` of some ids."""
        ...

    def __call__(
        self,
        ids: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        layer_hooks: Mapping[int, Any] | None = None,
        inputs_embeds: Tensor | None = None,
        types: Tensor | None = None,
    ) -> Features: ...
