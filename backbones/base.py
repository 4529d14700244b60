"""The contract of a language decoder: one interface for every family of models.

    context --prefill--> ContextCache --forward(embeds)--> hidden [B, T, D] --logits--> [B, T, V]

`teacher_force` is forward over the embedded target, `generate` its autoregressive loop.

Legend: `B` batch, `P` positions of the context, `T` positions of the embeds, `L` target ids, `D`
width, `V` vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypedDict

import torch
from annotated_types import Gt, Le, Lt
from torch import Tensor
from torch.nn import functional as F

from ..modalities.base import (
    Count,
    Decoder,
    Features,
    LayerHook,
    Loss,
    PositiveFloat,
    PositiveInt,
    Probability,
    Tokenizer,
)
from .visibility import Attention, Visibility


@dataclass(frozen=True)
class ContextCache:
    """A context that was run once, for many forwards: a key-value cache or an encoder's output.

    mask: bool `[B, P]`, True = real. state: the model's own object. attention: how the context
    sees itself. A forward leaves the cache as it was.
    """

    mask: Tensor
    state: Any
    attention: Visibility


class GenerationOptions(TypedDict, total=False):
    """Options of `generate`, those of transformers, each with its range. One text is generated a
    row, so there is no option for several."""

    max_new_tokens: PositiveInt
    min_new_tokens: Count
    max_time: PositiveFloat
    do_sample: bool
    temperature: PositiveFloat
    top_k: PositiveInt
    top_p: Annotated[float, Gt(0), Le(1)]
    min_p: Probability
    top_h: Annotated[float, Gt(0), Le(1)]
    typical_p: Annotated[float, Gt(0), Le(1)]
    epsilon_cutoff: Annotated[float, Gt(0), Lt(1)]
    eta_cutoff: Annotated[float, Gt(0), Lt(1)]
    num_beams: PositiveInt
    early_stopping: bool | Literal["never"]
    length_penalty: float
    num_return_sequences: Literal[1]
    repetition_penalty: PositiveFloat
    no_repeat_ngram_size: PositiveInt
    encoder_repetition_penalty: PositiveFloat
    encoder_no_repeat_ngram_size: PositiveInt
    exponential_decay_length_penalty: tuple[Count, PositiveFloat]
    bad_words_ids: list[list[Count]]
    suppress_tokens: list[Count]
    begin_suppress_tokens: list[Count]
    sequence_bias: list[tuple[list[Count], float]]
    forced_bos_token_id: Count | None
    forced_eos_token_id: Count | list[Count] | None
    decoder_start_token_id: Count
    eos_token_id: Count | list[Count] | None
    pad_token_id: Count
    renormalize_logits: bool
    remove_invalid_values: bool
    logits_processor: Any
    stopping_criteria: Any
    prefix_allowed_tokens_fn: Any
    streamer: Any


SAMPLING = frozenset(
    {"temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
)
"""Options that have an effect with `do_sample: true` alone."""
BEAM_SEARCH = frozenset({"early_stopping", "length_penalty"})
"""Options that have an effect with `num_beams` above 1 alone."""


def check_generation_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option without effect beside the others."""
    for name in options:
        if name in SAMPLING and not options.get("do_sample"):
            raise ValueError(f"{name}: has an effect only with do_sample: true; add it")
        if name in BEAM_SEARCH and options.get("num_beams", 1) == 1:
            raise ValueError(f"{name}: has an effect only with num_beams above 1; add it")


HiddenStates = tuple[Tensor, tuple[Tensor, ...]]


