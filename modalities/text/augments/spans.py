"""Random spans of a text are hidden.

Liu et al., "Fast, Effective, and Self-Supervised: Transforming Masked Language Models into
Universal Lexical and Sentence Encoders" (Mirror-BERT), 2021.
"""

from __future__ import annotations

import numpy as np
import torch

from ...base import Count, PositiveInt, Sample


class SpanMask:
    """One span of `length` tokens becomes `mask_id`, or without one is cut out.

    A text keeps `keep` tokens at each of its ends (the special ones), and at least one more.
    mask_id: the id of the tokenizer's mask token (103 of BERT's).
    """

    def __init__(
        self, *, length: PositiveInt = 5, mask_id: Count | None = None, keep: Count = 1
    ) -> None:
        self.length, self.mask_id, self.keep = length, mask_id, keep

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a new sample; equal generator states give equal spans."""
        ids = sample["ids"]
        inside = len(ids) - 2 * self.keep
        length = min(self.length, inside - 1)
        if length < 1:
            return sample
        start = self.keep + int(rng.integers(inside - length + 1))
        if self.mask_id is None:
            return {**sample, "ids": torch.cat([ids[:start], ids[start + length :]])}
        hidden = ids.clone()
        hidden[start : start + length] = self.mask_id
        return {**sample, "ids": hidden}
