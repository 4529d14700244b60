"""Action tokens one after another, as RT-2, OpenVLA (bins) and FAST (arXiv 2501.09747).

Legend: `B` rows, `L` tokens of the longest chunk, `K` size of the action vocabulary.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LogitsProcessor, LogitsProcessorList

from ....backbones.base import Backbone
from ....modalities.action.tokenizers import ActionTokenizer
from ....modalities.base import Features, Loss
from ...batch import Batch
from .base import ActionDecoder, ActionOutput
from .chunks import Chunk, ChunkStatistics
from .vocabulary import ActionVocabulary, Vocabulary


class Autoregressive(ActionDecoder):
    """Causal generation with a cache, restricted to the action ids; the text's `eos` ends a chunk
    of variable length. attention: over the context."""

    options: ClassVar[tuple[str, ...]] = ("vocabulary", "attention")

    def __init__(
        self,
        tokenizer: ActionTokenizer,
        chunk: ChunkStatistics,
        *,
        vocabulary: Vocabulary = "added",
        attention: Literal["causal", "prefix"] = "causal",
    ) -> None:
        super().__init__(tokenizer, chunk)
        self.map = ActionVocabulary(vocabulary)
        self.attention = attention

    def build(self, backbone: Backbone) -> None:
        self.map.build(backbone, self.tokenizer.size)

    def validate_loaded(self) -> None:
        self.map.check()

    @property
    def length(self) -> int | None:
        return self.tokenizer.length(self.chunk.steps)

    def allowed(self, backbone: Backbone) -> Tensor:
        """Return the ids that may be generated: the actions', then `eos` if lengths vary."""
        if self.length is not None:
            return self.map.ids
        return torch.cat([self.map.ids, self.map.ids.new_tensor([backbone.tokenizer.eos_id])])

    def encode(self, chunk: Chunk) -> ActionOutput:
        """Return the tokens of each chunk, with an end token if lengths vary."""
        end = [self.tokenizer.size] if self.length is None else []  # `eos` among the allowed
        return [torch.tensor([*row.tolist(), *end]) for row in super().encode(chunk)]

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """Return the cross-entropy among the allowed ids, summed over tokens, the end included."""
        mask = batch.label_masks["target"]  # [B, L]
        allowed = self.allowed(backbone)
        positions = mask.flatten().nonzero().squeeze(1).to(target.device)
        hidden = backbone.teacher_force(
            context, allowed[target], mask.to(target.device), self.attention
        )
        logits = backbone.logits(hidden.flatten(0, 1)[positions], allowed).float()
        labels = target.flatten()[positions]
        total = F.cross_entropy(logits, labels, reduction="sum")
        correct = (logits.detach().argmax(-1) == labels).sum()
        return Loss(total, int(mask.sum()), {"correct": correct})

    def generate(self, context: Features, backbone: Backbone) -> ActionOutput:
        allowed, length = self.allowed(backbone), self.length
        # Without merges FAST has one token for each number, and the end is one more.
        longest = length or self.chunk.steps * self.chunk.dof + 1
        generated = backbone.generate(
            context,
            self.attention,
            max_new_tokens=longest,
            do_sample=False,
            logits_processor=LogitsProcessorList([_Only(allowed)]),
        )
        index_of = torch.full(
            (int(max(allowed.max(), generated.max())) + 1,), -1, device=generated.device
        )
        index_of[allowed] = torch.arange(len(allowed), device=generated.device)
        ids = index_of[generated]  # of `pad` after an end: -1, or the end again
        if length is not None:
            return ids
        return [_until(row, self.tokenizer.size) for row in ids]


def _until(row: Tensor, end: int) -> Tensor:
    ends = (row == end).nonzero()
    return row[: int(ends[0])] if len(ends) else row


class _Only(LogitsProcessor):
    """Logits processor that keeps the logits of some ids and sets all others to -inf."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        restricted = torch.full_like(scores, -torch.inf)
        restricted[:, self.ids] = scores[:, self.ids]
        return restricted
