"""Choice among continuations by their likelihood, as language models are compared.

The score of a continuation is `sum_i log p(y_i | prompt, y_<i)`, or its mean over tokens, which
does not favour short ones. Training raises that of the right one.

Legend: `B` rows, `L` tokens of the longest continuation, `C` continuations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...modalities.base import Loss
from ..base import Context, Row, Task
from ..batch import Batch, Example, Tools
from ..common import Prompt, assemble, example_row, parse_prompt
from ..uses import BACKBONE, DecoderUse, StreamUse


class Choice(Task):
    """prompt: what the continuations follow; see `captioning`. choices: two texts or more, with
    columns (`" {first}"`). answer: the column that holds the text of the right one, or its number
    from 0. select: the score that decides, `sum` or `mean` over tokens; both have an accuracy.
    """

    ability: ClassVar[str] = ""
    main_metric = "accuracy"
    metric_names: Mapping[str, str] = {
        "accuracy": "fraction of rows whose right continuation has the best score",
        "accuracy_sum": "the same by the sum of log-probabilities",
        "accuracy_mean": "the same by their mean over tokens",
        "chance": "accuracy of a random choice",
    }

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        choices: list[str],
        answer: str = "answer",
        attention: Literal["causal", "prefix"] = "causal",
        select: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        if len(choices) < 2:
            raise ValueError(f"choices: found {len(choices)}, expected two or more")
        self.prompt, self.answer, self.select = parse_prompt(prompt), answer, select
        self.choices = [Prompt(choice) for choice in choices]
        if any(choice.streams for choice in self.choices):
            raise ValueError("choices: name a stream; expected texts and columns")
        self.streams = {name: StreamUse(width=BACKBONE) for name in self.prompt.streams}
        self.decoders = {BACKBONE: DecoderUse(attention=frozenset({attention}))}
        self.attention = attention

    def prompt_columns(self) -> tuple[str, ...]:
        columns = (c for prompt in (self.prompt, *self.choices) for c in prompt.columns)
        return tuple(dict.fromkeys(columns))

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.prompt_columns(), self.answer)))

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: the prompt's texts, `choice.N`, ids `[L]` of each continuation, and `right`, its
        number. Reference: `choices`, their texts, and `answer`."""
        tokenizer = tools.tokenizer()
        labels = self.prompt.encode(row, tokenizer)
        if any(column not in row for choice in self.choices for column in choice.columns):
            return Example(labels, {})
        texts = [choice.render(row)[0] for choice in self.choices]
        for number, text in enumerate(texts):
            ids = tokenizer.encode(text)
            if not ids:
                raise ValueError(f"choices: number {number} is empty, expected a token or more")
            labels[f"choice.{number}"] = torch.tensor(ids)
        reference: dict[str, Any] = {"choices": texts}
        if self.answer in row:
            right = self._right(row[self.answer], texts)
            labels["right"] = torch.tensor(right)
            reference["answer"] = right
        return Example(labels, reference)

    def _right(self, answer: Any, texts: Sequence[str]) -> int:
        stripped = [text.strip() for text in texts]
        if isinstance(answer, str) and answer.strip() in stripped:
            return stripped.index(answer.strip())
        if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(texts):
            return answer
        raise ValueError(
            f"{self.answer}: found {answer!r}, expected one of {', '.join(map(repr, stripped))}, "
            "or its number"
        )

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        if not part.endswith(".tokenizer"):
            return super().fit_examples(part, row)
        prompts = (self.prompt, *self.choices)
        return [text for prompt in prompts for text in prompt.render(row) if text]

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the cross-entropy of the right continuation, summed over its tokens."""
        right = batch.label("right", f"has no {self.answer}")
        scores, counts = self._scores(batch, ctx)
        rows = torch.arange(len(right), device=scores.device)
        right = right.to(scores.device)
        return Loss(-scores[rows, right].sum(), counts[rows, right].sum())

    def _scores(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """Return `[B, C]` the sum of the log-probabilities of each continuation, and its tokens."""
        decoder = ctx.decoder()
        context = assemble(self.prompt.streams, batch, ctx)
        scores, counts = [], []
        for number in range(len(self.choices)):
            key = f"choice.{number}"
            ids = batch.label(key, "has no choices").to(context.tokens.device)
            mask = batch.label_masks[key].to(ids.device)
            hidden = decoder.teacher_force(context, ids, mask, self.attention)
            log_probs = decoder.logits(hidden).float().log_softmax(-1)
            chosen = log_probs.gather(-1, ids[..., None]).squeeze(-1)  # [B, L]
            scores.append((chosen * mask).sum(1))
            counts.append(mask.sum(1))
        return torch.stack(scores, 1), torch.stack(counts, 1)

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `choice`, its `text`, and the scores `sum` and `mean` of each, a row; null for a
        row without the columns of the choices."""
        if "choice.0" not in batch.labels:
            return [None] * len(batch)
        sums, counts = self._scores(batch, ctx)
        means = sums / counts
        chosen = (sums if self.select == "sum" else means).argmax(1).tolist()
        rows = zip(batch.references, chosen, sums.tolist(), means.tolist(), strict=True)
        return [
            {"choice": number, "text": reference["choices"][number].strip(), "sum": s, "mean": m}
            for reference, number, s, m in rows
        ]

    def metrics(self) -> ChoiceMetrics:
        return ChoiceMetrics(len(self.choices))

    def example_rows(self) -> list[dict[str, Any]]:
        prompts = (self.prompt, *self.choices)
        return [{**example_row(prompts, text), self.answer: i} for i, text in enumerate("ab")]


class ChoiceMetrics:
    """Accuracy of the choice, by the score that decides and by both; rows without an answer are not
    counted."""

    def __init__(self, choices: int) -> None:
        self.choices, self.count = choices, 0
        self.right = dict.fromkeys(("accuracy", "accuracy_sum", "accuracy_mean"), 0)

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for prediction, reference in zip(predictions, references, strict=True):
            if "answer" not in reference:
                continue
            self.count += 1
            answer = reference["answer"]
            self.right["accuracy"] += prediction["choice"] == answer
            for name in ("sum", "mean"):
                self.right[f"accuracy_{name}"] += int(np.argmax(prediction[name])) == answer

    def compute(self) -> dict[str, float]:
        if not self.count:
            raise ValueError("choice metrics: no row with an answer; is the split empty?")
        scores = {name: right / self.count for name, right in self.right.items()}
        return {**scores, "chance": 1 / self.choices}
