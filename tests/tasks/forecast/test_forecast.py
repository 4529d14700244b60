"""Forecasting with a frozen decoder: rolled to any horizon, equivariant, better than naive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.backbones.causal import Causal
from sensorium.engine.recipe import ComponentPath, Section, find, plan_part
from sensorium.engine.report.judge import judge
from sensorium.modalities.base import RowErrors
from sensorium.modalities.series.datasets.waves import Waves
from sensorium.modalities.series.encoders.segments import Segments
from sensorium.modalities.series.preprocessing import Preprocessing
from sensorium.modalities.series.read import read
from sensorium.modalities.series.series import Series
from sensorium.tasks.forecast.baselines import LinearBaseline
from sensorium.tasks.forecast.forecast import Forecast
from sensorium.tasks.forecast.timestamps import TimeStamps
from sensorium.testing import StubContext, prepare_batch

SEGMENT, CONTEXT, HORIZON = 8, 48, 16
DECODER = {
    "name": "tiny-llama", "tokenizer": "bytes", "weights": "none",
    "options": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2},
}  # fmt: skip
STAMPS = "from {start} to {end}"


class Forecaster:
    """A task on a frozen tiny decoder, and the encoder of its stream."""

    def __init__(
        self, rows: Sequence[dict[str, Any]], decoder: dict[str, Any] | None = None, **options: Any
    ) -> None:
        seed = 0
        preprocessing = Preprocessing()
        preprocessing.fit([row["series"] for row in rows])
        self.encoder = Segments(preprocessing=preprocessing, segment=SEGMENT)
        linear = LinearBaseline()
        self.task = Forecast(linear=linear, **options)
        linear.fit([each for row in rows for each in self.task.fit_examples("linear", row)])
        section = Section.model_validate({**(decoder or DECODER), "type": "causal"})
        part = find("backbone", "causal", "here")
        self.decoder: Causal = plan_part(part, section, "backbone", ComponentPath("b")).build(seed)
        self.decoder.eval().requires_grad_(False)
        torch.manual_seed(seed)
        width = self.encoder.dim
        self.task.build(dict.fromkeys(self.task.streams, width), {"backbone": self.decoder})

    def context(self, rows: Sequence[dict[str, Any]]) -> StubContext:
        samples = {
            name: [self.encoder.processor.prepare(read(row[name])) for row in rows]
            for name in self.task.streams
        }
        encoded = {n: self.encoder(**self.encoder.collate(s)) for n, s in samples.items()}
        return StubContext(encoded, self.decoder)

    def loss(self, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
        loss = self.task.loss(prepare_batch(self.task, rows), self.context(rows))
        return loss.total / loss.count

    def __call__(self, rows: Sequence[dict[str, Any]], **options: Any) -> list[np.ndarray]:
        batch = prepare_batch(self.task, rows, training=False)
        predictions = self.task.predict(batch, self.context(rows), **options)
        return [np.array(p["forecast"]) for p in predictions]

    def metrics(self, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        batch = prepare_batch(self.task, rows, training=False)
        metrics = self.task.metrics()
        metrics.update(self.task.predict(batch, self.context(rows)), batch.references)
        return metrics.compute()


def waves(split: Any = "train", count: int = 64, **options: Any) -> list[dict[str, Any]]:
    options = {"context": CONTEXT, "horizon": HORIZON, "noise": 0.05, "period": 16.0, **options}
    return list(Waves(split=split, count=count, **options))  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return waves(channels=2, count=4)


@pytest.fixture(scope="module")
def forecaster(rows: list[dict[str, Any]]) -> Forecaster:
    return Forecaster(rows, season=16, timestamps=STAMPS)


@pytest.fixture(scope="module")
def trained() -> Forecaster:
    training = waves(count=192)
    model = Forecaster(training, season=16)
    before = {k: v.clone() for k, v in model.decoder.state_dict().items()}
    optimizer = torch.optim.Adam(model.task.parameters(), 1e-2)
    batches = [training[first:][:48] for first in range(0, 192, 48)]
    ready = [(prepare_batch(model.task, rows), model.context(rows)) for rows in batches]
    for step in range(120):
        optimizer.zero_grad()
        loss = model.task.loss(*ready[step % 4])
        (loss.total / loss.count).backward()
        optimizer.step()
    after = model.decoder.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    return model


@pytest.mark.slow
def test_it_beats_the_last_value_on_waves_never_seen(trained: Forecaster) -> None:
    """And not with the series of other rows in the place of its own."""
    test = waves("test", 48)
    metrics = trained.metrics(test)
    assert metrics["mse"] < 0.5 * metrics["last_mse"] and metrics["mase"] < metrics["last_mase"]
    shuffled = [{**row, "series": test[i - 1]["series"]} for i, row in enumerate(test)]
    assert trained.metrics(shuffled)["mse"] > 3 * metrics["mse"]


@pytest.mark.slow
def test_it_is_rolled_to_any_horizon(trained: Forecaster) -> None:
    """A forecast is the beginning of a longer one, and its own continuation."""
    test = waves("test", 4)
    (short, long) = (trained(test, horizon=horizon) for horizon in (5, 61))
    for a, b, row in zip(short, long, test, strict=True):
        assert a.shape == (1, 5) and b.shape == (1, 61)
        np.testing.assert_allclose(a, b[:, :5])
        past = read(row["series"])
        assert np.abs(b - past.values.mean()).max() < 6 * past.values.std()
    first = trained(test, horizon=SEGMENT)
    longer = [
        {"series": Series(np.concatenate([read(r["series"]).values, f], 1), 1.0, ("channel 1",))}
        for r, f in zip(test, first, strict=True)
    ]
    model = trained.encoder.processor.preprocessing.normalize
    assert model == "sample"  # so that the scale of the longer context is another: only close
    for a, b in zip(trained(longer, horizon=SEGMENT), long, strict=True):
        np.testing.assert_allclose(a, b[:, SEGMENT : 2 * SEGMENT], atol=0.3 * np.ptp(b))


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 500.0), (0.01, 0.0), (40.0, -7.0)])
def test_it_is_equivariant_to_offset_and_scale(
    forecaster: Forecaster, rows: list[dict[str, Any]], scale: float, offset: float
) -> None:
    def moved(series: Any) -> Series:
        old = read(series)
        return Series(old.values * scale + offset, old.rate, old.channels)

    other = [{key: moved(row[key]) for key in ("series", "future")} for row in rows]
    for a, b in zip(forecaster(rows), forecaster(other), strict=True):
        np.testing.assert_allclose(a * scale + offset, b, atol=1e-4 * scale + 2e-6 * abs(offset))
    torch.testing.assert_close(forecaster.loss(rows), forecaster.loss(other), atol=1e-3, rtol=1e-3)


def test_a_position_sees_no_later_segment(
    forecaster: Forecaster, rows: list[dict[str, Any]]
) -> None:
    series = forecaster.task._segments(forecaster.context(rows), "series")
    batch = prepare_batch(forecaster.task, rows)
    context = forecaster.context(rows)
    predicted = forecaster.task._predicted(series, batch, context)
    changed = series.values.clone()
    changed[:, :, 4:] += 1
    other = forecaster.task._predicted(replace(series, values=changed), batch, context)
    torch.testing.assert_close(predicted[:, :, :4], other[:, :, :4])
    assert not torch.allclose(predicted[:, :, 4:], other[:, :, 4:])


def test_rows_of_other_lengths_and_channels_change_nothing(
    forecaster: Forecaster, rows: list[dict[str, Any]]
) -> None:
    short = {**rows[1], "series": read(rows[1]["series"]).slice(13)}
    alone, together = forecaster([short])[0], forecaster([rows[0], short])[1]
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-4)


def test_values_that_were_not_measured_have_no_weight(rows: list[dict[str, Any]]) -> None:
    model = Forecaster(rows)
    gaps = []
    for row in rows:
        future = read(row["future"])
        values = future.values.copy()
        values[:, 3:] = np.nan
        gaps.append({**row, "future": Series(values, future.rate, future.channels)})
    loss = model.task.loss(prepare_batch(model.task, gaps), model.context(gaps))
    whole = model.task.loss(prepare_batch(model.task, rows), model.context(rows))
    assert int(whole.count) - int(loss.count) == 4 * 2 * (SEGMENT - 3)
    assert torch.isfinite(loss.total)
    assert all(np.isfinite(list(model.metrics(gaps).values())))


def test_a_report_says_how_far_a_forecast_is_off(
    forecaster: Forecaster, rows: list[dict[str, Any]]
) -> None:
    """It finds the future where the task puts it."""
    (reference, *_) = prepare_batch(forecaster.task, rows).references
    forecast = (np.array(reference["forecast"], float) + 2).tolist()
    assert judge({"forecast": forecast}, reference).note.startswith("off by 2 in the mean")


def test_the_trained_share_is_below_one_percent(forecaster: Forecaster) -> None:
    section = {"type": "causal", "name": "small-llama", "tokenizer": "bytes", "weights": "none"}
    part = find("backbone", "causal", "here")
    with torch.device("meta"):
        plan = plan_part(part, Section.model_validate(section), "backbone", ComponentPath("b"))
        decoder = plan.build()
        task = Forecast(linear=LinearBaseline())
        task.build({"series": 2 * 24 + 2}, {"backbone": decoder})
    count = [sum(p.numel() for p in m.parameters()) for m in (task, decoder)]
    assert count[0] / sum(count) < 0.01


def test_time_stamps_are_read_by_the_decoder(
    forecaster: Forecaster, rows: list[dict[str, Any]]
) -> None:
    """The vector of a segment is that of its text's last token; another time, another forecast."""
    stamps = TimeStamps(STAMPS)
    reference = {"steps": 20, "rate": 1 / 86_400, "start": 0.0}
    vectors = stamps.vectors([reference], 3, 8, forecaster.decoder)
    assert list(stamps._vectors) == [
        "from 1970-01-05 to 1970-01-12",
        "from 1970-01-13 to 1970-01-20",
        "from 1970-01-21 to 1970-01-28",
    ]
    ids = forecaster.decoder.tokenizer.encode("from 1970-01-05 to 1970-01-12")
    hidden = forecaster.decoder.forward(forecaster.decoder.embed(torch.tensor([ids])))
    torch.testing.assert_close(vectors[0, 0], hidden[0, -1], atol=1e-4, rtol=1e-4)
    later = []
    for row in rows:
        old = read(row["series"])
        later.append({"series": Series(old.values, old.rate, old.channels, 1e9)})
    assert not np.allclose(forecaster(rows)[0], forecaster(later)[0])


