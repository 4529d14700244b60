"""Captioning: text under a condition. Captions, reports, answers to questions, by prompt.

The prompt's streams and texts are the context, the target is what the decoder says after it:
`-sum_i log p(y_i | context, y_<i)`, the end of the text included, the prompt left out.

Legend: `B` rows, `L` tokens of the longest target, `N` tokens of all targets, `D` width.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..modalities.base import Features
from .base import Batch, Encode, Loss, Metrics, Row, Task
from .facts import Facts
from .prompts import Prompt, assemble, example_row
from .text_metrics import TextMetrics


class Captioning(Task):
    """prompt: names streams and columns, `"<image> {question} Answer:"`. target: what is said
    then, a template of columns; one of them may hold a list (several captions of a picture).

    In training a step takes one reference of a row, picked by a hash of the row's key and of
    the step (a buffer, so that a resumed run picks the same); in evaluation the loss takes the
    first, the metrics all. attention: how the decoder reads the context. facts: regular
    expressions with a group, by name: is what they find in a caption what the reference says?
    within: by which share a fact that is a number may be off.
    """

    uses_backbone = True
    step: Tensor

    def __init__(
        self,
        *,
        prompt: str,
        target: str = "{caption}",
        attention: Literal["causal", "prefix"] = "causal",
        max_new_tokens: int = 64,
        facts: dict[str, str] | None = None,
        within: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.prompt, self.target = _parsed("prompt", prompt), _parsed("target", target)
        if not self.prompt.streams:
            raise ValueError(
                f"prompt: {prompt!r} names no stream; write <image> where the input called "
                "image is to stand"
            )
        if self.target.streams or not self.target.columns:
            raise ValueError(
                f"target: {target!r} must be made of columns, such as {{caption}}, without streams"
            )
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: found {max_new_tokens}, expected at least 1")
        self.streams = tuple(dict.fromkeys(self.prompt.streams))
        self.attention, self.max_new_tokens = attention, max_new_tokens
        self.facts = Facts(facts or {}, within)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.prompt.columns + self.target.columns))

    def targets(self, row: Row) -> dict[str, Any]:
        """`prompt`: the texts around the streams. `references`: what should be said; none where
        the row lacks the columns, as when text is asked of a picture that nobody captioned."""
        return {"prompt": self.prompt.render(row), "references": self._references(row)}

    def _references(self, row: Row) -> list[str]:
        if any(column not in row for column in self.target.columns):
            return []
        several = [c for c in self.target.columns if isinstance(row[c], (list, tuple))]
        if not several:
            return [self.target.render(row)[0]]
        column, *more = several
        if more or not row[column]:
            found = f"{column!r} and {more[0]!r} hold lists" if more else f"{column!r} is empty"
            raise ValueError(
                f"target: {found}; expected one column of {self.target.template!r} with one "
                "text or more, and single values in the others"
            )
        return [self.target.render({**row, column: value})[0] for value in row[column]]

    def corpus(self, row: Row) -> Iterable[str]:
        """The texts of the prompt, and every reference."""
        return [t for t in (*self.prompt.render(row), *self._references(row)) if t]

    def after_step(self, step: int) -> None:
        self.step.fill_(step)

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """Cross entropy in float32, summed over target tokens; `correct` counts those that the
        decoder puts first."""
        backbone = _decoder(backbone)
        context = self._context(batch, encode, backbone)
        ids, mask = _targets(self._chosen(batch), backbone)
        count = int(mask.sum())
        # Places of real tokens are found on the CPU, where no device has to be waited for.
        places = mask.flatten().nonzero().squeeze(1).to(context.tokens.device)
        ids, mask = ids.to(context.tokens.device), mask.to(context.tokens.device)
        hidden = backbone.teacher_force(context, ids, mask, self.attention)  # [B, L, D]
        wanted = ids.flatten()[places]  # [N]
        logits = backbone.logits(hidden.flatten(0, 1)[places]).float()  # [N, V]
        total = F.cross_entropy(logits, wanted, reduction="sum")
        return Loss(total, count, {"correct": (logits.detach().argmax(-1) == wanted).sum()})

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, str]]:
        """`{"text": ...}` a row; options are those of the backbone's `generate`."""
        backbone = _decoder(backbone)
        context = self._context(batch, encode, backbone)
        options = {"max_new_tokens": self.max_new_tokens, **options}
        ids = backbone.generate(context, self.attention, **options).tolist()
        if len(ids) != len(batch):
            raise ValueError(
                f"generate: {len(ids)} texts for {len(batch)} rows; ask for one text a row"
            )
        eos = backbone.tokenizer.eos_id
        kept = [row[: row.index(eos)] if eos in row else row for row in ids]
        return [{"text": backbone.tokenizer.decode(row).strip()} for row in kept]

    def metrics(self) -> Metrics:
        return CaptionMetrics(self.facts)

    def example(self) -> list[dict[str, Any]]:
        prompts = (self.prompt, self.target)
        return [example_row(prompts, text) for text in ("a red circle", "two small blue squares")]

    def _context(self, batch: Batch, encode: Encode, backbone: Backbone) -> Features:
        texts = [target["prompt"] for target in batch.targets]
        return assemble(self.prompt.streams, texts, encode, backbone)

    def _chosen(self, batch: Batch) -> list[str]:
        """The reference of each row that this step learns."""
        chosen, step = [], None
        for key, target in zip(batch.keys, batch.targets, strict=True):
            references: list[str] = target["references"]
            if not references:
                raise ValueError(
                    f"row {key!r}: has no text to learn; its data must have the columns of "
                    f"{self.target.template!r}"
                )
            place = 0
            if self.training and len(references) > 1:
                step = int(self.step) if step is None else step
                place = zlib.crc32(f"{key}/{step}".encode()) % len(references)
            chosen.append(references[place])
        return chosen


class CaptionMetrics(TextMetrics):
    """`TextMetrics` of captioning's predictions and targets."""

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        texts = [prediction["text"] for prediction in predictions]
        self.add(texts, [target["references"] for target in targets])


def _parsed(option: str, template: str) -> Prompt:
    try:
        return Prompt(template)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _decoder(backbone: Backbone | None) -> Backbone:
    if backbone is None:
        raise ValueError("captioning needs a decoder; add a `backbone` section to the recipe")
    return backbone


def _targets(texts: Sequence[str], backbone: Backbone) -> tuple[Tensor, Tensor]:
    """ids `[B, L]` that end in `eos`, and mask `[B, L]`; on the CPU."""
    tokenizer = backbone.tokenizer
    ids = [torch.tensor([*tokenizer.encode(text), tokenizer.eos_id]) for text in texts]
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.nn.utils.rnn.pad_sequence(ids, True, tokenizer.pad_id)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]
