"""Text encoders beyond the common contract."""

from __future__ import annotations

import pytest
import torch
from encoder_cases import TEXT, TEXTS, build


@pytest.mark.parametrize("case", TEXT)
def test_what_stands_in_the_padding_does_not_matter(case: str) -> None:
    encoder = build("text", case)
    batch = encoder.collate([encoder.processor.prepare(text) for text in TEXTS])
    features = encoder(**batch)
    one = case == "sequence_classifier"  # its scores are the one token of a text
    assert (features.grid is None) == (case != "rendered") and bool(features.mask.all()) == one
    for name, values in batch.items():
        if name != "mask" and values.shape[:2] == batch["mask"].shape:
            values[~batch["mask"]] = 9 if not values.is_floating_point() else 1e3
    torch.testing.assert_close(encoder(**batch).tokens, features.tokens, rtol=1e-5, atol=1e-5)
