"""Action tokens one after another: what bins (RT-2, OpenVLA) and FAST (arXiv 2501.09747) do.

Legend: `B` rows, `L` tokens of the longest chunk, `K` size of the action vocabulary.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, LogitsProcessorList

from ..backbones.base import Backbone
from ..modalities.action.base import ActionTokenizer
from ..modalities.base import Features
from ._action_forms import Form, Said
from ._action_ids import ActionIds, Vocabulary
from .base import Loss
from .chunks import Chunk, Chunks


class Autoregressive(Form):
    """Each token after those before it, with a cache, among the action ids alone; the text's `eos`
    ends a chunk whose length varies. attention: how the context is read."""

    options: ClassVar[tuple[str, ...]] = ("vocabulary", "attention")

    def __init__(
        self,
        tokenizer: ActionTokenizer,
        chunk: Chunks,
        *,
        vocabulary: Vocabulary = "added",
        attention: Literal["causal", "prefix"] = "causal",
    ) -> None:
        super().__init__(tokenizer, chunk)
        self.map = ActionIds(vocabulary)
        self.attention = attention

    def new_tokens(self) -> int:
        return self.map.new(self.tokenizer.size)

    def attach(self, backbone: Backbone, first: int | None) -> None:
        self.map.attach(backbone, self.tokenizer.size, first)

    def loaded(self) -> None:
        self.map.check()

    @property
    def length(self) -> int | None:
        return self.tokenizer.length(self.chunk.steps)

    def allowed(self, backbone: Backbone) -> Tensor:
        """The ids that may be said: the actions', then the end where lengths vary."""
        if self.length is not None:
            return self.map.ids
        return torch.cat([self.map.ids, self.map.ids.new_tensor([backbone.tokenizer.eos_id])])

    def loss(self, context: Features, chunk: Chunk, backbone: Backbone) -> Loss:
        """Cross entropy among the allowed ids, summed over tokens, the end included."""
        end = self.tokenizer.size  # the place of `eos` among the allowed
        more = [end] if self.length is None else []
        rows = [torch.tensor([*row.tolist(), *more]) for row in self.encode(chunk)]
        lengths = torch.tensor([len(row) for row in rows])
        wanted = pad_sequence(rows, batch_first=True)  # [B, L]
        mask = torch.arange(wanted.shape[1]) < lengths[:, None]
        device, allowed = context.tokens.device, self.allowed(backbone)
        places = mask.flatten().nonzero().squeeze(1).to(device)
        wanted, mask = wanted.to(device), mask.to(device)
        hidden = backbone.teacher_force(context, allowed[wanted], mask, self.attention)
        logits = backbone.logits(hidden.flatten(0, 1)[places], allowed).float()
        right = wanted.flatten()[places]
        total = F.cross_entropy(logits, right, reduction="sum")
        correct = (logits.detach().argmax(-1) == right).sum()
        return Loss(total, int(lengths.sum()), {"correct": correct})

    def say(self, context: Features, backbone: Backbone) -> Said:
        allowed, length = self.allowed(backbone), self.length
        # Without merges FAST has a token a number; with the end there is one more.
        longest = length or self.chunk.steps * self.chunk.dof + 1
        found = backbone.generate(
            context,
            self.attention,
            max_new_tokens=longest,
            do_sample=False,
            logits_processor=LogitsProcessorList([_Only(allowed)]),
        )
        places = torch.full((int(max(allowed.max(), found.max())) + 1,), -1, device=found.device)
        places[allowed] = torch.arange(len(allowed), device=found.device)
        ids = places[found]  # of `pad` after an end: -1, or the end again
        if length is not None:
            return ids
        return [_until(row, self.tokenizer.size) for row in ids]


def _until(row: Tensor, end: int) -> Tensor:
    ends = (row == end).nonzero()
    return row[: int(ends[0])] if len(ends) else row


class _Only(LogitsProcessor):
    """Leaves the logits of some ids, and none of the others."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = torch.full_like(scores, -torch.inf)
        kept[:, self.ids] = scores[:, self.ids]
        return kept
