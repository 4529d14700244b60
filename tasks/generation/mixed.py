"""Mixed sequences: words and vectors of numbers, written by one causal decoder.

A position predicts the next token by softmax; `<number>` is a token, and where it comes next, a
denoising head samples its vector from the same state (UniGenX, 2025; LLaMo, 2026). A vector
re-enters by a linear map. `L = sum_i -log p(y_i) + weight * sum_slots |f(x_t, t, h) - goal|^2`.

Legend: `B` rows, `L` tokens of the longest target, `S` vectors of it, `C` numbers of a vector, `D`
width.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...modalities.action.decoders import DiffusionHead, FlowHead, VectorHead
from ...modalities.base import Count, Features, Loss, NonNegativeFloat, PositiveInt
from ..base import Context, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..common import assemble, example_row, parse_prompt, parse_target
from ..uses import BACKBONE, DecoderUse, StreamUse
from .metrics import MixedMetrics
from .modality_weights import ModalityWeights

SLOT = -1
"""A vector among the ids of a target."""
HEADS: Mapping[str, type[VectorHead]] = {"flow": FlowHead, "diffusion": DiffusionHead}


class MixedSequence(Task):
    """prompt: text, streams and columns. target: the text that is written first, a template.
    values: the column of the vectors that follow it, `[S][C]` or one `[C]`, in units of about 1.
    numbers: C. head: how vectors are sampled, in `steps`. weight: of the head's loss. width, depth:
    of the head. noise: standard deviation of noise on vectors that re-enter while training, against
    exposure bias. modality_weights: vectors go through their own copy of every weight, so that a
    frozen decoder writes text as before.
    """

    metric_names: Mapping[str, str] = {
        "text_match": "fraction of rows whose text is right",
        "count_match": "fraction of rows with the right number of vectors",
    }

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        values: str,
        numbers: PositiveInt,
        target: str = "",
        head: Literal["flow", "diffusion"] = "flow",
        weight: NonNegativeFloat = 1.0,
        width: PositiveInt = 128,
        depth: PositiveInt = 3,
        steps: PositiveInt = 20,
        noise: NonNegativeFloat = 0.0,
        modality_weights: bool = False,
        max_new_tokens: PositiveInt = 64,
        decoder: str = BACKBONE,
    ) -> None:
        super().__init__()
        self.prompt = parse_prompt(prompt)
        self.target = parse_target("target", target) if target else None
        self.values, self.numbers, self.decoder = values, numbers, decoder
        self.head_type, self.weight, self.noise = HEADS[head], weight, noise
        self.sizes = {"width": width, "depth": depth, "steps": steps}
        self.copies, self.max_new_tokens = modality_weights, max_new_tokens
        self.streams = {name: StreamUse(width=decoder) for name in self.prompt.streams}
        self.decoders = {decoder: DecoderUse()}
        self.second: ModalityWeights | None = None

    def columns(self) -> tuple[str, ...]:
        texts = self.target.columns if self.target else ()
        return tuple(dict.fromkeys((*self.prompt.columns, *texts, self.values)))

    def prompt_columns(self) -> tuple[str, ...]:
        return self.prompt.columns

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        decoder = decoders[self.decoder]
        self.begin = decoder.add_tokens(2)  # a start, and `<number>`
        self.enter = nn.Linear(self.numbers, decoder.dim)
        self.head = self.head_type(dim=decoder.dim, numbers=self.numbers, **self.sizes)
        if self.copies:
            self.second = ModalityWeights(decoder)

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        if not part.endswith(".tokenizer"):
            return super().fit_examples(part, row)
        return [t for t in (*self.prompt.render(row), *self._text(row)) if t]

    def _text(self, row: Row) -> list[str]:
        return self.target.render(row) if self.target else []

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: the prompt's texts; `ids [L]`, `SLOT` for a vector, with `eos`; `values [S, C]`.
        Reference: text and values. Raise ValueError for vectors of another length."""
        tokenizer = tools.tokenizer(self.decoder)
        labels = self.prompt.encode(row, tokenizer)
        if self.values not in row:
            return Example(labels)
        values = np.atleast_2d(np.asarray(row[self.values], np.float32))
        if values.ndim != 2 or values.shape[1] != self.numbers:
            shape = list(values.shape)
            raise ValueError(
                f"{self.values}: found numbers {shape}, expected [S, {self.numbers}]; set numbers"
            )
        text = "".join(self._text(row))
        ids = [*tokenizer.encode(text), *[SLOT] * len(values), tokenizer.eos_id]
        labels |= {"ids": torch.tensor(ids), "values": torch.from_numpy(values)}
        return Example(labels, {"text": text, "values": values.tolist()})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the sum over tokens. Parts: `words` and `numbers`, the two losses' sums."""
        decoder = ctx.decoder(self.decoder)
        ids = batch.label("ids", f"has no {self.values} to learn")
        mask = batch.label_masks["ids"].to(ids.device)
        slots = (ids == SLOT) & mask
        values = placed(batch.labels["values"].float(), slots)  # [B, L, C]
        embeds = self._embeds(decoder, ids, values + self.noise * torch.randn_like(values), slots)
        hidden = self._run(
            decoder, embeds, slots, assemble(self.prompt.streams, batch, ctx, decoder=self.decoder)
        )
        labels = ids.masked_fill(slots, self.begin + 1).masked_fill(~mask, -100)
        logits = decoder.logits(hidden).float()
        words = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        errors = self.head.errors(hidden.flatten(0, 1), values.flatten(0, 1))
        numbers = (errors * slots.flatten()).sum()
        parts = {"words": words.detach(), "numbers": numbers.detach()}
        return Loss(words + self.weight * numbers, int(batch.label_masks["ids"].sum()), parts)

    def _embeds(self, decoder: Backbone, ids: Tensor, values: Tensor, slots: Tensor) -> Tensor:
        """Return `[B, L, D]`: the start, then all tokens but the last."""
        start = decoder.embed(torch.full_like(ids[:, :1], self.begin))
        words = decoder.embed(ids.clamp(min=0))
        tokens = torch.where(slots[..., None], self.enter(values).to(words.dtype), words)
        return torch.cat([start, tokens[:, :-1]], 1)

    def _run(self, decoder: Backbone, embeds: Tensor, slots: Tensor, context: Any) -> Tensor:
        """Return hidden `[B, L, D]`; position i predicts token i. slots `[B, L]`: of the tokens."""
        entering = F.pad(slots[:, :-1], (1, 0))
        copies = self.second
        if copies is None:
            hidden = decoder(embeds, None, context)
        else:
            context = decoder.prefill(context) if isinstance(context, Features) else context
            with copies.at(entering):
                hidden = decoder(embeds, None, context)
        assert isinstance(hidden, Tensor)
        return hidden

    def predict(  # type: ignore[override]  # no other option
        self,
        batch: Batch,
        ctx: Context,
        *,
        max_new_tokens: PositiveInt | None = None,
        steps: PositiveInt | None = None,
        seed: Count = 0,
    ) -> list[Any]:
        """Return `{"text": ..., "values": [[...]]}` a row: the likeliest words, sampled vectors.
        seed: with the row's key it defines the vectors' noise."""
        decoder = ctx.decoder(self.decoder)
        context = decoder.prefill(assemble(self.prompt.streams, batch, ctx, decoder=self.decoder))
        generators = [
            torch.Generator().manual_seed(zlib.crc32(f"{seed} {key}".encode()))
            for key in batch.keys
        ]
        device, eos = context.mask.device, decoder.tokenizer.eos_id
        ids = torch.zeros((len(batch), 0), dtype=torch.long, device=device)
        values = torch.zeros((len(batch), 0, self.numbers), device=device)
        for _ in range(max_new_tokens or self.max_new_tokens):
            padded = F.pad(ids, (0, 1)), F.pad(values, (0, 0, 0, 1))
            slots = padded[0] == SLOT
            embeds = self._embeds(decoder, *padded, slots)
            hidden = self._run(decoder, embeds, slots, context)[:, -1]
            token = decoder.logits(hidden).argmax(-1)
            token = token.masked_fill(token == self.begin + 1, SLOT)
            noise = torch.stack([torch.randn(self.numbers, generator=g) for g in generators])
            vector = self.head.sample(hidden.float(), noise.to(device), steps)
            ids = torch.cat([ids, token[:, None]], 1)
            values = torch.cat([values, vector[:, None]], 1)
            if bool((ids == eos).any(1).all()):
                break
        return [self._row(decoder, row, v, eos) for row, v in zip(ids, values, strict=True)]

    def _row(self, decoder: Backbone, ids: Tensor, values: Tensor, eos: int) -> dict[str, Any]:
        tokens = ids.tolist()
        end = tokens.index(eos) if eos in tokens else len(tokens)
        words = [t for t in tokens[:end] if t not in (SLOT, self.begin)]
        vectors = [values[i].tolist() for i in range(end) if tokens[i] == SLOT]
        return {"text": decoder.tokenizer.decode(words), "values": vectors}

    def metrics(self) -> Metrics:
        return MixedMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        prompts = (self.prompt, self.target) if self.target else (self.prompt,)
        rows = [example_row(prompts, text) for text in ("a wave", "up")]
        steps = np.linspace(-1, 1, 3 * self.numbers).reshape(3, self.numbers).tolist()
        return [{**rows[0], self.values: steps}, {**rows[1], self.values: steps[:1]}]


def placed(values: Tensor, slots: Tensor) -> Tensor:
    """values `[B, S, C]` in order -> `[B, L, C]`, at the slots `[B, L]`, zeros elsewhere."""
    index = (slots.cumsum(1) - 1).clamp(min=0)
    gathered = values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
    return gathered * slots[..., None]
