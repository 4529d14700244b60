"""How a decoder says a chunk of actions: the interface of all forms, and those that say all ids at
once.

`Parallel` is BEAST-D on a causal backbone and BEAST-F on an encoder-decoder (arXiv 2506.06072):
placeholders stand after the context and see each other; place i gives token i. The paper puts the
embedding of the middle bin at every place and leaves it to the model's positions to tell them
apart, which not every model's do (a T5 decoder's do not look ahead). Here each place has a learned
slot instead.

Legend: `B` rows, `L` tokens of a chunk, `K` size of the action vocabulary, `D` width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..modalities.action.tokenizers import ActionTokenizer
from ..modalities.base import Features, Loss
from ._action_ids import ActionIds, Vocabulary
from .batch import Batch
from .chunks import Chunk, Chunks
from .fourier import FourierHead

SPREAD = 0.02
"""Deviation of what is learned from nothing, as in most configurations of transformers."""

Said = Tensor | list[Tensor]
"""What a form generates for a batch: ids `[B, L]`, sequences of ids, or control points `[B, L]`."""


class Form(nn.Module):
    """options: of the task's options, those that are this form's own. discrete: says ids.

    tokenizer, chunk: fitted by the time of `build`, which creates what needs a width.
    """

    options: ClassVar[tuple[str, ...]] = ()
    discrete: ClassVar[bool] = True

    def __init__(self, tokenizer: ActionTokenizer, chunk: Chunks) -> None:
        super().__init__()
        self.tokenizer, self.chunk = tokenizer, chunk

    def build(self, backbone: Backbone) -> None:
        """Create what depends on the decoder, and add tokens to it."""
        raise NotImplementedError

    def validate_loaded(self) -> None:
        """Raise ValueError if loaded tensors belong to another decoder."""

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """target: what `encode` made of the batch's chunks, padded, on the batch's device."""
        raise NotImplementedError

    def generate(self, context: Features, backbone: Backbone) -> Said:
        """The most likely chunk of each row, as tokens; no randomness."""
        raise NotImplementedError

    def decode(self, said: Said, steps: int, start: Tensor | None) -> Tensor:
        """Tokens -> actions `[B, steps, dof]`. ValueError for tokens that mean nothing."""
        return self.tokenizer.decode(said, steps=steps, start=start)

    def encode(self, chunk: Chunk) -> Said:
        """Return the tokens of a batch's chunks; runs in a loader worker."""
        return self.tokenizer.encode(chunk.actions, padding=chunk.padding, start=chunk.start)


def fixed_length(tokenizer: ActionTokenizer, steps: int, form: str) -> int:
    """Tokens of a chunk; ValueError where they vary, which a fixed number of places cannot say."""
    length = tokenizer.length(steps)
    if length is None:
        raise ValueError(
            f"form: {form} has a place for each token, and {type(tokenizer).__name__} gives "
            "chunks of different lengths; say form: autoregressive, or tokenizer: bspline"
        )
    return length


class Parallel(Form):
    """All ids in one pass under `block` attention. vocabulary: where the ids lie."""

    options: ClassVar[tuple[str, ...]] = ("vocabulary",)

    def __init__(
        self, tokenizer: ActionTokenizer, chunk: Chunks, *, vocabulary: Vocabulary = "added"
    ) -> None:
        super().__init__(tokenizer, chunk)
        self.map = ActionIds(vocabulary)

    def build(self, backbone: Backbone) -> None:
        self.map.build(backbone, self.tokenizer.size)
        length = fixed_length(self.tokenizer, self.chunk.steps, "parallel")
        self.slots = nn.Parameter(torch.randn(length, backbone.dim) * SPREAD)

    def validate_loaded(self) -> None:
        self.map.check()

    def logits(self, context: Features, backbone: Backbone) -> Tensor:
        """`[B, L, K]` of the action tokens alone, in float32."""
        return backbone.logits(self.hidden(context, backbone), self.map.ids).float()

    def hidden(self, context: Features, backbone: Backbone) -> Tensor:
        embeds = self.slots.expand(len(context.tokens), -1, -1)
        return backbone(embeds, context=context, attention="block")  # [B, L, D]

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """Cross entropy, summed over tokens; labels are not shifted."""
        logits = self.logits(context, backbone).flatten(0, 1)
        labels = target.flatten()
        total = F.cross_entropy(logits, labels, reduction="sum")
        correct = (logits.detach().argmax(-1) == labels).sum()
        return Loss(total, labels.numel(), {"correct": correct})

    def generate(self, context: Features, backbone: Backbone) -> Said:
        return self.logits(context, backbone).argmax(-1)


class Fourier(Parallel):
    """As `Parallel`, a Fourier series over the bins in place of the softmax; the decoder's
    vocabulary is not touched. frequencies: of the series. smoothness: weight of its roughness."""

    options: ClassVar[tuple[str, ...]] = ("frequencies", "smoothness")

    def __init__(
        self,
        tokenizer: ActionTokenizer,
        chunk: Chunks,
        *,
        frequencies: int = 16,
        smoothness: float = 1e-6,
    ) -> None:
        Form.__init__(self, tokenizer, chunk)
        self.frequencies, self.smoothness = frequencies, smoothness

    def build(self, backbone: Backbone) -> None:
        self.head = FourierHead(backbone.dim, self.tokenizer.size, self.frequencies)
        length = fixed_length(self.tokenizer, self.chunk.steps, "fourier")
        self.slots = nn.Parameter(torch.randn(length, backbone.dim) * SPREAD)

    def validate_loaded(self) -> None:
        """There is no mapping to check."""

    def logits(self, context: Features, backbone: Backbone) -> Tensor:
        found: Tensor = self.head(self.hidden(context, backbone))
        return found

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """Cross entropy over bins and `smoothness` times the roughness, summed over tokens."""
        real, imaginary = self.head.coefficients(self.hidden(context, backbone))
        logits = self.head.log(real, imaginary).flatten(0, 1)
        labels = target.flatten()
        total = F.cross_entropy(logits, labels, reduction="sum")
        rough = self.head.roughness(real, imaginary).sum()
        correct = (logits.detach().argmax(-1) == labels).sum()
        parts = {"correct": correct, "roughness": rough.detach()}
        return Loss(total + self.smoothness * rough, labels.numel(), parts)
