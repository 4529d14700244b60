"""Where a prediction looks: maps of its words over every stream and text that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....backbones.base import Backbone
from ....modalities.base import Tokenizer
from ....modalities.messages import did_you_mean
from ...data import cell_items
from ...inference import Pipeline
from ...recipe import BACKBONE, load
from ...utils import ConfigError, located_errors
from .cells import Cells, find_cells
from .curves import Curves, curves
from .decoder_rollout import decoder_rollout
from .methods import Baseline, gradient_times_input, occlusion, rollout
from .reagent import TextTokens, masked_model_tokens, reagent
from .scorer import Scorer

METHODS: dict[str, Callable[[Scorer, Cells, Baseline], np.ndarray]] = {
    "gradient": gradient_times_input,
    "occlusion": occlusion,
    "rollout": rollout,
    "decoder_rollout": decoder_rollout,
}
"""Methods for signals by name."""


@dataclass
class SignalMaps:
    """Maps of one stream. maps: `[U, *grid]` by method. curves: by method. background: the signal
    along the axes of the cells. preview: HTML of the stream's raw value."""

    cells: Cells
    background: np.ndarray
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, Curves] = field(default_factory=dict)
    preview: str = ""


@dataclass
class Explanation:
    """What a prediction rests on. units: its words with their scores. signals: by stream. texts: by
    stream or `prompt`, the tokens and their importance `[U, L]`."""

    task: str
    units: list[tuple[str, float]]
    signals: dict[str, SignalMaps] = field(default_factory=dict)
    texts: dict[str, tuple[list[str], np.ndarray]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pictures as JSON."""
        return {
            "task": self.task,
            "units": [{"text": text, "score": score} for text, score in self.units],
            "signals": {
                name: {
                    "grid": list(each.cells.grid),
                    "maps": {method: m.tolist() for method, m in each.maps.items()},
                    "areas": {method: c.areas() for method, c in each.curves.items()},
                }
                for name, each in self.signals.items()
            },
            "texts": {
                name: {"tokens": tokens, "importance": values.tolist()}
                for name, (tokens, values) in self.texts.items()
            },
        }


def explain(
    pipeline: Pipeline,
    task: str,
    row: Mapping[str, Any],
    *,
    methods: Sequence[str] = ("gradient", "occlusion"),
    cells: int | None = None,
    baseline: Baseline = "mean",
    steps: int = 10,
    seed: int = 0,
) -> Explanation:
    """Return what of a row's inputs each word of the prediction rests on.

    methods: `gradient`, `occlusion`, `rollout`, `decoder_rollout` for signals; `reagent`, for
    texts, is always run. cells: how many along each axis of a map; by default the tokens of the
    encoder. steps: points of the curves of deletion and insertion; 0: none.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        hint = did_you_mean(unknown[0], METHODS)
        raise ConfigError(f"method: there is no {unknown[0]!r}{hint}")
    scorer = Scorer.of(pipeline.model, task, row)
    texts = dict(text_places(scorer))
    first = next(iter(scorer.batch.streams), "")
    place = (first, next(iter(scorer.batch.streams[first]["main"]))) if first else None
    anywhere = place or next(iter(texts.values())).place
    scores = scorer.score_many(anywhere, [scorer.tensor(anywhere)[0]])[0]  # type: ignore[arg-type]
    named = zip((unit.text for unit in scorer.units), scores.tolist(), strict=True)
    explanation = Explanation(task, list(named))
    for stream in scorer.batch.streams:
        if stream in texts:
            continue
        with located_errors(f"explain: {stream}"):
            maps = _signal(scorer, stream, methods, cells, baseline, steps, seed)
        maps.preview = _preview(pipeline, stream, row, task)
        explanation.signals[stream] = maps
    for name, text in texts.items():
        proposals = _proposals(scorer, text)
        explanation.texts[name] = (text.texts(), reagent(scorer, text, proposals, seed=seed))
    return explanation


def _signal(
    scorer: Scorer,
    stream: str,
    methods: Sequence[str],
    cells: int | None,
    baseline: Baseline,
    steps: int,
    seed: int,
) -> SignalMaps:
    signal_cells = find_cells(scorer, stream, cells)
    value = scorer.tensor(signal_cells.place)[0]
    result = SignalMaps(signal_cells, signal_cells.background(value))
    for name in methods:
        result.maps[name] = METHODS[name](scorer, signal_cells, baseline)
        if (
            steps and getattr(scorer.task, "ability", "") != "regress"
        ):  # a number has no probability
            total = result.maps[name].sum(0)
            result.curves[name] = curves(
                scorer, signal_cells, total, steps=steps, baseline=baseline, seed=seed
            )
    return result


def text_places(scorer: Scorer) -> Iterator[tuple[str, TextTokens]]:
    """Yield the texts of a row: streams of ids, and the columns of the prompt."""
    plan = scorer.model.plan
    for name, views in scorer.batch.streams.items():
        ids = views["main"].get("ids")  # type: ignore[union-attr]
        tokenizer = getattr(scorer.model.stream(name).encoder.processor, "tokenizer", None)
        if torch.is_tensor(ids) and tokenizer is not None:
            yield name, _text_tokens((name, "ids"), ids[0], tokenizer)
    for name, value in scorer.batch.labels.items():
        if name.startswith("prompt.") and value.shape[-1] and BACKBONE in plan.tools.tokenizers:
            yield name, _text_tokens(("", name), value[0], plan.tools.tokenizer())


def _text_tokens(place: tuple[str, str], ids: Tensor, tokenizer: Tokenizer) -> TextTokens:
    special = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.mask_id}
    fixed = torch.tensor([int(i) in special for i in ids], device=ids.device)
    return TextTokens(place, ids, tokenizer, fixed)


def _proposals(scorer: Scorer, text: TextTokens) -> Any:
    """Return samples of a masked language model, where the text's own reader is one."""
    stream, _ = text.place
    part: Any = scorer.model.stream(stream).encoder if stream else scorer.model.decoders[BACKBONE]
    mask_id = text.tokenizer.mask_id
    if mask_id is None or "vocabulary" not in part.supports:
        return None
    if isinstance(part, Backbone):
        if "bidirectional" not in part.supports:
            return None
        return masked_model_tokens(
            lambda ids: part.logits(part(part.embed(ids), attention="bidirectional")),
            mask_id,
            text.tokenizer,
        )

    def logits(ids: Tensor) -> Tensor:
        result: Tensor = part.logits(part(ids=ids, mask=torch.ones_like(ids).bool()).tokens)
        return result

    return masked_model_tokens(logits, mask_id, text.tokenizer)


def _preview(pipeline: Pipeline, stream: str, row: Mapping[str, Any], task: str) -> str:
    """Return the raw values of a stream as its modality shows them."""
    use = pipeline.model.plan.tasks[task].task.streams[stream]
    planned = pipeline.model.plan.streams[stream]
    show = load(planned.modality.preview)
    values = cell_items(row[stream], planned.many(use))
    return "".join(show(pipeline.read_raw(stream, value), None) for value in values)
