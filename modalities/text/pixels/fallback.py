"""Words outside a vocabulary as pixels (Pixel-level fallback, arXiv 2504.02122).

A word of which the tokenizer makes more than `max_pieces` ids is drawn, and one vector of a small
encoder of its picture stands in its place among the embeddings. All other words are embedded as
ever: a text without such a word is encoded as if this were not there.

Legend: `B` batch, `L` ids, `N` drawn words, `E` width of an embedding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ...base import Encoder, Features, PositiveInt, Processor, Sample, Tokenizer
from ...text_processor import CutCounter, fingerprint
from .encoder import RenderedText

PIECE = re.compile(r"\s*\S+|\s+")


class FallbackProcessor(Processor):
    """`ids [L]`; of the drawn words `places [n]`, `widths [n]` in px, and the strips one
    after the other, `strip [sum of widths, h]` uint8."""

    def __init__(self, tokenizer: Tokenizer, text: Processor, pixels: Processor, most: int) -> None:
        self.tokenizer, self.text, self.pixels, self.most = tokenizer, text, pixels, most
        self.cut = CutCounter()

    def prepare(self, raw: str) -> Sample:
        words = PIECE.findall(raw)
        encoded = [self.tokenizer.encode(word) for word in words]
        if all(len(ids) <= self.most for ids in encoded):
            return _sample(self.text.prepare(raw)["ids"].tolist(), [], [])
        whole, plain = self.tokenizer.encode("a", special=True), self.tokenizer.encode("a")
        start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        ids, places, strips = list(whole[:start]), [], []
        for word, pieces in zip(words, encoded, strict=True):
            if len(pieces) > self.most and word.strip():
                places.append(len(ids))
                ids.append(self.tokenizer.pad_id)
                strips.append(self.pixels.prepare(word.strip())["strip"])
            else:
                ids += pieces
        ids += whole[start + len(plain) :]
        longest = getattr(self.text, "max_length", len(ids))
        if len(ids) > longest:
            self.cut.add(f"max_length {longest}", raw)
            places = [place for place in places if place < longest]
        return _sample(ids[:longest], places, strips[: len(places)])

    def settings(self) -> dict[str, Any]:
        return {
            "tokenizer": fingerprint(self.tokenizer),
            "text": self.text.settings(),
            "pixels": self.pixels.settings(),
            "most": self.most,
        }


def _sample(ids: list[int], places: list[int], strips: list[Tensor]) -> Sample:
    empty = torch.zeros(0, 1, dtype=torch.uint8)
    return {
        "ids": torch.tensor(ids, dtype=torch.long),
        "places": torch.tensor(places, dtype=torch.long),
        "strip": torch.cat([strip.T for strip in strips]) if strips else empty,
        "widths": torch.tensor([strip.shape[1] for strip in strips], dtype=torch.long),
    }


class PixelFallback(Encoder):
    """encoder: a text encoder that reads embeddings, `{type: causal_lm, ...}`. max_pieces: ids of a
    word above which it is drawn. pixels: options of the small encoder of pictures of words, as
    those of `rendered`.
    """

    def __init__(
        self,
        *,
        encoder: Annotated[Encoder, "text"],
        max_pieces: PositiveInt = 4,
        pixels: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        tokenizer = getattr(encoder, "tokenizer", None)
        if "inputs_embeds" not in encoder.supports or tokenizer is None:
            raise ValueError("encoder: reads no embeddings; use type: transformers or causal_lm")
        self.encoder, self.dim = encoder, encoder.dim
        self.batch_invariant = encoder.batch_invariant
        options = {"dim": 64, "depth": 2, "heads": 4, "max_patches": 32, **(pixels or {})}
        self.pixels = RenderedText(**options)
        self.pixels.mask_token.requires_grad_(False)  # no patch is masked here
        self.processor = FallbackProcessor(
            tokenizer, encoder.processor, self.pixels.processor, max_pieces
        )
        probe = self._embed(torch.zeros(1, 1, dtype=torch.long, device=self._device()))
        self.project = nn.Linear(self.pixels.dim, probe.shape[-1])

    def _device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def _embed(self, ids: Tensor) -> Tensor:
        embed: Any = self.encoder
        embedded: Tensor = embed.embed(ids)
        return embedded

    def blocks(self) -> Sequence[nn.Module]:
        return [*self.pixels.blocks(), *self.encoder.blocks()]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return what the encoder reads; and of each text its drawn words: their places `[B, n]`
        (-1: none), and their strips `[B, n, h, W]` with the px of each `[B, n]`."""
        batch = self.encoder.collate([{"ids": s["ids"]} for s in samples])
        side, counts = self.pixels.processor.patch, [len(s["places"]) for s in samples]
        most = max(counts)
        widest = max((int(w) for s in samples for w in s["widths"]), default=0)
        places = torch.full((len(samples), most), -1)
        widths = torch.zeros(len(samples), most, dtype=torch.long)
        strips = torch.full((len(samples), most, side, widest), 255, dtype=torch.uint8)
        for row, sample in enumerate(samples):
            places[row, : counts[row]] = sample["places"]
            widths[row, : counts[row]] = sample["widths"]
            for place, part in enumerate(sample["strip"].split(sample["widths"].tolist())):
                strips[row, place, :, : len(part)] = part.T
        return {**batch, "places": places, "widths": widths, "strips": strips}

    def forward(
        self, ids: Tensor, mask: Tensor, places: Tensor, widths: Tensor, strips: Tensor
    ) -> Features:
        """Return the encoder's features; a drawn word is one token."""
        if not places.shape[1]:
            features: Features = self.encoder(ids, mask)
            return features
        side = self.pixels.processor.patch
        real = torch.arange(strips.shape[-1] // side, device=ids.device) < (
            widths.flatten()[:, None] // side
        )
        pictures = strips.flatten(0, 1)
        vectors = self.project(self.pixels(pictures, real).mean())  # [B n, E]
        index = (places + 1).to(ids.device)  # 0: none
        spare = torch.cat([self._embed(ids[:, :1]), self._embed(ids)], 1)  # a place for none
        mixed = spare.scatter(
            1,
            index[..., None].expand(-1, -1, spare.shape[-1]),
            vectors.view(*index.shape, -1).to(spare.dtype),
        )
        result: Features = self.encoder(ids, mask, inputs_embeds=mixed[:, 1:])
        return result
