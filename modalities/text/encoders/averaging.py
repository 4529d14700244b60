"""The mean of word vectors as a text encoder.

Cer et al., "Universal Sentence Encoder", 2018, section 3.2: a deep averaging network.

Legend: `B` batch, `L` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...base import Count, Encoder, Features, PositiveInt, Sample, Tokenizer
from ...text_processor import TextProcessor, collate_ids


class DeepAveraging(Encoder):
    """tokens: the vectors of the text's pieces. pooled: their mean through a perceptron.

    dim: of a piece, and of each of the perceptron's `depth` layers. bigrams: rows of a table of
    pairs of neighbours, found by a hash, whose vectors join the mean; 0 leaves the order of the
    pieces without effect. max_length: longer texts are truncated.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        dim: PositiveInt = 128,
        depth: PositiveInt = 2,
        bigrams: Count = 0,
        max_length: PositiveInt = 512,
    ) -> None:
        super().__init__()
        self.dim, self.tokenizer = dim, tokenizer
        self.processor: TextProcessor = TextProcessor(tokenizer, max_length)
        self.pieces = nn.Embedding(tokenizer.size, dim)
        self.bigrams = nn.Embedding(bigrams, dim) if bigrams else None
        layers = [layer for _ in range(depth) for layer in (nn.Linear(dim, dim), nn.GELU())]
        self.layers = nn.Sequential(*layers[:-1])

    def blocks(self) -> Sequence[nn.Module]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ids `[B, L]` padded on the right, and mask `[B, L]`."""
        return collate_ids(samples, self.tokenizer.pad_id)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        """Return tokens `[B, L, D]` and pooled `[B, D]` of ids and mask `[B, L]`."""
        tokens = self.pieces(ids).masked_fill(~mask[..., None], 0)
        total, count = tokens.sum(1), mask.sum(1, keepdim=True)
        if self.bigrams is not None:
            pairs = (ids[:, :-1] * 1_000_003 + ids[:, 1:]) % self.bigrams.num_embeddings
            vectors = self.bigrams(pairs).masked_fill(~mask[:, 1:, None], 0)
            total, count = total + vectors.sum(1), count + mask[:, 1:].sum(1, keepdim=True)
        mean = total / count.clamp(min=1)
        return Features(tokens, mask, pooled=self.layers(mean))
