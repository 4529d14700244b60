"""All action tokens in one forward pass.

BEAST-D on a causal backbone and BEAST-F on an encoder-decoder (arXiv 2506.06072): placeholders
behind the context attend to each other; position i predicts token i. The paper uses the embedding
of the middle bin at every position and relies on position embeddings to distinguish them, which not
every model supports (a T5 decoder has no positions of the future). Here each position has a learned
embedding.

Legend: `B` rows, `L` tokens of a chunk, `K` size of the action vocabulary, `D` width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....backbones.base import Backbone
from ....modalities.action.tokenizers import ActionTokenizer
from ....modalities.base import Features, Loss
from ...batch import Batch
from .base import INIT_STD, ActionDecoder, ActionOutput, fixed_length
from .chunks import ChunkStatistics
from .vocabulary import ActionVocabulary, Vocabulary


class Parallel(ActionDecoder):
    """All ids in one pass under `block` attention. vocabulary: where the ids lie."""

    options: ClassVar[tuple[str, ...]] = ("vocabulary",)

    def __init__(
        self,
        tokenizer: ActionTokenizer,
        chunk: ChunkStatistics,
        *,
        vocabulary: Vocabulary = "added",
    ) -> None:
        super().__init__(tokenizer, chunk)
        self.map = ActionVocabulary(vocabulary)

    def build(self, backbone: Backbone) -> None:
        self.map.build(backbone, self.tokenizer.size)
        length = fixed_length(self.tokenizer, self.chunk.steps, "parallel")
        self.slots = nn.Parameter(torch.randn(length, backbone.dim) * INIT_STD)

    def validate_loaded(self) -> None:
        self.map.check()

    def logits(self, context: Features, backbone: Backbone) -> Tensor:
        """Return `[B, L, K]` of the action tokens only, in float32."""
        return backbone.logits(self.hidden(context, backbone), self.map.ids).float()

    def hidden(self, context: Features, backbone: Backbone) -> Tensor:
        embeds = self.slots.expand(len(context.tokens), -1, -1)
        return backbone(embeds, context=context, attention="block")  # [B, L, D]

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """Return the cross-entropy, summed over tokens; labels are not shifted."""
        logits = self.logits(context, backbone).flatten(0, 1)
        labels = target.flatten()
        total = F.cross_entropy(logits, labels, reduction="sum")
        correct = (logits.detach().argmax(-1) == labels).sum()
        return Loss(total, labels.numel(), {"correct": correct})

    def generate(self, context: Features, backbone: Backbone) -> ActionOutput:
        return self.logits(context, backbone).argmax(-1)