class Backbone(Decoder):
    """A language model that reads embeddings. It handles neither pixels nor sound.

    dim: width of the embeddings. tokenizer: text <-> ids. mask_id: the id that replaces a token
    that is not known yet, or None. supports: what this model can do, out of
        `causal`, `prefix`, `block`, `bidirectional`: names of `attention`;
        `visibility`: any other `Visibility` (masks, packed documents, windows by layer);
        `layer_hooks`, `hidden_states`: options of `forward`;
        `inputs_embeds`: it reads embeddings; `vocabulary`: it has both `embed` and `logits`.

    `attention` defines which positions attend to which; see `visibility.py`. A model that does not
    support the request raises ValueError with the reason of `unsupported_reason`.
    """

    builtin: ClassVar[Mapping[str, Any]] = {}
    """Built-in configurations by name."""

    encodes_context: bool = False
    """Whether a separate encoder reads the context (an encoder-decoder)."""

    dim: int
    tokenizer: Tokenizer
    mask_id: int | None = None
    supports: frozenset[str] = frozenset({"causal", "inputs_embeds", "vocabulary"})

    not_walked: str | None = None
    """Why a forward on the meta device gave no more than the shape of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary: deque[tuple[Tensor, dict[str, Tensor]]] = deque(maxlen=16)

    def pop_auxiliary(self) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Return the mean, over the forwards since the last call, of a loss that the model adds to
        that of any task (the balance of its routers), and what to log of it; None without one."""
        terms = list(self.auxiliary)
        self.auxiliary.clear()
        if not terms:
            return None
        loss = torch.stack([term for term, _ in terms]).mean()
        logged = {k: torch.stack([parts[k] for _, parts in terms]).mean() for k in terms[0][1]}
        return loss, logged

    @classmethod
    def list_names(cls) -> Sequence[str]:
        return list(cls.builtin)

    def embed(self, ids: Tensor) -> Tensor:
        """ids `[..., T]` -> embeddings `[..., T, D]`, as the model itself would feed them."""
        raise NotImplementedError

    def add_tokens(self, n: int, spread: float = 0.1) -> int:
        """Append `n` rows to the vocabulary; only these train. Return the first new id. spread: how
        much their initial values vary about the mean row, 1 as much as the rows of the table."""
        raise NotImplementedError

    @property
    def num_added_tokens(self) -> int:
        """The number of rows that `add_tokens` appended."""
        return 0

    def added_token_parameters(self) -> frozenset[str]:
        """Return the names of the added rows in the state; other weights lack them."""
        return frozenset()

    def unfreeze_added_tokens(self) -> None:
        """Let the added rows train, even if they were frozen since."""

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        context: Features | ContextCache | None = None,
        attention: Attention = "causal",
        layer_hooks: Mapping[int, LayerHook] | None = None,
        hidden_states: Sequence[int] = (),
    ) -> Tensor | HiddenStates:
        """embeds `[B, T, D]`, mask `[B, T]` -> hidden `[B, T, D]` of these positions alone.

        mask: True = real; None: all. context: the embeddings before the embeds (causal models) or
        in the encoder (seq2seq). layer_hooks: `{layer: function}`; the function takes the output of
        the layer at these positions, `[B, T, D]`, and their mask, and returns the new ones.
        hidden_states: layers whose output is returned too, behind their hooks; the last one's is
        behind the final norm.

        Return the hidden states of the last layer; if `hidden_states` names layers, a pair of it
        and a tuple of theirs. Layers count from 0, or from the end (-1); of an encoder-decoder
        they are the decoder's, or the encoder's under `bidirectional`.
        """
        raise NotImplementedError

    def prefill(self, context: Features, attention: Attention = "causal") -> ContextCache:
        """Run the context once; `prefill`, then `forward`, equals one pass over both."""
        raise NotImplementedError

    def select_rows(self, cache: ContextCache, rows: Tensor) -> ContextCache:
        """Return the cache of the rows `[n]` of the batch alone."""
        raise NotImplementedError

    def teacher_force(
        self,
        context: Features,
        ids: Tensor,
        mask: Tensor,
        attention: Attention = "causal",
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Tensor:
        """Return hidden `[B, L, D]` whose position i predicts `ids[:, i]` (ids, mask: `[B, L]`).

        Nothing is put between context and target. A visibility's mask is that of [context, ids].
        """
        raise NotImplementedError

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]`, or `[..., len(ids)]` of the ids alone."""
        raise NotImplementedError

    def loss(
        self, condition: Features, target: Mapping[str, Tensor], attention: Attention = "causal"
    ) -> Loss:
        """Compute the cross-entropy of the target after the condition, summed over its tokens.

        target: `ids [B, L]` and `mask [B, L]` bool, True = real.
        """
        device = condition.tokens.device
        ids, mask = target["ids"].to(device), target["mask"].to(device)
        logits = self.logits(self.teacher_force(condition, ids, mask, attention)).float()
        labels = ids.masked_fill(~mask, -100)
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return Loss(total, mask.sum())

    @torch.no_grad()
    def generate(
        self, condition: Features, attention: Attention = "causal", **options: Any
    ) -> Tensor:
        """Return new ids `[B, L]` after the condition, padded with `pad_id`.

        attention: `causal`, `prefix`, or a visibility of the condition `[B, P, P]`; a new token
        sees what the condition's last position sees, and the new tokens before it. options: those
        of transformers' `generate`.
        """
        raise NotImplementedError
