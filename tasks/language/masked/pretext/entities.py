"""Terms on phrases of a text that mean something: keyphrases, and entities with their facts.

`infilling` and `replaced_phrases`: Kulkarni et al. 2021 (KBIR). `triples`: Zhang et al. 2021
(DKPLM).

Legend: `B` rows, `L` tokens, `S` phrases of a row, `K` tokens of a phrase, `D` width, `E` width of
an embedding, `N` predictions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .....modalities.base import PositiveInt
from ....base import Row, Tools
from ...spans import keyphrases_of, occurrences, token_places
from ..text import encode_text
from .base import Encoded, Losses, Pretext


class PhraseTerm(Pretext):
    """column: the keyphrases of a text, a list or a string with `;` between; null: chosen by the
    statistics of the training texts. One of them is drawn for each text. max_words: tokens of a
    phrase; longer ones are left out."""

    def __init__(self, *, column: str | None = None, max_tokens: PositiveInt = 16) -> None:
        super().__init__()
        self.column, self.max_tokens = column, max_tokens
        self.needs_phrases = column is None

    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    def place(self, text: str, row: Row, tokenizer: Any, rng: np.random.Generator | None) -> Tensor:
        """Return `[2]`, the first token of a phrase of the encoded text and the one after its last;
        `[0]` without a phrase."""
        if self.column is None:
            assert self.phrases is not None
            spans = self.phrases.keyphrases(text)
        else:
            spans = occurrences(text, keyphrases_of(self.column, row[self.column]))
        ids = tokenizer.encode(text, special=True)
        places = [
            place
            for place in token_places(ids, tokenizer, spans)
            if place[1] - place[0] <= self.max_tokens
        ]
        if not places:
            return torch.zeros(0, dtype=torch.long)
        return torch.tensor(places[0 if rng is None else int(rng.integers(len(places)))])

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        ((stream, tokenizer),) = tools.stream_tokenizers.items()
        return {"place": self.place(str(row.get(stream, "")), row, tokenizer, rng)}

    def spans(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows `[S]` that have a phrase inside of what was read, its start and its stop."""
        places, mask = encoded.labels[f"{self.name}.place"]
        if places.shape[1] < 2 or places.is_meta:
            empty = torch.zeros(0, dtype=torch.long, device=encoded.text.ids.device)
            return empty, empty, empty
        inside = mask[:, 1] & (places[:, 1] < encoded.text.mask.sum(1))
        rows = inside.nonzero()[:, 0]
        return rows, places[rows, 0], places[rows, 1]


