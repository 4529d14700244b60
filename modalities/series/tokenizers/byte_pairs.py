"""Quantized amplitudes merged by pairs: ECG-Byte (Han et al., 2024, arXiv 2412.14373).

Each value becomes one of a few levels, each level a letter, and byte-pair encoding (🤗 tokenizers)
merges the letters that follow each other often. Nothing is lost after the quantization: ids decode
to the quantized series exactly.

Legend: `C` channels, `N` samples, `L` tokens of a series.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from ...base import Count, PositiveInt
from ...signal_tokens import SignalTokenizer, TokenEncoder, check_ids
from ..preprocessing import Preprocessing
from ..read import read
from ..series import Series

FIRST = 0x4E00
"""Letter of the lowest level: a long run of letters follows, none of which is a space."""

KEPT = 200_000
"""Values of a series from which the ends of the levels are computed, evenly spread."""

LONGEST = 64
"""Samples that one token stands for, at most."""


class SeriesTokenizer(SignalTokenizer):
    """A tokenizer of time series."""

    kind = "series_tokenizer"


class SeriesTokens(TokenEncoder):
    """Series as tokens, `encoder: {type: tokens, tokenizer: byte_pairs}`. dim: width of the learned
    vectors, where the stream is an input: with that of the decoder there is no encoder left but a
    table of embeddings."""

    def __init__(self, *, tokenizer: SeriesTokenizer, dim: PositiveInt = 64) -> None:
        super().__init__(tokenizer, dim)


class BytePairs(SeriesTokenizer):
    """levels: of the amplitudes, between the quantiles `tail` and `1 - tail` of each channel in the
    training rows; values beyond are clipped. merges: pairs that become a token each, at most.
    channels, rate: as in `Preprocessing`; a series of another rate is resampled.

    The ids of a series are, channel by channel, the channel's own id and those of its letters. A
    value that was not measured is a letter too.
    """

    def __init__(
        self,
        *,
        levels: Annotated[int, Ge(2)] = 26,
        merges: Count = 500,
        tail: Annotated[float, Ge(0), Lt(0.5)] = 0.001,
        channels: list[str] | None = None,
        rate: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        self.levels, self.merges, self.tail = levels, merges, tail
        self.channels, self.rate = channels, rate
        self._signal = Preprocessing(channels=channels, rate=rate, normalize="none")
        self._low = self._width = np.zeros(0)
        self._backend: Backend | None = None
        self._lengths: tuple[int, ...] = ()
        self.size = len(channels or (0,)) + levels + 1

    def check_example(self, example: Any) -> None:
        read(example)

    def fit(self, rows: Iterable[Any]) -> None:
        """Fit the levels and the pairs. Raise ValueError for rates or channels that differ."""
        series = [read(row) for row in rows]
        self._signal.fit(series)
        matched = [self._signal.matched(each).values for each in series]
        parts = [values[:, :: max(1, values.shape[1] * len(matched) // KEPT)] for values in matched]
        sample = np.concatenate(parts, 1)
        for name, values in zip(self._signal.names, sample, strict=True):
            if np.isnan(values).all():
                raise ValueError(
                    f"byte_pairs: the channel {name!r} has not one measured value in the training "
                    "rows; leave it out by channels"
                )
        ends = np.nanquantile(sample, (self.tail, 1 - self.tail), axis=1)
        self._low, width = ends[0], (ends[1] - ends[0]) / self.levels
        self._width = np.where(width > 0, width, 1.0)
        backend = Backend(BPE())
        backend.decoder = Fuse()
        letters = [chr(FIRST + level) for level in range(self.levels + 1)]
        trainer = BpeTrainer(
            vocab_size=len(letters) + self.merges, min_frequency=2, special_tokens=[],
            initial_alphabet=letters, max_token_length=LONGEST, show_progress=False,
        )  # fmt: skip
        texts = [text for values in matched for text in self._texts(self._symbols(values))]
        backend.train_from_iterator(texts, trainer)
        self._set(backend)

    def _set(self, backend: Backend) -> None:
        vocabulary = backend.get_vocab()
        ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
        self._backend, self._lengths = backend, tuple(map(len, ordered))
        self.size = len(self._signal.names) + len(ordered)

    def encode(self, signals: Any, *args: Any, **options: Any) -> list[Tensor]:
        """Return the ids `[L]` of each series. Raise ReadError for one without a channel that was
        fitted, or without a rate."""
        matched = [self._signal.matched(read(signal)).values for signal in signals]
        texts = [text for values in matched for text in self._texts(self._symbols(values))]
        encodings = iter(self._fitted().encode_batch_fast(texts))
        rows = []
        for _ in matched:
            ids: list[int] = []
            for channel in range(self._first):
                ids += [channel, *(i + self._first for i in next(encodings).ids)]
            rows.append(torch.tensor(ids, dtype=torch.long))
        return rows

    def decode(self, ids: Any, *args: Any, **options: Any) -> list[Series]:
        """Return the quantized series of each row of ids, NaN where nothing was measured. Raise
        ValueError, with the position, for ids that are no series."""
        return [self._series(check_ids(row, self.size, "byte_pairs")) for row in ids]

    def quantize(self, series: Series) -> Series:
        """Return a series with each value at the centre of its level, as it is decoded."""
        matched = self._signal.matched(series)
        return Series(self._centres(self._symbols(matched.values)), matched.rate, matched.channels)

    def next_ids(self, ids: Sequence[int]) -> tuple[Collection[int], bool]:
        """Return the ids that may follow: letters, up to the length of the first channel, and then
        the next channel."""
        if not len(ids):
            return range(1), False
        channels, counts = self._counts(ids)
        if channels == 1:
            following: list[int] = list(range(self._first, self.size))
            whole = counts[0] >= 2
        else:
            room = counts[0] - counts[-1]
            following = [i for i in range(self._first, self.size) if self._length(i) <= room]
            whole = not room
        more = channels < self._first
        return ([channels, *following] if whole and more else following), whole and not more

    def _series(self, ids: list[int]) -> Series:
        position, texts = 0, []
        for channel in range(self._first):
            if position == len(ids) or ids[position] != channel:
                where = f"found {ids[position]}" if position < len(ids) else "the sequence ends"
                raise ValueError(
                    f"byte_pairs: position {position}: {where}, expected {channel}, the channel "
                    f"{self._signal.names[channel]}"
                )
            end = position + 1
            while end < len(ids) and ids[end] >= self._first:
                end += 1
            letters = [i - self._first for i in ids[position + 1 : end]]
            texts.append(self._fitted().decode(letters) if letters else "")
            if len(texts[-1]) != len(texts[0]) or len(texts[0]) < 2:
                expected = len(texts[0]) if channel else "at least 2"
                raise ValueError(
                    f"byte_pairs: position {end}: the channel {self._signal.names[channel]} has "
                    f"{len(texts[-1])} samples, expected {expected}"
                )
            position = end
        if position < len(ids):
            raise ValueError(
                f"byte_pairs: position {position}: found {ids[position]}, expected the end"
            )
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4").astype(np.int64)
        values = self._centres((codes - FIRST).reshape(self._first, -1))
        return Series(values, self._signal.fitted_rate, self._signal.names)

    def _counts(self, ids: Sequence[int]) -> tuple[int, list[int]]:
        """Return the channels that have begun, and the samples of each."""
        counts: list[int] = []
        for each in ids:
            if each < self._first:
                counts.append(0)
            else:
                counts[-1] += self._length(each)
        return len(counts), counts

    def _length(self, token: int) -> int:
        return self._lengths[token - self._first]

    @property
    def _first(self) -> int:
        """The id of the first letter: those before are channels."""
        return len(self._signal.names)

    def state(self) -> dict[str, Any]:
        signal = {f"signal.{key}": value for key, value in self._signal.state().items()}
        ends = {"low": self._low, "width": self._width}
        return {**signal, **ends, "pairs": self._fitted().to_str()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        signal = {k.removeprefix("signal."): v for k, v in state.items() if k.startswith("signal.")}
        self._signal.load_state(signal)
        self._low, self._width = (np.asarray(state[k], np.float64) for k in ("low", "width"))
        self._set(Backend.from_str(state["pairs"]))

    def _symbols(self, values: np.ndarray) -> np.ndarray:
        """Return the level `[C, N]` of each value; `levels` where none was measured."""
        places = np.floor((values - self._low[:, None]) / self._width[:, None])
        levels = np.clip(np.nan_to_num(places), 0, self.levels - 1)
        symbols: np.ndarray = np.where(np.isnan(values), self.levels, levels).astype(np.int64)
        return symbols

    def _centres(self, symbols: np.ndarray) -> np.ndarray:
        centres = self._low[:, None] + (symbols + 0.5) * self._width[:, None]
        values: np.ndarray = np.where(symbols == self.levels, np.nan, centres)
        return values

    def _texts(self, symbols: np.ndarray) -> list[str]:
        codes = (symbols + FIRST).astype("<u4")
        return [row.tobytes().decode("utf-32-le") for row in codes]

    def _fitted(self) -> Backend:
        if self._backend is None:
            raise ValueError("byte_pairs: used before fit; fit it, or load a saved one")
        return self._backend
