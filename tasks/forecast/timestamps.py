"""Vectors of the times of segments: their texts, read by the decoder.

Legend: `B` rows, `T` segments, `D` width of the decoder.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...modalities.series.series import time_text

FIELDS = ("start", "end")
REMEMBERED = 100_000
"""Texts whose vectors are kept in memory."""


class TimeStamps:
    """template: text with `{start}` and `{end}`, the times of a segment's first and last sample.
    The vectors of a frozen decoder are computed once for each text."""

    def __init__(self, template: str) -> None:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        if not fields or fields - set(FIELDS):
            raise ValueError(
                f"timestamps: found {template!r}, expected a text with {{start}}, {{end}} or both"
            )
        self.template = template
        self._vectors: dict[str, Tensor] = {}

    def text(self, first: int, last: int, rate: float | None, start: float | None) -> str:
        times = {"start": time_text(first, rate, start), "end": time_text(last, rate, start)}
        return self.template.format(**times)

    def vectors(
        self,
        references: Sequence[Mapping[str, Any]],
        segments: int,
        size: int,
        decoder: Backbone,
    ) -> Tensor:
        """Return `[B, T, D]` of the segments of rows, those that were appended too. size: samples
        of a segment; one of them ends with the row's last sample."""
        texts = []
        for reference in references:
            first = reference["steps"] % size
            rate, start = reference["rate"], reference["start"]
            texts.append(
                [
                    self.text(first + size * t, first + size * (t + 1) - 1, rate, start)
                    for t in range(segments)
                ]
            )
        known = self._of({text for row in texts for text in row}, decoder)
        return torch.stack([torch.stack([known[text] for text in row]) for row in texts])

    @torch.no_grad()
    def _of(self, texts: set[str], decoder: Backbone) -> dict[str, Tensor]:
        """Return the hidden state `[D]` of each text's last token."""
        frozen = not any(p.requires_grad for p in decoder.parameters())
        if not frozen or len(self._vectors) > REMEMBERED:
            self._vectors.clear()
        new: dict[str, Tensor] = {}
        missing = sorted(texts - set(self._vectors))
        device = next(decoder.parameters()).device
        for first in range(0, len(missing), 256):
            part = missing[first : first + 256]
            ids, mask = decoder.tokenizer.encode_batch(part)
            ids, mask = ids.to(device), mask.to(device)
            hidden = decoder.forward(decoder.embed(ids), mask)
            assert isinstance(hidden, Tensor)
            last = hidden[torch.arange(len(part), device=device), mask.sum(1) - 1]
            new |= dict(zip(part, last.float(), strict=True))
        if frozen and device.type != "meta":
            self._vectors |= new
        return {text: new[text] if text in new else self._vectors[text] for text in texts}
