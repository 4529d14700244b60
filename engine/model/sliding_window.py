"""Encoding of long signals in overlapping windows.

Windows are cut at whole tokens and encoded a few at a time, of any rows. Where two overlap, the
first provides the tokens before the middle of the overlap and the second those after it, so that no
token is at a cut. Memory for the encoder is that of a few windows.

Legend: `B` rows, `T` tokens of the longest, `N` windows of one call, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Encoder, Features
from ...tasks.uses import ChunkSpec

WINDOWS_PER_FORWARD = 8
"""Windows that are encoded in one forward."""

Batch = dict[str, Tensor]


def encode_windowed(encoder: Encoder, batch: Batch, options: Mapping[str, Any]) -> Features:
    """Run the encoder. With the option `window`, rows longer than its limit are encoded in windows
    if the encoder defines `time_inputs`, else whole."""
    encoder_options = {name: value for name, value in options.items() if name != "window"}
    window: ChunkSpec | None = options.get("window")
    if window is None or not encoder.time_inputs:
        features: Features = encoder(**batch, **encoder_options)
        return features
    return _Cutter(encoder, window, encoder_options).encode(batch)


class _Cutter:
    def __init__(self, encoder: Encoder, window: ChunkSpec, options: Mapping[str, Any]) -> None:
        self.encoder, self.window, self.options = encoder, window, options
        self.hop = max(1, window.length - window.overlap)
        self.lead = (window.length - self.hop) // 2

    def encode(self, batch: Batch) -> Features:
        tokens = self._tokens(batch)
        long = [row for row, count in enumerate(tokens) if count > self.window.limit]
        if not long:
            features: Features = self.encoder(**batch, **self.options)
            return features
        rows: dict[int, list[Tensor]] = {row: [] for row in range(len(tokens))}
        short = [row for row in rows if row not in long]
        if short:
            encoded = self._run(_rows(batch, short), short, max(tokens[row] for row in short))
            for row, values, mask in zip(short, encoded.tokens, encoded.mask, strict=True):
                rows[row].append(values[mask])
        windows = [(row, start) for row in long for start in self._starts(tokens[row])]
        like = self._long(batch, tokens, windows, rows)
        packed = Features.pad([torch.cat(parts) for parts in rows.values()])
        return packed.replace(
            grid=(packed.tokens.shape[1],), spacing=like.spacing, origin=like.origin
        )

    def _tokens(self, batch: Batch) -> list[int]:
        """Return the tokens of each row, from its real steps."""
        name = next(n for n in self.encoder.time_inputs if batch[n].dtype == torch.bool)
        steps = batch[name].sum(1).tolist()
        return [-(-count // self.encoder.time_inputs[name]) for count in steps]

    def _starts(self, tokens: int) -> Iterator[int]:
        """Return the first tokens of the windows; the last window ends with the row."""
        start = 0
        while True:
            yield start
            if start + self.window.length >= tokens:
                return
            start += self.hop

    def _long(
        self,
        batch: Batch,
        tokens: list[int],
        windows: list[tuple[int, int]],
        rows: dict[int, list[Tensor]],
    ) -> Features:
        """Encode windows and add each to its row; return the features of one window."""
        length = self.window.length
        for first in range(0, len(windows), WINDOWS_PER_FORWARD):
            group = windows[first : first + WINDOWS_PER_FORWARD]
            pieces = [self._slice(_row(batch, row), start, length) for row, start in group]
            joined = {name: torch.cat([p[name] for p in pieces]) for name in batch}
            features: Features = self.encoder(
                **joined, **options_of(self.options, [row for row, _ in group])
            )
            for (row, start), values, mask in zip(
                group, features.tokens, features.mask, strict=True
            ):
                begin = self.lead if start else 0
                last = start + length >= tokens[row]
                stop = int(mask.sum()) if last else self.hop + self.lead
                rows[row].append(values[begin:stop])
        return features

    def _run(self, batch: Batch, rows: list[int], length: int) -> Features:
        features: Features = self.encoder(
            **self._slice(batch, 0, length), **options_of(self.options, rows)
        )
        return features

    def _slice(self, batch: Batch, start: int, length: int) -> Batch:
        """Return the steps of `length` tokens from one on, padded on the right if there are
        fewer."""
        window = dict(batch)
        for name, steps in self.encoder.time_inputs.items():
            piece = batch[name][:, start * steps : (start + length) * steps]
            missing = length * steps - piece.shape[1]
            window[name] = F.pad(piece, (0, 0) * (piece.ndim - 2) + (0, missing))
        return window


def options_of(options: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Return the options for some rows of a batch: hooks that differ by row have an `of`."""
    hooks = options.get("layer_hooks")
    if not hooks:
        return dict(options)
    chosen = {layer: h.of(rows) if hasattr(h, "of") else h for layer, h in hooks.items()}
    return {**options, "layer_hooks": chosen}


def _row(batch: Batch, row: int) -> Batch:
    """Return a view: a recording may be long, and has many windows."""
    return {name: tensor[row : row + 1] for name, tensor in batch.items()}


def _rows(batch: Batch, rows: list[int]) -> Batch:
    return {name: tensor[rows] for name, tensor in batch.items()}
