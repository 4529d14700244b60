"""Random spans of a text in another encoder's words: they are encoded in both directions, and stand
in the decoder's row in place of their tokens.

Hao et al. 2022 (MetaLM), section 2.3, semi-causal language modelling: the loss is that of the other
tokens, which see the spans before them.

Legend: `B` texts, `S` tokens of the longest source, `L` of the longest target, `N` positions of the
longest row, `D` width.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...modalities.base import Features, Tokenizer
from ..base import Context
from .spans import Span, sample_spans

Docked = Sequence[Mapping[str, Any]]
"""Of each span its first token, the one after its last, and its text: `start, stop, text`."""


class SpanDock(nn.Module):
    """stream: whose encoder reads the spans; any of texts. rate: fraction of the tokens in spans.
    mean_span: tokens of a span."""

    def __init__(self, stream: str, rate: float, mean_span: float) -> None:
        super().__init__()
        self.stream, self.rate, self.mean_span = stream, rate, mean_span
        self.connector: nn.Module = nn.Identity()

    def build(self, width: int, dim: int) -> None:
        """Create the map from the encoder's width to the decoder's."""
        self.connector = nn.Linear(width, dim)

    def draw(
        self, ids: Sequence[int], tokenizer: Tokenizer, rng: np.random.Generator | None
    ) -> list[dict[str, Any]]:
        """Return the spans of a text; without `rng` they depend on the ids alone."""
        if rng is None:
            rng = np.random.default_rng(zlib.crc32(np.array(ids).tobytes()))
        spans: list[Span] = sample_spans(len(ids), self.rate, self.mean_span, rng, len(ids))
        texts = [(start, stop, tokenizer.decode(ids[start:stop])) for start, stop in spans]
        return [{"start": a, "stop": b, "text": text} for a, b, text in texts if text.strip()]

    @staticmethod
    def kept(mask: Tensor, docked: Sequence[Docked]) -> Tensor:
        """Return the real target tokens `[B, L]`, a mask, without those in spans."""
        kept = mask.clone()
        for row, spans in zip(kept, docked, strict=True):
            for span in spans:
                row[span["start"] : span["stop"]] = False
        return kept

    def encode(self, ctx: Context, texts: Sequence[str], device: torch.device) -> list[Tensor]:
        """Return of each text the states `[T, D]` of the stream's encoder, in the decoder's
        width."""
        encoder: Any = ctx.encoder(self.stream)
        batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
        features: Features = encoder(**{name: value.to(device) for name, value in batch.items()})
        states = self.connector(features.tokens)
        if states.is_meta:
            return list(states)
        return [state[mask] for state, mask in zip(states, features.mask, strict=True)]

    def hidden(
        self,
        ctx: Context,
        decoder: Backbone,
        source: tuple[Tensor, Tensor],
        target: tuple[Tensor, Tensor],
        docked: Sequence[Docked],
    ) -> tuple[Tensor, Tensor]:
        """Return hidden `[B, N, D]` of the rows, and the flattened places whose states predict the
        kept tokens, text after text. Masks are on the CPU."""
        device = source[0].device
        texts = [span["text"] for spans in docked for span in spans]
        states = iter(self.encode(ctx, texts, device) if texts else [])
        rows: list[Tensor] = []
        predictors: list[list[int]] = []
        for number, spans in enumerate(docked):
            before = decoder.embed(source[0][number, source[1][number]])
            embeds = decoder.embed(target[0][number, : int(target[1][number].sum())])
            places: list[int] = []
            parts, length, place = [before], len(before), 0
            for span in [*spans, None]:
                stop = len(embeds) if span is None else int(span["start"])
                places += range(length - 1, length - 1 + stop - place)
                parts.append(embeds[place:stop])
                length += stop - place
                if span is not None:
                    parts.append(next(states).to(embeds.dtype))
                    length, place = length + len(parts[-1]), int(span["stop"])
            rows.append(torch.cat(parts))
            predictors.append(places)
        width = max(len(row) for row in rows)
        flat = [number * width + place for number, p in enumerate(predictors) for place in p]
        mask = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
        whole = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        hidden: Tensor = decoder(whole, mask.to(device))
        return hidden, torch.tensor(flat, device=device)