class Infilling(PhraseTerm):
    """The tokens of a phrase of which one mask is left, from the states beside it and a position in
    the phrase, and its length, from the state at the mask."""

    def build(self, dim: int) -> None:
        self.places = nn.Embedding(self.max_tokens, dim)
        nn.init.normal_(self.places.weight, std=0.02)
        self.fill = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.length = nn.Linear(dim, self.max_tokens)

    def read(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return rows, lengths `[S]`, and the states `[S, L, D]` of the rows with one mask in place
        of the phrase, which stands at `starts [S]`."""
        rows, starts, stops = self.spans(encoded)
        text, lengths = encoded.text, stops - starts
        places = torch.arange(text.ids.shape[1], device=text.ids.device)[None]
        source = torch.where(places > starts[:, None], places + lengths[:, None] - 1, places)
        inside = source < text.ids.shape[1]
        source = source.clamp(max=text.ids.shape[1] - 1)
        mask = text.mask[rows].gather(1, source) & inside
        tokenizer = encoded.encoder.processor.tokenizer
        ids = text.ids[rows].gather(1, source).masked_fill(~mask, tokenizer.pad_id)
        ids = ids.scatter(1, starts[:, None], tokenizer.mask_id)
        states = encode_text(encoded.encoder, text.of_rows(rows, ids, mask, ~mask)).tokens
        return rows, lengths, starts, states

    def losses(self, encoded: Encoded) -> Losses:
        if not len(self.spans(encoded)[0]):
            return no_losses(self, encoded)
        rows, lengths, starts, states = self.read(encoded)
        each = torch.arange(len(rows), device=rows.device)
        left, here = states[each, (starts - 1).clamp(min=0)], states[each, starts]
        right = states[each, (starts + 1).clamp(max=states.shape[1] - 1)]
        offsets = torch.arange(int(lengths.max()), device=rows.device)
        phrase, offset = (offsets < lengths[:, None]).nonzero(as_tuple=True)
        hidden = self.fill(torch.cat([left[phrase], right[phrase], self.places(offset)], -1))
        labels = encoded.text.ids[rows[phrase], starts[phrase] + offset]
        filled = F.cross_entropy(encoded.encoder.logits(hidden).float(), labels, reduction="none")
        length = F.cross_entropy(self.length(here).float(), lengths - 1, reduction="none")
        return Losses(torch.cat([filled, length]), torch.cat([rows[phrase], rows]))

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        right = torch.full((len(encoded.text.ids),), torch.nan)
        if len(self.spans(encoded)[0]):
            rows, lengths, starts, states = self.read(encoded)
            here = states[torch.arange(len(rows)), starts]
            right[rows.cpu()] = (self.length(here).argmax(-1) + 1 == lengths).float().cpu()
        return {f"{self.name}_length_accuracy": right}


class ReplacedPhrases(PhraseTerm):
    """Whether a phrase is the text's own: in every second row that has one, its tokens are those
    of the phrase of another row (as many as there are of both); read from the mean state of its
    tokens."""

    def build(self, dim: int) -> None:
        self.head = nn.Linear(dim, 1)

    def scores(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and labels `[S]` (1: replaced), and the rows."""
        rows, starts, stops = self.spans(encoded)
        text = encoded.text
        places = torch.arange(text.ids.shape[1], device=text.ids.device)
        inside = (places >= starts[:, None]) & (places < stops[:, None])
        ids, other = text.ids[rows], torch.arange(len(rows), device=rows.device).roll(1)
        lengths = torch.minimum(stops - starts, (stops - starts)[other])
        moved = (starts[other] - starts)[:, None] + places
        borrowed = text.ids[rows[other]].gather(1, moved.clamp(0, text.ids.shape[1] - 1))
        swapped = (torch.arange(len(rows), device=rows.device) % 2 == 0)[:, None]
        within = inside & (places < (starts + lengths)[:, None]) & swapped
        replaced = torch.where(within, borrowed, ids)
        part = text.of_rows(rows, replaced, text.mask[rows], ~text.mask[rows])
        states = encode_text(encoded.encoder, part)
        weights = inside[..., None].to(states.tokens.dtype)
        mean = (states.tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
        return self.head(mean)[:, 0].float(), (replaced != ids).any(1).float(), rows

    def losses(self, encoded: Encoded) -> Losses:
        if not len(self.spans(encoded)[0]):
            return no_losses(self, encoded)
        scores, labels, rows = self.scores(encoded)
        return Losses(F.binary_cross_entropy_with_logits(scores, labels, reduction="none"), rows)

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        right = torch.full((len(encoded.text.ids),), torch.nan)
        if len(self.spans(encoded)[0]):
            scores, labels, rows = self.scores(encoded)
            right[rows.cpu()] = ((scores > 0) == (labels > 0)).float().cpu()
        return {f"{self.name}_accuracy": right}


class Triples(Pretext):
    """Facts of the entities of a text: the embeddings of an entity are replaced by a vector made of
    its fact's tail and relation, and the tail's tokens are written from its state and the relation.
    column: a list of `{head, relation, tail}`, texts; of the heads that stand in the text one is
    drawn. In use the encoder reads the text as it is, without the facts."""

    def __init__(self, *, column: str = "triples", max_tokens: PositiveInt = 16) -> None:
        super().__init__()
        self.column, self.max_tokens = column, max_tokens

    def build(self, dim: int) -> None:
        self.entity = nn.Sequential(nn.Linear(2 * dim, dim), nn.LayerNorm(dim))
        self.places = nn.Embedding(self.max_tokens, dim)
        nn.init.normal_(self.places.weight, std=0.02)
        self.write = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), nn.LayerNorm(dim))

    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def example(self) -> dict[str, Any]:
        return {self.column: [{"head": "circle", "relation": "is a", "tail": "shape"}]}

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        ((stream, tokenizer),) = tools.stream_tokenizers.items()
        text, keys = str(row.get(stream, "")), ("head", "relation", "tail")
        ids, known = tokenizer.encode(text, special=True), []
        for triple in row[self.column]:
            if not isinstance(triple, dict) or not all(
                isinstance(triple.get(k), str) for k in keys
            ):
                raise ValueError(
                    f"{self.column}: found {triple!r}, expected the texts {', '.join(keys)}"
                )
            places = token_places(ids, tokenizer, occurrences(text, [triple["head"]]))
            known += [(place, triple) for place in places]
        names = ("place", "relation", "tail")
        if not known:
            return {name: torch.zeros(0, dtype=torch.long) for name in names}
        place, triple = known[0 if rng is None else int(rng.integers(len(known)))]
        values = place, *(tokenizer.encode(triple[k])[: self.max_tokens] for k in keys[1:])
        return {n: torch.tensor(v, dtype=torch.long) for n, v in zip(names, values, strict=True)}

    def mean(self, encoded: Encoded, key: str, rows: Tensor) -> Tensor:
        """Return the mean embedding `[S, E]` of the tokens of a label."""
        ids, mask = (value[rows] for value in encoded.labels[f"{self.name}.{key}"])
        embeds = encoded.encoder.embed(ids) * mask[..., None]
        return embeds.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    def losses(self, encoded: Encoded) -> Losses:
        places, mask = encoded.labels[f"{self.name}.place"]
        text, encoder = encoded.text, encoded.encoder
        if places.shape[1] < 2 or places.is_meta:
            return no_losses(self, encoded)
        rows = (mask[:, 1] & (places[:, 1] < text.mask.sum(1))).nonzero()[:, 0]
        if not len(rows):
            return no_losses(self, encoded)
        starts, stops = places[rows, 0], places[rows, 1]
        relation, tail = (self.mean(encoded, key, rows) for key in ("relation", "tail"))
        position = torch.arange(text.ids.shape[1], device=text.ids.device)
        inside = ((position >= starts[:, None]) & (position < stops[:, None]))[..., None]
        entity = self.entity(torch.cat([tail, relation], -1))[:, None]
        embeds = torch.where(inside, entity, encoder.embed(text.ids[rows]))
        part = text.of_rows(rows, text.ids[rows], text.mask[rows], text.special[rows])
        states = encode_text(encoder, part, embeds=embeds).tokens
        mean = (states * inside).sum(1) / inside.sum(1).clamp(min=1)
        labels, real = (value[rows] for value in encoded.labels[f"{self.name}.tail"])
        fact, offset = real.nonzero(as_tuple=True)
        hidden = self.write(torch.cat([mean[fact], relation[fact], self.places(offset)], -1))
        logits = encoder.logits(hidden).float()
        values = F.cross_entropy(logits, labels[fact, offset], reduction="none")
        return Losses(values, rows[fact])


def no_losses(part: nn.Module, encoded: Encoded) -> Losses:
    """Return no loss; on the meta device one that uses every parameter."""
    if encoded.text.ids.is_meta:
        zero = sum(p.sum() * 0 for p in part.parameters()) + encoded.features.tokens.sum() * 0
        return Losses(torch.as_tensor(zero)[None], torch.zeros(1, dtype=torch.long, device="meta"))
    empty = encoded.vector.new_zeros(0)
    return Losses(empty, empty.long())
