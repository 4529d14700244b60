"""The ids of a text stream: drawn masks, corrupted copies, and their states.

Legend: `B` rows, `L` tokens of the longest text, `P` tokens docked in front, `E` width of an
embedding, `D` width of a state, `N` chosen positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from ....modalities.base import Features
from ....modalities.groups import EncoderInputs, groups_of, merge
from ...base import VocabularyEncoder
from ...common import merged_ids
from .docking import Docked


@dataclass(frozen=True)
class MaskRule:
    """prob: of each token to be chosen; of the chosen ones `random` become another token and
    `keep` stay, the others become the mask token (BERT: 0.15, 0.1, 0.1)."""

    prob: float = 0.15
    random: float = 0.1
    keep: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.prob < 1:
            raise ValueError(f"mask_prob: found {self.prob}, expected 0 or more and below 1")
        if self.random < 0 or self.keep < 0 or self.random + self.keep > 1:
            raise ValueError(
                f"random_prob and keep_prob: found {self.random} and {self.keep}, expected two "
                "numbers of sum 1 or less"
            )


@dataclass(frozen=True)
class TextIds:
    """ids `[B, L]`, mask `[B, L]` (real), special `[B, L]`: tokens of the tokenizer's template and
    padding, which are never chosen. languages: `[B]`, for an encoder with parameters of each."""

    ids: Tensor
    mask: Tensor
    special: Tensor
    languages: Tensor | None = None

    @classmethod
    def of(cls, inputs: EncoderInputs, encoder: VocabularyEncoder) -> Self:
        """Return the ids of a batch's samples, padded if they were kept apart by shape."""
        tokenizer = encoder.processor.tokenizer
        ids, mask = merged_ids(inputs, tokenizer, languages=True)
        special = ~mask
        for number in special_ids(tokenizer):
            special = special | (ids == number)
        return cls(ids, mask, special, _languages(inputs))

    def of_rows(self, rows: Tensor, ids: Tensor, mask: Tensor, special: Tensor) -> Self:
        """Return other ids in the languages of some rows."""
        languages = None if self.languages is None else self.languages[rows]
        return type(self)(ids, mask, special, languages)

    def hiding(self, chosen: Tensor) -> Self:
        """Return the text whose chosen tokens nothing attends to; the others stay in their
        places."""
        return replace(self, mask=self.mask & ~chosen)

    def choose(self, prob: float, generator: torch.Generator | None) -> Tensor:
        """Return bool `[B, L]`: ordinary tokens drawn with probability `prob`, at least one of a
        row that has any. Without a generator the draws depend on a row's ids alone."""
        draws = self.draws(generator).to(self.ids.device).masked_fill(self.special, 2.0)
        chosen = draws < prob
        if prob:
            places = torch.arange(draws.shape[1], device=draws.device)
            first = (places == draws.argmin(1, keepdim=True)) & ~self.special
            chosen = chosen | (first & ~chosen.any(1, keepdim=True))
        return chosen

    def draws(self, generator: torch.Generator | None) -> Tensor:
        """Return numbers `[B, L]` of 0 to 1, on the CPU; without a generator those of a row depend
        on its ids alone."""
        if generator is not None or self.ids.is_meta:
            return torch.rand(self.ids.shape, generator=generator)
        rows = [row.tobytes() for row in self.ids.masked_fill(~self.mask, -1).cpu().numpy()]
        seeds = [zlib.crc32(row.rstrip(b"\xff")) for row in rows]
        width = self.ids.shape[1]
        return torch.stack(
            [torch.rand(width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )

    def corrupt(
        self, chosen: Tensor, rule: MaskRule, mask_id: int, size: int, generator: torch.Generator
    ) -> Tensor:
        """Return ids `[B, L]` with the chosen ones replaced by a rule; `size`: ids to draw from."""
        draws = torch.rand(self.ids.shape, generator=generator).to(self.ids.device)
        other = torch.randint(size, self.ids.shape, generator=generator).to(self.ids.device)
        masked = self.ids.masked_fill(chosen & (draws >= rule.random + rule.keep), mask_id)
        return torch.where(chosen & (draws < rule.random), other, masked)

    def with_ids(self, ids: Tensor) -> Self:
        return replace(self, ids=ids)


def _languages(inputs: EncoderInputs) -> Tensor | None:
    """Return the languages `[B]` of a batch's samples, None where they have none."""
    parts = [(rows, tensors.get("languages")) for rows, tensors in groups_of(inputs)]
    order: list[int] = []
    indices: list[Tensor] = []
    for rows, languages in parts:
        if languages is None:
            return None
        order += list(range(len(languages))) if rows is None else rows
        indices.append(languages)
    merged = torch.cat(indices)
    return merged[torch.tensor(order, device=merged.device).argsort()]


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of a tokenizer's template, padding and mask, which are no text."""
    known = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id)
    return frozenset(number for number in known if number is not None)


def ordinary_ids(inputs: EncoderInputs, special: Collection[int]) -> Iterator[Tensor]:
    """Yield the real ids of each group of samples, without the special ones."""
    for _, tensors in groups_of(inputs):
        ids = tensors["ids"][tensors["mask"]]
        yield ids[~torch.isin(ids, torch.tensor(sorted(special)))]


def positions_of(chosen: Tensor) -> Tensor:
    """Return the places `[N]` of True in a flattened tensor; of the meta device, which has no
    values, those of one element in eight."""
    if chosen.is_meta:
        return torch.arange(max(1, chosen.numel() // 8), device="meta")
    return chosen.flatten().nonzero().squeeze(1)


def encode_text(
    encoder: VocabularyEncoder,
    text: TextIds,
    *,
    docked: Docked | None = None,
    embeds: Tensor | None = None,
    hidden_states: Sequence[int] = (),
) -> Features:
    """Return the states of a text `[B, L, D]`, which sees what is docked in front of it.

    embeds: `[B, L, E]`, in place of the ids' embeddings. The rows of an encoder whose features
    padding changes are encoded by length.
    """
    options: dict[str, Any] = {"hidden_states": tuple(hidden_states)} if hidden_states else {}
    if text.languages is not None:
        options["languages"] = text.languages
    if docked is not None:
        embeds = encoder.embed(text.ids) if embeds is None else embeds
        return encode_docked(encoder, text, docked, embeds, **options)[1]
    if embeds is not None:
        return encoder(ids=text.ids, mask=text.mask, inputs_embeds=embeds, **options)
    if encoder.batch_invariant or text.ids.is_meta:
        return encoder(ids=text.ids, mask=text.mask, **options)
    places = torch.arange(1, text.mask.shape[1] + 1, device=text.mask.device)
    lengths = (places * text.mask).amax(1).tolist()
    groups = {n: [i for i, length in enumerate(lengths) if length == n] for n in set(lengths)}

    def encode(rows: list[int], length: int) -> Features:
        cut: dict[str, Any] = {
            name: v[rows] if isinstance(v, Tensor) else v for name, v in options.items()
        }
        return encoder(ids=text.ids[rows, :length], mask=text.mask[rows, :length], **cut)

    parts = [(rows, encode(rows, n)) for n, rows in groups.items()]
    return merge(parts) if len(parts) > 1 else parts[0][1]


def encode_docked(
    encoder: VocabularyEncoder, text: TextIds, docked: Docked, embeds: Tensor, **options: Any
) -> tuple[Features, Features]:
    """Return the states of what is docked `[B, P, D]` and of the text behind it `[B, L, D]`, whose
    embeddings are `[B, L, E]`. Raise ValueError if the two differ in width."""
    if docked.embeds.shape[-1] != embeds.shape[-1]:
        raise ValueError(
            f"before: its streams are {docked.embeds.shape[-1]} wide, the text's embeddings "
            f"{embeds.shape[-1]}; take an encoder whose two widths are one"
        )
    count = docked.mask.shape[1]
    whole = Features(
        torch.cat([docked.embeds.to(embeds.dtype), embeds], 1),
        torch.cat([docked.mask, text.mask], 1),
    )
    ids = torch.cat([text.ids[:, :1].expand(-1, count), text.ids], 1)
    out = encoder(ids=ids, mask=whole.mask, inputs_embeds=whole.tokens, **options)
    return Features(out.tokens[:, :count], out.mask[:, :count]), _after(out, count)


def _after(features: Features, count: int) -> Features:
    """Return the features behind the first `count` positions, pooled at the first of them."""
    layers = tuple(_after(layer, count) for layer in features.hidden_states)
    tokens, mask = features.tokens[:, count:], features.mask[:, count:]
    pooled = None if features.pooled is None else tokens[:, 0]
    return features.replace(tokens=tokens, mask=mask, pooled=pooled, hidden_states=layers)


def vector_of(features: Features) -> Tensor:
    """Return the vector `[B, D]` of a text: the encoder's own, or its first position's state."""
    return features.tokens[:, 0] if features.pooled is None else features.pooled
