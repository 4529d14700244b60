"""Cross-encoder: a query and a passage are read as one sequence, whose score tells how well the
passage answers the query. The second step of a search (`retrieve --rerank`).

Legend: `B` queries of a batch, `N` candidates of all of them, `K` scores of a pair, `L` tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Loss, NonNegativeFloat, PositiveInt, Tokenizer
from ..base import Context, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..common import encode_ids, head_output, merged_ids
from ..uses import HeadUse, StreamUse
from . import losses
from .metrics import NAMES, ClassMetrics, RerankingMetrics
from .pairs import join_pairs, pair_frame


class Reranking(Task):
    """query: a text stream. passage: a text stream of one passage a row, relevant unless
    `relevance` says otherwise. candidates: a stream whose cells are lists of passages: those that a
    search found, or the passage's hard negatives. At least one of the two; all share one encoder,
    any that reads ids (`inputs: {passage: {share: query}}`, `encoder: {share: backbone}`), and no
    connector is used: `head` ends in the score (`linear`, `last`, `first`, `mlp`).

    loss: `binary` (cross-entropy of each candidate, whose relevance is 0 to 1), `softmax` (over a
    query's candidates), `pairwise` (RankNet), `hinge` with `margin`, `margin_mse` (the relevances
    are a teacher's scores), or `classes` with num_labels above 1 (the relevance is a class's
    index). relevance: the column of a number for the passage and for each candidate, in this order;
    without it the passage has 1, the candidates 0. first_scores: a column of the scores of the
    search that found the candidates; the metrics then have `before_...`.

    template: a text around the pair, `"Query: {query}\\nPassage: {passage}\\nRelevant:"`; the
    tokenizer's own for two texts by default. activation: of the predicted scores. A pair of more
    ids than the encoder's `max_length` loses some at the end of the longer text.
    """

    ability: ClassVar[str] = "rerank"
    main_metric = "mrr"
    metric_names: Mapping[str, str] = NAMES
    head_types: ClassVar[Mapping[str, str]] = {"head": "linear"}

    def __init__(
        self,
        *,
        query: str = "query",
        passage: str | None = "passage",
        candidates: str | None = None,
        loss: Literal["binary", "softmax", "pairwise", "hinge", "margin_mse", "classes"] = "binary",
        margin: NonNegativeFloat = 1.0,
        num_labels: PositiveInt = 1,
        relevance: str | None = None,
        first_scores: str | None = None,
        template: str | None = None,
        activation: Literal["none", "sigmoid", "softmax"] = "none",
    ) -> None:
        super().__init__()
        self.query, self.passage, self.candidates = query, passage, candidates
        self.relevance, self.first_scores, self.template = relevance, first_scores, template
        self.loss_type, self.margin, self.num_labels = loss, margin, num_labels
        self.activation = activation
        self._check()
        self.streams = {query: StreamUse(supports=frozenset({"ids"}))}
        shared: dict[str, Any] = {"supports": frozenset({"ids"}), "shares": query}
        if passage is not None:
            self.streams[passage] = StreamUse(**shared)
        if candidates is not None:
            self.streams[candidates] = StreamUse(many=True, **shared)

    def _check(self) -> None:
        names = [n for n in (self.query, self.passage, self.candidates) if n is not None]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                f"passage: found the streams {', '.join(names)}, expected a query, and a passage "
                "or candidates of other names"
            )
        if self.passage is None and self.relevance is None:
            raise ValueError("relevance: name the column that tells which candidates are relevant")
        if (self.loss_type == "classes") != (self.num_labels > 1):
            raise ValueError(
                f"num_labels: found {self.num_labels} with loss {self.loss_type}; several labels "
                "have loss: classes"
            )
        if self.loss_type == "classes" and self.relevance is None:
            raise ValueError("relevance: name the column of the class")
        if self.loss_type not in ("binary", "classes") and self.candidates is None:
            raise ValueError(
                f"candidates: {self.loss_type} compares the candidates of a row; name their stream"
            )
        if self.activation == "softmax" and self.num_labels == 1:
            raise ValueError("activation: softmax is of several labels; take sigmoid or none")

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"head": HeadUse(stream=f"{self.query}.encoder", out_dim=self.num_labels)}

    def inputs(self) -> tuple[str, ...]:
        """Return the query, and the stream of the passages that are scored."""
        return (self.query, str(self.passage if self.candidates is None else self.candidates))

    def columns(self) -> tuple[str, ...]:
        return tuple(c for c in (self.relevance, self.first_scores) if c is not None)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `relevance` `[C]`. Reference: `relevance` and `first_scores`, lists. None of
        those whose columns the row or the task lacks."""
        example = Example()
        for name, column in (("relevance", self.relevance), ("first_scores", self.first_scores)):
            if column is not None and column in row:
                example.reference[name] = self._numbers(row[column], column)
        if "relevance" in example.reference:
            example.labels["relevance"] = torch.tensor(example.reference["relevance"])
        return example

    def _numbers(self, cell: Any, column: str) -> list[float]:
        cell = cell.tolist() if hasattr(cell, "tolist") else cell
        values = cell if isinstance(cell, (list, tuple)) else [cell]
        for value in values:
            bad = isinstance(value, bool) or not isinstance(value, (int, float)) or value != value
            if bad:
                raise ValueError(
                    f"column {column!r}: found {value!r}, expected a number a candidate"
                )
            if column != self.relevance:
                continue
            if self.loss_type == "binary" and not 0 <= value <= 1:
                raise ValueError(f"column {column!r}: found {value}, binary expects 0 to 1")
            if self.loss_type == "classes" and value not in range(self.num_labels):
                raise ValueError(
                    f"column {column!r}: found {value}, expected a class of 0 to "
                    f"{self.num_labels - 1}"
                )
        return [float(value) for value in values]

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the sum that the loss of `losses.py` describes, and its count. Parts: `correct`,
        of as many: candidates on their side of 0 (`binary`), or of the right class, and queries
        whose best score is that of a most relevant candidate."""
        scores, rows = self._scores(batch, ctx)
        relevance = self._relevance(batch, rows)
        if self.loss_type == "classes":
            classes = relevance.long()
            total = F.cross_entropy(scores, classes, reduction="sum")
            return Loss(total, len(scores), {"correct": (scores.argmax(1) == classes).sum()})
        lists, mask = losses.to_lists(scores[:, 0], rows, len(batch))
        targets, _ = losses.to_lists(relevance, rows, len(batch))
        functions: dict[str, Callable[..., losses.ListLoss]] = {
            "binary": losses.binary,
            "softmax": losses.softmax,
            "pairwise": losses.pairwise,
            "hinge": functools.partial(losses.hinge, margin=self.margin),
            "margin_mse": losses.margin_mse,
        }
        loss = functions[self.loss_type](lists, targets, mask)
        lists = lists.detach()
        if self.loss_type == "binary":
            right = ((lists > 0) == (targets >= 0.5)) & mask
        else:
            lowest = torch.finfo(lists.dtype).min
            best = lists.masked_fill(~mask, lowest).argmax(1, keepdim=True)
            most = targets.masked_fill(~mask, lowest).amax(1, keepdim=True)
            right = (targets.gather(1, best) == most) & loss.rows[:, None]
        return Loss(loss.total, loss.count, {"correct": right.sum()})

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `scores`, a number a candidate (a list of `num_labels`), in the order of the cell;
        the passage comes first."""
        scores, rows = self._scores(batch, ctx)
        if self.activation == "sigmoid":
            scores = scores.sigmoid()
        elif self.activation == "softmax":
            scores = scores.softmax(1)
        values = scores.tolist() if self.num_labels > 1 else scores[:, 0].tolist()
        predictions: list[Any] = [{"scores": []} for _ in range(len(batch))]
        for row, value in zip(rows.tolist(), values, strict=True):
            predictions[row]["scores"].append(value)
        return predictions

    def _scores(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """Return scores `[N, K]` of all pairs, a query's one after another, and the row of each."""
        encoder = ctx.encoder(self.query)
        tokenizer = encoder.processor.tokenizer
        queries = merged_ids(ctx.sample(self.query), tokenizer)
        rows, passages = self._passages(batch, ctx, tokenizer)
        rows = rows.to(queries[0].device)
        if not len(rows):
            return queries[0].new_zeros(0, self.num_labels, dtype=torch.float32), rows
        pairs = join_pairs(
            pair_frame(tokenizer, self.template),
            (queries[0][rows], queries[1][rows]),
            passages,
            encoder.processor.max_length,
            tokenizer.pad_id,
        )
        types = {"types": pairs["types"]} if "types" in encoder.supports else {}
        features = encode_ids(encoder, pairs["ids"], pairs["mask"], **types)
        return head_output(self, "head", features), rows

    def _passages(
        self, batch: Batch, ctx: Context, tokenizer: Tokenizer
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the row of each candidate `[N]`, ascending, and the candidates' ids and mask."""
        rows, sides = [], []
        for name in (self.passage, self.candidates):
            if name is None or not batch.has(name):
                continue
            counts = batch.items.get(name, torch.ones(len(batch), dtype=torch.long))
            if not int(counts.sum()):
                continue
            rows.append(torch.arange(len(batch)).repeat_interleave(counts))
            sides.append(merged_ids(ctx.sample(name), tokenizer))
        if not sides:
            device = next(self.heads.parameters()).device
            none = torch.zeros(0, 0, dtype=torch.long, device=device)
            return torch.zeros(0, dtype=torch.long), (none, none.bool())
        every, order = torch.cat(rows).sort(stable=True)
        widest = max(ids.shape[1] for ids, _ in sides)
        ids, mask = (
            torch.cat([F.pad(side[i], (0, widest - side[i].shape[1])) for side in sides])
            for i in (0, 1)
        )
        order = order.to(ids.device)
        return every, (ids[order], mask[order])

    def _relevance(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the relevance `[N]` of all candidates. Raise ValueError if a row has another
        number of them."""
        if self.relevance is None:
            first = torch.ones(len(rows), device=rows.device)
            first[1:] = (rows[1:] != rows[:-1]).float()
            return first
        values = batch.label("relevance", f"has no relevance; add the column {self.relevance!r}")
        mask = batch.label_masks["relevance"]
        if not rows.is_meta:
            counts = torch.bincount(rows.cpu(), minlength=len(batch)).tolist()
            for key, count, right in zip(batch.keys, mask.sum(1).tolist(), counts, strict=True):
                if count != right:
                    raise ValueError(
                        f"row {key!r}: column {self.relevance!r} has {count} numbers, expected "
                        f"{right}, one a candidate"
                    )
        places = torch.arange(mask.shape[1])
        index = (places + mask.shape[1] * torch.arange(len(mask))[:, None])[mask.cpu()]
        return values.flatten()[index.to(values.device)].to(rows.device)

    def metrics(self) -> Metrics:
        return ClassMetrics() if self.num_labels > 1 else RerankingMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        count = (self.passage is not None) + (self.candidates is not None)
        values = [[1.0, 0.0], [0.0, 1.0]]
        rows: list[dict[str, Any]] = [{}, {}]
        for row, numbers in zip(rows, values, strict=True):
            if self.relevance is not None:
                row[self.relevance] = numbers[:count]
            if self.first_scores is not None:
                row[self.first_scores] = [0.5, 0.25][:count]
        return rows
