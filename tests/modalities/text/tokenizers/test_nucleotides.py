"""Bases as tokens: round trips, both strands, letters that are none."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.modalities.text.characters import BASES, Nucleotides, reverse_complement


def sequences(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list(BASES), rng.integers(0, 30))) for _ in range(count)]


def test_every_sequence_comes_back() -> None:
    """10,000 of them, one token a base; and the other strand of the other strand is the first."""
    tokenizer = Nucleotides()
    for text in sequences(10_000):
        ids = tokenizer.encode(text)
        assert len(ids) == len(text) and tokenizer.decode(ids) == text
        assert reverse_complement(reverse_complement(text)) == text


def test_case_and_rna_are_read() -> None:
    tokenizer = Nucleotides()
    assert tokenizer.decode(tokenizer.encode("acguN", special=True)) == "ACGTN"
    assert reverse_complement("AACGN") == "NCGTT"


def test_another_letter_is_named_with_its_position() -> None:
    with pytest.raises(ValueError, match="position 3: found 'x', expected A, C, G, T, U or N"):
        Nucleotides().encode("ACGxT")