def test_a_series_put_before_changes_the_forecast(rows: list[dict[str, Any]]) -> None:
    model = Forecaster(rows, examples="example")
    both = [{**row, "example": rows[i - 1]["series"]} for i, row in enumerate(rows)]
    other = [{**row, "example": rows[i - 2]["series"]} for i, row in enumerate(rows)]
    assert model(both)[0].shape == (2, HORIZON)
    assert not np.allclose(model(both)[0], model(other)[0])
    model.loss(both).backward()
    assert all(p.grad is not None for p in model.task.parameters())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: Series(s.values[:1], s.rate, s.channels[:1]), "found the channels channel 1, "),
        (lambda s: Series(s.values, 2.0, s.channels), "future: has 2 Hz, series 1 Hz"),
    ],
)
def test_a_future_of_another_kind_is_one_line(
    forecaster: Forecaster, rows: list[dict[str, Any]], change: Any, line: str
) -> None:
    wrong = {**rows[0], "future": change(read(rows[0]["future"]))}
    with pytest.raises(ValueError, match=line):
        prepare_batch(forecaster.task, [wrong])


def test_horizons_that_cannot_be_are_one_line(
    forecaster: Forecaster, rows: list[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match="at most 1000 segments of 8 samples"):
        forecaster(rows, horizon=9000)
    gpt2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}
    limited = Forecaster(rows, {"config": gpt2, "tokenizer": "bytes", "weights": "none"})
    assert limited(rows, horizon=3 * SEGMENT)[0].shape == (2, 3 * SEGMENT)
    with pytest.raises(
        RowErrors, match=r"9 segments of 8 samples, the horizon .* 8 positions"
    ) as e:
        limited(rows, horizon=4 * SEGMENT)
    assert set(e.value.reasons) == set(range(len(rows))) and e.value.count == len(rows)
    with pytest.raises(ValueError, match="4 samples are predicted, the future has 16"):
        batch = prepare_batch(forecaster.task, rows, training=False)
        predictions = forecaster.task.predict(batch, forecaster.context(rows), horizon=4)
        forecaster.task.metrics().update(predictions, batch.references)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"timestamps": "now"}, "expected a text with {start}, {end} or both"),
        ({"timestamps": "{begin}"}, "expected a text with {start}, {end} or both"),
        ({"examples": "series"}, "the input itself"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Forecast(linear=LinearBaseline(), **options)


@pytest.mark.parametrize("option", [{"channels": ["a"]}, {"rate": 5.0}])
def test_segments_take_their_channels_and_rate_from_the_data(option: dict[str, Any]) -> None:
    part = Preprocessing(**option)
    part.fit([Series(np.random.default_rng(0).normal(size=(1, 20)), 10.0, ("a",))])
    with pytest.raises(ValueError, match="in the data section"):
        Segments(preprocessing=part, segment=4)
