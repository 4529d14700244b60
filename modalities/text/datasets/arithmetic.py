"""Sums and comparisons in words, generated: numbers whose handling can be learned (GenBERT, 2020).

A row depends on the seed, the split and its number alone.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np

from ...base import Count, PositiveInt, Source

SPLITS = {"train": 0, "test": 1}


class Arithmetic(Source):
    """Rows `question, answer, text`: `12 + 7 - 3`, `16`, and both, `12 + 7 - 3 = 16`.

    rows: their number. terms: of a sum, 2 to this many. largest: number in a question. seed: of
    the draws; both splits have their own.
    """

    columns = ("question", "answer", "text")

    def __init__(
        self,
        *,
        split: Literal["train", "test"],
        rows: PositiveInt = 10_000,
        terms: PositiveInt = 3,
        largest: PositiveInt = 99,
        seed: Count = 0,
    ) -> None:
        if terms < 2:
            raise ValueError(f"terms: found {terms}, expected 2 or more")
        self.split, self.rows, self.terms = SPLITS[split], rows, terms
        self.largest, self.seed = largest, seed

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.rows:
            raise IndexError(index)
        rng = np.random.default_rng([abs(self.seed), self.split, index])
        count = int(rng.integers(2, self.terms + 1))
        numbers = rng.integers(self.largest + 1, size=count).tolist()
        if rng.random() < 0.25:
            question = f"the largest of {', '.join(map(str, numbers))}"
            answer = str(max(numbers))
        else:
            signs = rng.choice([1, -1], size=count - 1).tolist()
            pairs = zip(signs, numbers[1:], strict=True)
            total = numbers[0] + sum(s * n for s, n in zip(signs, numbers[1:], strict=True))
            rest = "".join(f" {'+' if sign > 0 else '-'} {number}" for sign, number in pairs)
            question, answer = f"{numbers[0]}{rest}", str(total)
        return {"question": question, "answer": answer, "text": f"{question} = {answer}"}

    def fingerprint(self) -> str:
        options = (self.split, self.rows, self.terms, self.largest, self.seed)
        return hashlib.sha256(repr(options).encode()).hexdigest()
