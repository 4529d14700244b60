"""Characters as tokens, for CTC (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..base import Tokenizer

SPECIAL = ("<pad>", "<bos>", "<eos>")  # ids 0, 1, 2


class Characters(Tokenizer):
    """The characters of the training texts after three special tokens, in sorted order.

    lower: lower-case texts. A character that the training texts lack is an error, since no
    embedding of it was trained.
    """

    pad_id, bos_id, eos_id = range(len(SPECIAL))

    def __init__(self, *, lower: bool = True) -> None:
        self.lower = lower
        self._letters: tuple[str, ...] = ()
        self._places: dict[str, int] = {}

    # An attribute in the contract; here it is known only after `fit`.
    @property
    def size(self) -> int:  # type: ignore[override]
        return len(SPECIAL) + len(self._fitted)

    @property
    def _fitted(self) -> tuple[str, ...]:
        if not self._letters:
            raise RuntimeError("tokenizer characters: used before fit or load_state")
        return self._letters

    def check_example(self, example: Any) -> None:
        if not isinstance(example, str):
            raise ValueError(f"tokenizer characters: fits on texts, found {type(example).__name__}")

    def fit(self, rows: Iterable[Any]) -> None:
        """Collect the characters of `rows`, which are texts. Raise ValueError if there are none."""
        characters: set[str] = set()
        for index, row in enumerate(rows):
            if not isinstance(row, str):
                raise ValueError(
                    f"tokenizer characters: fits on texts, row {index} is {type(row).__name__}"
                )
            characters.update(self._read(row))
        if not characters:
            raise ValueError("tokenizer characters: there is no text to fit on; use bytes")
        self._take(sorted(characters))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of a text; with `special` between `<bos>` and `<eos>`. Raise ValueError
        for a character that is not in the vocabulary."""
        count = len(self._fitted)
        unknown = sorted({letter for letter in self._read(text) if letter not in self._places})
        if unknown:
            raise ValueError(
                f"tokenizer characters: {text!r} holds {', '.join(map(repr, unknown))}, which none "
                f"of the {count} characters of the training texts is; change the text, or train "
                "with such texts"
            )
        ids = [self._places[letter] for letter in self._read(text)]
        return [self.bos_id, *ids, self.eos_id] if special else ids

    def decode(self, ids: Sequence[int]) -> str:
        letters = self._fitted
        first = len(SPECIAL)
        return "".join(letters[i - first] for i in ids if first <= i < first + len(letters))

    def state(self) -> dict[str, Any]:
        return {"letters": list(self._fitted), "lower": self.lower}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.lower = state["lower"]
        self._take(state["letters"])

    def _read(self, text: str) -> str:
        return text.lower() if self.lower else text

    def _take(self, letters: Sequence[str]) -> None:
        self._letters = tuple(letters)
        self._places = {letter: len(SPECIAL) + i for i, letter in enumerate(letters)}


BASES = "ACGTN"  # N: any of the four


class Nucleotides(Tokenizer):
    """DNA at the resolution of one base: A, C, G, T and N, after four special tokens (HybriDNA,
    arXiv 2502.10807). Lower-case letters, which mark repeats, are read as upper-case ones; U, of
    RNA, as T. Needs no fit."""

    pad_id, bos_id, eos_id, mask_id = range(4)
    size = 4 + len(BASES)

    def __init__(self) -> None:
        """There are no options."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the id of each base; with `special` between `<bos>` and `<eos>`. Raise ValueError,
        with the position, for another letter."""
        sequence = text.upper().replace("U", "T")
        for position, base in enumerate(sequence):
            if base not in BASES:
                raise ValueError(
                    f"tokenizer nucleotides: position {position}: found {text[position]!r}, "
                    "expected A, C, G, T, U or N"
                )
        ids = [4 + BASES.index(base) for base in sequence]
        return [self.bos_id, *ids, self.eos_id] if special else ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(BASES[i - 4] for i in ids if 4 <= i < self.size)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """There is no state."""


def reverse_complement(sequence: str) -> str:
    """Return the other strand of DNA, read from its own beginning; twice, the sequence itself."""
    return sequence.upper()[::-1].translate(str.maketrans("ACGT", "TGCA"))
