"""Image tokens: a language model that retrieves pictures or has them generated.

After a text, `k` new tokens are read by the frozen model. Their states are mapped to a vector that
is compared with pictures', and by learned queries to the tokens that condition a generator, in
place of those of its own text encoder; a classifier decides between the two. `L = -log p(first
token) + InfoNCE both ways + |mapped - condition|^2 + CE(decision)` (Koh et al., "Generating Images
with Multimodal Language Models" (GILL), 2023).

Legend: `B` rows, `k` image tokens, `D` width of the model, `Q` tokens of the condition, `G` its
width, `R` width of the retrieval space.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modalities.base import Count, Decoder, Features, Loss, NonNegativeFloat, PositiveInt
from ..base import Context, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..common import assemble, example_row, l2_normalize, parse_prompt
from ..uses import BACKBONE, DecoderUse, StreamUse
from .metrics import ImageTokenMetrics

CHOICES = ("retrieve", "generate")


class ImageTokens(Task):
    """prompt: text, streams and columns, after which the image tokens stand. image: the stream of
    pictures to retrieve. condition: the stream that conditions the generator, frozen; its tokens
    are what the mapped ones should be. generator: the decoder that draws; without one, nothing is
    drawn. decide: a column with `retrieve` or `generate`; rows without it train no decision.
    tokens: `k`. queries: `Q`, at least as many as the condition has. dim: `R`. depth: layers of
    the mapper.
    """

    metric_names: Mapping[str, str] = {
        "recall@1": "fraction of rows whose own picture is nearest to their vector",
        "decision_accuracy": "fraction of rows whose decision is right",
    }

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        image: str = "image",
        condition: str = "condition",
        generator: str | None = None,
        decide: str | None = None,
        tokens: PositiveInt = 8,
        queries: PositiveInt = 16,
        dim: PositiveInt = 256,
        depth: PositiveInt = 1,
        decoder: str = BACKBONE,
    ) -> None:
        super().__init__()
        self.prompt = parse_prompt(prompt)
        self.image, self.condition, self.generator = image, condition, generator
        self.decide, self.decoder, self.tokens = decide, decoder, tokens
        self.queries_count, self.dim, self.depth = queries, dim, depth
        self.streams = {name: StreamUse(width=decoder) for name in self.prompt.streams}
        if len({image, condition, *self.streams}) < 2 + len(self.streams):
            raise ValueError("prompt, image, condition: name one stream twice; take three")
        self.streams[image] = StreamUse(role="label")
        self.streams[condition] = StreamUse(role="teacher", width=generator)
        self.decoders = {decoder: DecoderUse()}
        if generator is not None:
            self.decoders[generator] = DecoderUse(role="teacher", attention=frozenset())

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.prompt.columns, *([self.decide] if self.decide else ()))))

    def prompt_columns(self) -> tuple[str, ...]:
        return self.prompt.columns

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        width, out = decoders[self.decoder].dim, widths[self.condition]
        self.first = decoders[self.decoder].add_tokens(self.tokens)
        self.to_text = nn.Linear(width, self.dim)
        self.to_image = nn.Linear(widths[self.image], self.dim)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.queries = nn.Parameter(torch.randn(self.queries_count, width) * 0.1)
        heads = next(h for h in (8, 4, 2, 1) if width % h == 0)
        layer = nn.TransformerDecoderLayer(
            width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.mapper = nn.TransformerDecoder(layer, self.depth, nn.LayerNorm(width))
        self.to_condition = nn.Linear(width, out)
        self.to_decision = nn.Linear(width, len(CHOICES))

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        if not part.endswith(".tokenizer"):
            return super().fit_examples(part, row)
        return [text for text in self.prompt.render(row) if text]

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: the prompt's texts and `decision`, -1 without one. Raise ValueError for another
        word than `retrieve` and `generate`."""
        labels = self.prompt.encode(row, tools.tokenizer(self.decoder))
        word = row.get(self.decide) if self.decide else None
        if word is not None and word not in CHOICES:
            raise ValueError(f"{self.decide}: found {word!r}, expected {' or '.join(CHOICES)}")
        labels["decision"] = torch.tensor(-1 if word is None else CHOICES.index(word))
        return Example(labels, {} if word is None else {"decision": word})

    def states(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """Return the state before the image tokens `[B, D]` and those of the tokens `[B, k, D]`."""
        decoder = ctx.decoder(self.decoder)
        context = assemble(self.prompt.streams, batch, ctx, decoder=self.decoder)
        ids = torch.arange(self.first, self.first + self.tokens, device=context.mask.device)
        ids = F.pad(ids, (0, 1), value=decoder.tokenizer.eos_id).expand(len(context.mask), -1)
        hidden = decoder.teacher_force(context, ids, torch.ones_like(ids, dtype=torch.bool))
        return hidden[:, 0], hidden[:, 1:]

    def mapped(self, states: Tensor) -> Features:
        """states `[B, k, D]` -> the condition of the generator, `[B, Q, G]`."""
        queries = self.queries.to(states.dtype).expand(len(states), -1, -1)
        return Features.dense(self.to_condition(self.mapper(queries, states)))

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows. Parts: the sums of its four terms."""
        decoder = ctx.decoder(self.decoder)
        before, states = self.states(batch, ctx)
        first = torch.full((len(batch),), self.first, device=before.device)
        words = F.cross_entropy(decoder.logits(before).float(), first, reduction="sum")
        pairs = self.scale.exp() * self._vector(states) @ self._pictures(ctx).T
        own = torch.arange(len(batch), device=pairs.device)
        retrieval = sum(F.cross_entropy(p, own, reduction="sum") / 2 for p in (pairs, pairs.T))
        mapping = self._mapping_error(self.mapped(states), ctx.encode(self.condition))
        labels = batch.labels["decision"]
        logits = self.to_decision(states.mean(1)).float()
        decision = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        parts = {"words": words, "retrieval": retrieval, "mapping": mapping, "decision": decision}
        total = words + retrieval + mapping + decision
        return Loss(total, len(batch), {k: torch.as_tensor(v).detach() for k, v in parts.items()})

    def _mapping_error(self, mapped: Features, condition: Features) -> Tensor:
        """Return the squared error of the mapped tokens, a sum of rows' means; a condition is
        filled with zeros to `Q` tokens."""
        missing = self.queries_count - condition.tokens.shape[1]
        if missing < 0:
            raise ValueError(
                f"queries: found {self.queries_count}, the condition has "
                f"{condition.tokens.shape[1]} tokens; set queries to at least as many"
            )
        target = condition.tokens.detach() * condition.mask[..., None]
        error = mapped.tokens - F.pad(target, (0, 0, 0, missing))
        return error.float().square().mean((1, 2)).sum()

    def _vector(self, states: Tensor) -> Tensor:
        return l2_normalize(self.to_text(states.mean(1)).float())

    def _pictures(self, ctx: Context) -> Tensor:
        features = ctx.encode(self.image)
        tokens = features.tokens * features.mask[..., None]
        return l2_normalize(self.to_image(features.replace(tokens=tokens).pool().detach()).float())

    def predict(
        self,
        batch: Batch,
        ctx: Context,
        *,
        steps: PositiveInt | None = None,
        guidance: NonNegativeFloat | None = None,
        seed: Count = 0,
        **options: Any,
    ) -> list[Any]:
        """Return `decision` and `vector [R]` a row; the picture's vector, where the batch has it,
        for the metrics; and what the generator draws, if there is one."""
        _, states = self.states(batch, ctx)
        choices = self.to_decision(states.mean(1)).argmax(-1).tolist()
        vectors = self._vector(states).tolist()
        rows: list[dict[str, Any]] = [
            {"decision": CHOICES[c], "vector": v} for c, v in zip(choices, vectors, strict=True)
        ]
        if batch.has(self.image):
            for row, vector in zip(rows, self._pictures(ctx).tolist(), strict=True):
                row["image_vector"] = vector
        if self.generator is not None:
            generator: Decoder = ctx.decoder(self.generator)
            seeds = [zlib.crc32(f"{seed} {key}".encode()) for key in batch.keys]
            asked = {"steps": steps, "guidance": guidance, **options}
            asked = {name: value for name, value in asked.items() if value is not None}
            samples = generator.generate(self.mapped(states), seeds=seeds, **asked)
            rows = [r | s for r, s in zip(rows, generator.as_json(samples), strict=True)]
        return rows

    def format_predictions(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> Sequence[Any]:
        return [{k: v for k, v in row.items() if "vector" not in k} for row in predictions]

    def metrics(self) -> Metrics:
        return ImageTokenMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        rows = [example_row((self.prompt,), text) for text in ("a red circle", "a star")]
        words = dict(zip([0, 1], CHOICES, strict=True))
        return [{**r, self.decide: words[i]} if self.decide else r for i, r in enumerate(rows)]
