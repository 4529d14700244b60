"""Forecasting by a language decoder: segments go in, the next segments come out.

AutoTimes (Liu et al., 2024, https://arxiv.org/abs/2402.02370): segments of a series are projected
into the space of a frozen decoder's tokens, its hidden states are projected back, and every
position learns the segment that follows. The decoder is rolled to any horizon. Channels are
forecast one by one.

Legend: `B` rows, `C` channels, `T` segments, `S` samples of a segment, `H` samples of the future,
`D` width of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...modalities.base import Count, Features, Loss, PositiveInt, RowErrors
from ...modalities.series.read import read
from ...modalities.series.series import Series
from ..base import Context, Row, Task
from ..batch import Batch, Example, Tools
from ..uses import BACKBONE, DecoderUse, StreamUse
from .baselines import LinearBaseline
from .metrics import METRIC_NAMES, ForecastMetrics
from .segments import Segmented, following, project
from .timestamps import TimeStamps

LONGEST = 1000
"""Segments to which a forecast is rolled, at most."""


class Forecast(Task):
    """input: the stream of the series, whose encoder is `segments`. future: the column of what
    follows. season: samples of a season, for the seasonal forecast and the scaled error.

    timestamps: text of a segment's time, `"from {start} to {end}"`, whose vector by the decoder is
    added to that of the segment. examples: a stream of further series, each put before the one to
    forecast (in-context forecasting). hidden: width of a layer within the two projections; 0: they
    are linear. linear: the linear map that is reported beside.
    """

    metric_names = METRIC_NAMES
    main_metric = "mse"

    def __init__(
        self,
        *,
        linear: LinearBaseline,
        input: str = "series",
        future: str = "future",
        season: PositiveInt | None = None,
        timestamps: str | None = None,
        examples: str | None = None,
        hidden: Count = 0,
        decoder: str = BACKBONE,
    ) -> None:
        super().__init__()
        if input == examples:
            raise ValueError(f"examples: found {examples!r}, the input itself; name another stream")
        self.input, self.future, self.examples, self.decoder = input, future, examples, decoder
        self.season, self.hidden, self.linear = season, hidden, linear
        names = [input] if examples is None else [input, examples]
        self.streams = {n: StreamUse(supports=frozenset({"segments"})) for n in names}
        self.decoders = {decoder: DecoderUse(supports=frozenset({"inputs_embeds"}))}
        self.timestamps = None if timestamps is None else TimeStamps(timestamps)
        self.segment = 0  # set by `build`

    def columns(self) -> tuple[str, ...]:
        return (self.future,)

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        """Create the projections of segments into the decoder and back."""
        if self.examples is not None and widths[self.examples] != widths[self.input]:
            raise ValueError(
                f"examples: its segments are {widths[self.examples]} wide, those of {self.input} "
                f"{widths[self.input]}; set encoder: {{share: {self.input}}}"
            )
        self.segment, dim = widths[self.input] // 2 - 1, decoders[self.decoder].dim
        self.embedding = project(2 * self.segment, self.hidden, dim)
        self.projection = project(dim, self.hidden, self.segment)
        if self.timestamps is not None:
            self.time_scale = nn.Parameter(torch.ones(()))

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `future [H, C]`, NaN where nothing was measured, if the row has it. Reference:
        `forecast` (the future) and `context`, lists `[C][...]` with null there, and what tells the
        time."""
        context = read(row[self.input]) if self.input in row else None
        reference: dict[str, Any] = {}
        if context is not None:
            self._check_channels(context)
            reference = {"steps": context.steps, "rate": context.rate, "start": context.start}
        if self.future not in row:
            return Example({}, reference)
        future = read(row[self.future])
        self._check_channels(future)
        if context is not None and context.rate and future.rate:
            ratio = context.rate / future.rate
            if abs(ratio - 1) > 0.01:
                raise ValueError(
                    f"{self.future}: has {future.rate:g} Hz, {self.input} {context.rate:g} Hz; "
                    "expected one rate"
                )
        reference["forecast"] = _listed(future)
        if context is not None:
            reference["context"] = _listed(context)
        return Example({"future": torch.from_numpy(future.values.T.copy())}, reference)

    def _check_channels(self, series: Series) -> None:
        if self.linear.channels and series.channels != self.linear.channels:
            raise ValueError(
                f"{self.input}: found the channels {', '.join(series.channels)}, expected "
                f"{', '.join(self.linear.channels)}, as in training; set channels in the data"
            )

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """The linear map is fitted on channels, context and future of a row; a tokenizer, on the
        texts of its time stamps."""
        context, future = read(row[self.input]), read(row[self.future])
        if part == "linear":
            return [(context.channels, context.values, future.values)]
        if part.endswith(".tokenizer") and self.timestamps is not None:
            return [self.timestamps.text(0, context.steps - 1, context.rate, context.start)]
        return super().fit_examples(part, row)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the squared error of each position's next segment, in normalized units, the last
        one's being the beginning of the future; a sum over measured values."""
        series = self._segments(ctx, self.input)
        future = batch.label("future", f"has no {self.future!r} to learn")
        mask = batch.label_masks["future"].to(future.device)
        ahead = series.normalized(future.masked_fill(~mask[..., None], float("nan")))
        target, measured = following(series, ahead)
        predicted = self._predicted(series, batch, ctx)
        error = (predicted - target).square() * measured
        return Loss(error.sum(), measured.sum())

    def _segments(self, ctx: Context, stream: str) -> Segmented:
        features = ctx.encode(stream)
        return Segmented.of(features, stream)

    def _predicted(self, series: Segmented, batch: Batch, ctx: Context) -> Tensor:
        """Return the segment `[B, C, T, S]` that each position predicts to follow it."""
        decoder = ctx.decoder(self.decoder)
        embeds = self._embed(series, decoder, batch)
        mask = series.within.repeat_interleave(series.values.shape[1], 0)  # [B * C, T]
        context = None
        if self.examples is not None:
            examples = self._segments(ctx, self.examples)
            real = examples.within.repeat_interleave(examples.values.shape[1], 0)
            context = Features(self._embed(examples, decoder, None), real)
        try:
            hidden = decoder.forward(embeds, mask, context=context)
        except RowErrors as error:  # its rows are channels
            channels, segments = series.values.shape[1:3]
            where = f"{segments} segments of {self.segment} samples, the horizon in them: "
            reasons = {row // channels: where + text for row, text in error.reasons.items()}
            raise RowErrors(reasons, len(series.values)) from error
        assert isinstance(hidden, Tensor)
        dtype = next(self.projection.parameters()).dtype
        projected: Tensor = self.projection(hidden.to(dtype))
        return projected.float().unflatten(0, series.values.shape[:2])

    def _embed(self, series: Segmented, decoder: Backbone, batch: Batch | None) -> Tensor:
        """Return the embeddings `[B * C, T, D]` of segments."""
        inputs = torch.cat([series.values, series.measured.to(series.values.dtype)], -1)
        embeds: Tensor = self.embedding(inputs.flatten(0, 1))
        if self.timestamps is not None and batch is not None:
            segments = series.values.shape[2]
            times = self.timestamps.vectors(batch.references, segments, self.segment, decoder)
            times = times.to(embeds).repeat_interleave(series.values.shape[1], 0)
            unit = nn.functional.normalize
            embeds = unit(embeds, dim=-1) + self.time_scale * unit(times, dim=-1)
        probe = torch.zeros(1, dtype=torch.long, device=embeds.device)
        return embeds.to(decoder.embed(probe).dtype)

    @torch.no_grad()
    def predict(
        self, batch: Batch, ctx: Context, *, horizon: PositiveInt | None = None, **options: Any
    ) -> list[Any]:
        """Return `{"forecast": [C][H]}` a row, in the series' units.

        horizon: samples to predict, by default as many as a row's future has, else those of the
        training rows.
        """
        lengths = self._horizons(batch, horizon)
        series = self._segments(ctx, self.input)
        rounds = -(-max(lengths, default=0) // self.segment)
        if rounds > LONGEST:
            raise ValueError(
                f"horizon: found {max(lengths)}, expected at most {LONGEST} segments of "
                f"{self.segment} samples"
            )
        pieces = []
        for _ in range(rounds):
            predicted = self._predicted(series, batch, ctx)
            pieces.append(series.last(predicted))
            series = series.append(pieces[-1])
        if not pieces:
            return []
        values = series.denormalized(torch.cat(pieces, -1)).cpu()
        return [
            {"forecast": row[:, :length].tolist()}
            for row, length in zip(values, lengths, strict=True)
        ]

    def _horizons(self, batch: Batch, horizon: int | None) -> list[int]:
        """Return the samples to predict of each row."""
        if horizon is not None:
            return [horizon] * len(batch)
        fitted = self.linear.weights.shape[1]
        return [len(r["forecast"][0]) if "forecast" in r else fitted for r in batch.references]

    def metrics(self) -> ForecastMetrics:
        return ForecastMetrics(self.season, self.linear)

    def example_rows(self) -> list[dict[str, Any]]:
        """Two rows of one channel with sine waves."""
        steps = np.arange(96 + 24)
        rows = []
        for phase in (0.0, 1.0):
            values = np.sin(steps / 4 + phase)[None]
            whole = Series(values, 1.0, ("0",))
            row = {self.input: whole.slice(0, 96), self.future: whole.slice(96)}
            if self.examples is not None:
                row[self.examples] = whole
            rows.append(row)
        return rows


def _listed(series: Series) -> list[list[float | None]]:
    """Return the values as JSON: null where nothing was measured."""
    return [[None if np.isnan(v) else float(v) for v in row] for row in series.values]
