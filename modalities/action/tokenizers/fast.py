"""FAST: a cosine transform over time, rounded, and byte pairs over the rest (arXiv 2501.09747).

Actions are scaled to [-1, 1] at their quantiles; the orthonormal DCT-II of each joint times `scale`
is rounded to whole numbers, which become characters, lowest frequencies of all joints first, and
byte-pair encoding (🤗 tokenizers) turns them into ids. How many varies from chunk to chunk, and a
sequence that does not decode to `steps * dof` numbers is no chunk.

Legend: `B` chunks, `steps` samples, `dof` joints, `L_i` tokens of chunk `i`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from ...base import NonNegativeFloat, PositiveInt
from . import validation
from .base import ActionTokenizer
from .quantiles import Reservoir, bounds
from .step_bounds import Bounds, check_no_start, finite

FIRST = 0x4E00
"""Character of the smallest number: a long run of letters, none of which is a space."""

LETTERS = 20_000
KEPT = 50_000
"""Chunks of one length that are learned from; of more, an even sample."""


class FastTokenizer(ActionTokenizer):
    """dof: numbers of an action; None: as the data. vocab: the largest number of ids; fewer where
    the data has no more pairs. scale: factor of the coefficients before rounding."""

    def __init__(
        self,
        *,
        dof: PositiveInt | None = None,
        vocab: PositiveInt = 1024,
        scale: NonNegativeFloat = 10.0,
        quantiles: tuple[float, float] = (0.01, 0.99),
    ) -> None:
        if scale <= 0:
            raise ValueError(f"scale: found {scale}, expected more than 0")
        self.dof, self.scale = validation.joints(dof), scale
        self.vocab = self.size = validation.vocabulary(vocab)
        self.quantiles = validation.quantiles(quantiles)
        self._bounds: Bounds | None = None
        self._backend: Backend | None = None
        self._least = self._most = 0

    def length(self, steps: int) -> None:
        """Varies from chunk to chunk."""
        validation.require_fitted(self.dof)

    def fit(self, rows: Iterable[Any]) -> None:
        """Learn quantiles, the range of coefficients, and the pairs of up to 50,000 chunks."""
        reservoirs: dict[int, Reservoir] = {}
        for values, real in validation.iter_blocks(rows, self.dof):
            filled = validation.forward_fill(torch.from_numpy(values), torch.from_numpy(real))
            self.dof = filled.shape[2]
            reservoir = reservoirs.setdefault(filled.shape[1], Reservoir(KEPT))
            reservoir.add(filled.flatten(1).numpy().astype(np.float32))
        dof = validation.require_fitted(self.dof)
        chunks = [r.rows().reshape(-1, steps, dof) for steps, r in reservoirs.items()]
        samples = np.concatenate([c.reshape(-1, dof) for c in chunks]).astype(np.float64)
        self._bounds = Bounds(*bounds(samples, self.quantiles))
        numbers = [self._numbers(torch.from_numpy(each)) for each in chunks]
        self._least = min(int(each.min()) for each in numbers)
        self._most = max(int(each.max()) for each in numbers)
        self._learn(text for each in numbers for text in self._texts(each))

    def _learn(self, texts: Iterator[str]) -> None:
        letters = self._most - self._least + 1
        if letters > min(self.vocab, LETTERS):
            raise ValueError(
                f"vocab: the rounded coefficients have {letters} values, which {self.vocab} ids "
                "cannot name; use a smaller scale, or a larger vocab"
            )
        backend = Backend(BPE())
        backend.decoder = Fuse()
        trainer = BpeTrainer(
            vocab_size=self.vocab,
            min_frequency=2,
            special_tokens=[],
            initial_alphabet=[chr(FIRST + i) for i in range(letters)],
            max_token_length=10_000,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        self._backend, self.size = backend, backend.get_vocab_size()

    def encode(
        self, chunks: Tensor, *, padding: Tensor | None = None, start: Tensor | None = None
    ) -> list[Tensor]:
        """`[B, steps, dof]` -> a list of ids `[L_i]`; numbers beyond the fitted are clipped."""
        check_no_start(start)
        numbers = self._numbers(finite(chunks, self.dof, padding))
        encodings = self._require_tokenizer().encode_batch_fast(self._texts(numbers))
        return [torch.tensor(each.ids, device=numbers.device) for each in encodings]

    def decode(
        self, ids: Tensor | list[Tensor], *, steps: int, start: Tensor | None = None
    ) -> Tensor:
        """Return `[B, steps, dof]` of a list of ids. Raise ValueError for a sequence that cannot be
        decoded."""
        check_no_start(start)
        device = ids[0].device if len(ids) else None
        dof = validation.require_fitted(self.dof)
        expected = steps * dof
        texts = self._require_tokenizer().decode_batch(self._as_lists(ids))
        for row, text in enumerate(texts):
            if len(text) != expected:
                raise ValueError(
                    f"ids: sequence {row} has {len(text)} numbers, expected {steps} steps x "
                    f"{dof} joints = {expected}; they encode no chunk"
                )
        letters = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
        numbers = torch.from_numpy(letters.astype(np.int64) + (self._least - FIRST))
        return self._values(numbers.view(-1, steps, dof).to(device))

    def _as_lists(self, ids: Tensor | list[Tensor]) -> list[list[int]]:
        """Return ids as lists; ValueError for a foreign one."""
        rows = [torch.as_tensor(row) for row in ids]
        for row in rows:
            validation.ids(row[None], len(row), self.size, None)
        return [row.tolist() for row in rows]

    def state(self) -> dict[str, Any]:
        """`low`, `high [dof]`, the range of the numbers, and the text of a `tokenizer.json`."""
        backend, scaled = self._require_tokenizer().to_str(), self._scaled()
        numbers = {"least": self._least, "most": self._most}
        return {"low": scaled.low, "high": scaled.high, **numbers, "tokenizer": backend}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._bounds = Bounds.of_state(state, self.dof)
        self.dof = len(state["low"])
        self._least, self._most = state["least"], state["most"]
        self._backend = Backend.from_str(state["tokenizer"])
        self.size = self._backend.get_vocab_size()

    def _numbers(self, values: Tensor) -> Tensor:
        """`[B, steps, dof]` -> the rounded coefficients, of the same shape."""
        with torch.autocast(values.device.type, enabled=False):
            within = self._scaled().shrink(values)
            return (cosines(values.shape[1]).to(within) @ within * self.scale).round().long()

    def _values(self, numbers: Tensor) -> Tensor:
        """Return the way back, as float32."""
        coefficients = numbers.float() / self.scale
        with torch.autocast(numbers.device.type, enabled=False):
            values = cosines(numbers.shape[1]).to(coefficients).T @ coefficients
            return self._scaled().stretch(values)

    def _texts(self, numbers: Tensor) -> list[str]:
        """Return a character a number, lowest frequency first, all joints of it together."""
        letters = numbers.clamp(self._least, self._most) - self._least + FIRST
        count = letters[0].numel() if len(letters) else 0
        text = letters.cpu().numpy().astype("<u4").tobytes().decode("utf-32-le")
        return [text[i : i + count] for i in range(0, len(text), count or 1)]

    def _require_tokenizer(self) -> Backend:
        if self._backend is None:
            raise ValueError("action tokenizer: used before fit; fit it, or load a saved one")
        return self._backend

    def _scaled(self) -> Bounds:
        if self._bounds is None:
            raise ValueError("action tokenizer: used before fit; fit it, or load a saved one")
        return self._bounds


@functools.cache
def cosines(steps: int) -> Tensor:
    """Return `[steps, steps]` float64: the orthonormal DCT-II; its transpose is the inverse."""
    time, frequency = torch.arange(steps, dtype=torch.float64), torch.arange(steps)[:, None]
    matrix = torch.cos(torch.pi * (time + 0.5) * frequency / steps) * (2 / steps) ** 0.5
    matrix[0] /= 2**0.5
    return matrix
