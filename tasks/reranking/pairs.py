"""Two texts as one sequence of ids.

Legend: `N` pairs, `A`, `B` tokens of the longest first and second text, `L` tokens of a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...modalities.base import Tokenizer

QUERY, PASSAGE = "{query}", "{passage}"
"""The places of the two texts in a template."""


@dataclass(frozen=True)
class PairFrame:
    """The ids around the two texts of a pair, and those around a single text.

    before, between, after: ids of a pair. types: token types of the five segments `before`, first
    text (one number), `between`, second text (one number), `after`. prefix, suffix: number of
    ids that the tokenizer puts around a single text.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[tuple[int, ...], ...]
    prefix: int
    suffix: int

    @property
    def special(self) -> int:
        """The number of ids that are of neither text."""
        return len(self.before) + len(self.between) + len(self.after)


def pair_frame(tokenizer: Tokenizer, template: str | None = None) -> PairFrame:
    """Return the frame of a tokenizer: its own template of two texts, or that of a single text with
    a second end (`<bos> a <eos> b <eos>`), or the texts of `template` inside its template of one
    text. Raise ValueError if the tokenizer leaves nothing to tell the texts apart."""
    single, plain = tokenizer.encode("a", special=True), tokenizer.encode("a")
    start = _find(single, plain)
    prefix, suffix = tuple(single[:start]), tuple(single[start + len(plain) :])
    sizes = (len(prefix), len(suffix))
    if template is not None:
        texts = _parts(template)
        ids = [tuple(tokenizer.encode(text)) for text in texts]
        return _untyped(prefix + ids[0], ids[1], ids[2] + suffix, sizes)
    backend = getattr(tokenizer, "backend", None)
    both = None if backend is None else backend.encode("a", "a")
    if both is None or both.ids[: len(single)] != single or len(both.ids) <= 2 * len(plain):
        if not suffix:
            raise ValueError(
                "template: the tokenizer puts nothing between two texts; give one, such as "
                "template: '{query}\\n{passage}'"
            )
        return _untyped(prefix, suffix, suffix, sizes)
    second = len(both.ids) - len(plain) - _trailing(both.ids, plain)
    ends = (start, start + len(plain), second, second + len(plain))
    pieces = [tuple(both.ids[a:b]) for a, b in zip((0, *ends), (*ends, None), strict=True)]
    types = [tuple(both.type_ids[a:b]) for a, b in zip((0, *ends), (*ends, None), strict=True)]
    return PairFrame(
        pieces[0],
        pieces[2],
        pieces[4],
        (types[0], types[1][:1], types[2], types[3][:1], types[4]),
        *sizes,
    )


def _untyped(
    before: Sequence[int], between: Sequence[int], after: Sequence[int], sizes: tuple[int, int]
) -> PairFrame:
    types = ((0,) * len(before), (0,), (0,) * len(between), (1,), (1,) * len(after))
    return PairFrame(tuple(before), tuple(between), tuple(after), types, *sizes)


def _parts(template: str) -> list[str]:
    """Return the three texts around the two places. Raise ValueError."""
    before, first, rest = template.partition(QUERY)
    between, second, after = rest.partition(PASSAGE)
    if not first or not second or QUERY in between + after or PASSAGE in before + after:
        raise ValueError(
            f"template: found {template!r}, expected {QUERY} once and {PASSAGE} once behind it"
        )
    return [before, between, after]


def _find(ids: Sequence[int], part: Sequence[int]) -> int:
    """Return the first place of a part among ids. Raise ValueError if it is nowhere."""
    for start in range(len(ids) - len(part) + 1):
        if list(ids[start : start + len(part)]) == list(part):
            return start
    raise ValueError("the tokenizer reads a text otherwise between its special tokens")


def _trailing(ids: Sequence[int], part: Sequence[int]) -> int:
    """Return the number of ids behind the last place of a part."""
    return _find(ids[::-1], part[::-1])


def join_pairs(
    frame: PairFrame,
    queries: tuple[Tensor, Tensor],
    passages: tuple[Tensor, Tensor],
    max_length: int,
    pad_id: int,
) -> dict[str, Tensor]:
    """Return `ids`, `mask` and `types`, each `[N, L]`, of pairs, padded on the right.

    queries, passages: ids and mask `[N, A]` and `[N, B]` of single texts inside their own special
    tokens. A pair of more than max_length ids loses tokens at the end of the longer text first
    (`longest_first` of transformers). Raise ValueError if the frame alone fills max_length.
    """
    room = max_length - frame.special
    if room < 2:
        raise ValueError(
            f"max_length: found {max_length}, of which {frame.special} are not of the texts; "
            "expected at least two more"
        )
    first, second = (_texts(frame, *side) for side in (queries, passages))
    lengths = first[1].sum(1), second[1].sum(1)
    cut = _longest_first(*lengths, room)
    device, count = first[0].device, len(first[0])

    def fixed(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        row = torch.tensor(list(ids), dtype=torch.long, device=device)
        return row.expand(count, -1), torch.ones(count, len(ids), dtype=torch.bool, device=device)

    def text(side: tuple[Tensor, Tensor], length: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(side[0].shape[1], device=device)
        return side[0], places < length[:, None]

    segments = [
        fixed(frame.before),
        text(first, cut[0]),
        fixed(frame.between),
        text(second, cut[1]),
        fixed(frame.after),
    ]
    types = [
        torch.full_like(segment[0], kind[0]) if place % 2 else fixed(kind)[0]
        for place, (kind, segment) in enumerate(zip(frame.types, segments, strict=True))
    ]
    mask = torch.cat([segment[1] for segment in segments], 1)
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :max_length]
    mask = mask.gather(1, order)
    ids = torch.cat([segment[0] for segment in segments], 1).gather(1, order)
    every_type = torch.cat(types, 1).gather(1, order)
    longest = int(mask.sum(1).max()) if count and not mask.is_meta else mask.shape[1]
    return {
        "ids": ids.masked_fill(~mask, pad_id)[:, :longest],
        "mask": mask[:, :longest],
        "types": every_type.masked_fill(~mask, 0)[:, :longest],
    }


def _texts(frame: PairFrame, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids and mask of single texts without the special tokens at their ends."""
    places = torch.arange(ids.shape[1], device=ids.device)
    lengths = mask.sum(1, keepdim=True) - frame.suffix
    inner = (places >= frame.prefix) & (places < lengths)
    return ids[:, frame.prefix :], inner[:, frame.prefix :]


def _longest_first(first: Tensor, second: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Return the lengths `[N]` of both texts that fit into `room`: the shorter text is cut only
    where it has more than half of it, and the longer one has the odd half."""
    half = torch.where(first > second, room - room // 2, room // 2)
    first_length = torch.minimum(first, torch.maximum(room - second, half))
    return first_length, torch.minimum(second, room - first_length)
