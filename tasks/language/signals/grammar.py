"""Which ids may follow in a target of texts and signals, and generation that keeps to it.

Legend: `B` rows, `N` ids written so far, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from ....backbones.base import Backbone
from ....modalities.base import Features
from ....modalities.signal_tokens import SignalTokenizer


@dataclass(frozen=True)
class SignalSpan:
    """The ids `first` to `first + tokenizer.size - 1` of a decoder, which are a stream's tokens."""

    stream: str
    first: int
    tokenizer: SignalTokenizer

    def __contains__(self, value: int) -> bool:
        return self.first <= value < self.first + self.tokenizer.size


class SignalSampler:
    """Writes targets of a template: signals in its order, text between them where it has any.

    spans: of the template's `S` streams. has_text: whether it has text before each, and after the
    last, `S + 1`.
    """

    def __init__(
        self, spans: Sequence[SignalSpan], has_text: Sequence[bool], decoder: Backbone
    ) -> None:
        self.spans, self.has_text, self.decoder = list(spans), list(has_text), decoder
        self.eos = decoder.tokenizer.eos_id

    def generate(
        self,
        context: Features,
        empty: Features,
        attention: Any,
        guidance: float,
        options: dict[str, Any],
    ) -> list[list[int]]:
        """Return the ids of each row, without `eos`. empty: the context of no prompt, for a
        guidance other than 1."""
        rows = len(context.tokens)
        if guidance == 1:
            processor: LogitsProcessor = _Grammar(self)
        else:
            processor = _Guided(self, guidance, options)
            context = Features(
                torch.cat([context.tokens, empty.tokens]), torch.cat([context.mask, empty.mask])
            )
        processors = LogitsProcessorList([processor, *options.pop("logits_processor", [])])
        ids = self.decoder.generate(context, attention, logits_processor=processors, **options)
        return [self._until_end(row) for row in ids[:rows].tolist()]

    def _until_end(self, row: list[int]) -> list[int]:
        return row[: row.index(self.eos)] if self.eos in row else row

    def walk(self, ids: Sequence[int]) -> tuple[list[list[int]], list[int], int, bool]:
        """Return the tokens of each signal, the ids of the texts, the number of the next or
        current signal, and whether the last id is of it."""
        signals: list[list[int]] = [[] for _ in self.spans]
        text, current, inside = [], 0, False
        for value in ids:
            place = next((k for k, span in enumerate(self.spans) if value in span), None)
            if place is None:
                text.append(value)
                current, inside = current + inside, False
            else:
                signals[place].append(value - self.spans[place].first)
                current, inside = place, True
        return signals, text, current, inside

    def allowed(self, ids: Sequence[int], size: int) -> Tensor:
        """Return `[V]` bool, the ids that may follow."""
        allowed = torch.zeros(size, dtype=torch.bool)
        if self.eos in ids:
            allowed[self.eos] = True
            return allowed
        signals, _, current, inside = self.walk(ids)
        may_end = not inside
        if inside:
            may_end = self._allow(allowed, current, signals[current])
            current += 1
        if may_end:
            self._allow_after(allowed, current)
        return allowed

    def _allow(self, allowed: Tensor, place: int, tokens: Sequence[int]) -> bool:
        span = self.spans[place]
        following, may_end = span.tokenizer.next_ids(tokens)
        if isinstance(following, range):
            allowed[span.first + following.start : span.first + following.stop] = True
        else:
            allowed[[span.first + value for value in following]] = True
        return may_end

    def _allow_after(self, allowed: Tensor, place: int) -> None:
        """Allow what may stand before the signal of a place: text, its first token, the end."""
        if self.has_text[place]:
            text = torch.ones_like(allowed)
            for span in self.spans:
                text[span.first : span.first + span.tokenizer.size] = False
            text[self.eos] = False
            allowed |= text
        if place < len(self.spans):
            self._allow(allowed, place, [])
        else:
            allowed[self.eos] = True

    def split(self, ids: Sequence[int]) -> dict[str, Any]:
        """Return `text`, and `signals` by stream: `tokens`, and `value` or `problem`."""
        signals, text, _, _ = self.walk(ids)
        return {
            "text": self.decoder.tokenizer.decode(text).strip(),
            "signals": {
                span.stream: _decoded(span.tokenizer, tokens)
                for span, tokens in zip(self.spans, signals, strict=True)
            },
        }


def _decoded(tokenizer: SignalTokenizer, tokens: list[int]) -> dict[str, Any]:
    """Return the tokens, and their signal if it is a JSON value, or why they are none."""
    result: dict[str, Any] = {"tokens": tokens}
    try:
        value = tokenizer.decode([torch.tensor(tokens, dtype=torch.long)])[0]
    except ValueError as error:
        return {**result, "problem": str(error)}
    return {**result, "value": value} if isinstance(value, (str, int, float, list)) else result


class _Grammar(LogitsProcessor):
    """Sets the logits of ids that may not follow to -inf."""

    def __init__(self, sampler: SignalSampler) -> None:
        self.sampler = sampler
        self.skip = int(sampler.decoder.encodes_context)  # an encoder-decoder's start token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.where(self.mask(input_ids, scores), scores, -torch.inf)

    def mask(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = [list(_new(row, self.skip)) for row in input_ids.tolist()]
        allowed = torch.stack([self.sampler.allowed(row, scores.shape[-1]) for row in rows])
        return allowed.to(scores.device)


def _new(row: Sequence[int], skip: int) -> Iterator[int]:
    return iter(row[skip:])


class _Guided(_Grammar):
    """Mixes the log-probabilities of rows with their prompt (first half) and without (second), and
    chooses one id for both."""

    def __init__(self, sampler: SignalSampler, guidance: float, options: dict[str, Any]) -> None:
        super().__init__(sampler)
        self.guidance = guidance
        self.samples = bool(options.pop("do_sample", False))
        self.temperature = float(options.pop("temperature", 1.0))
        self.top_k = options.pop("top_k", None)
        _refuse(options)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        half = len(scores) // 2
        conditional, unconditional = scores.float().log_softmax(-1).split(half)
        mixed = unconditional + self.guidance * (conditional - unconditional)
        allowed = self.mask(input_ids[:half], scores[:half])
        mixed = torch.where(allowed, mixed, -torch.inf)
        chosen = self._choose(mixed)
        result = torch.full_like(scores, -torch.inf)
        return result.scatter(1, chosen.repeat(2)[:, None], 0.0)

    def _choose(self, scores: Tensor) -> Tensor:
        if not self.samples:
            return scores.argmax(-1)
        scores = scores / self.temperature
        if self.top_k is not None:
            least = scores.topk(min(self.top_k, scores.shape[-1]), dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        return torch.multinomial(scores.softmax(-1), 1)[:, 0]


def _refuse(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option of `generate` that guidance would not follow."""
    others = sorted(set(options) - {"max_new_tokens", "min_new_tokens", "max_time"})
    if others:
        raise ValueError(
            f"{others[0]}: has no effect with guidance; set guidance: 1, or take temperature, top_k"
        )
