"""The contract of a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from ..engine.recipe.validation import arguments
from ..modalities.base import Features, Loss
from ..tasks.base import Metrics, Task
from ..tasks.uses import DecoderUse, StreamUse
from .common import (
    check_gradients,
    check_meta,
    check_state,
    checking,
    close,
    expect,
    gap,
    open_zero_branches,
    same,
)
from .task_builder import TaskBuilder


def check_task(
    cls: type[Task],
    *,
    decoder: str = "causal",
    axes: int = 1,
    sums_rows: bool = True,
    question: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Check a task class against the contract of `tasks.base.Task`, on its example rows.

    Args:
        cls: the class; `options` are its recipe's, sections of heads and inner parts among them.
        decoder: type of the decoder, if the task declares any; a language model is tiny and reads
            bytes, any other one (`module:Class`) is built without options.
        axes: axes of the grid on which the tokens of its streams lie.
        sums_rows: False if the loss of a batch is no sum of its rows' (it compares them).
        question: the columns of a row to predict alone; none by default.

    Raises:
        AssertionError: the violated rule, in one line.
    """
    name = cls.__name__
    with checking(name, "options"):
        base = "is no subclass of tasks.base.Task"
        expect(isinstance(cls, type) and issubclass(cls, Task), base)
        builder = TaskBuilder(cls, options, decoder, axes)
    _check_declarations(builder, name)
    _check_examples(builder, name)
    _check_loss(builder, name, sums_rows)
    _check_training(builder, name)
    _check_prediction(builder, name, question or {})
    _check_read_back(builder, name)
    _check_meta(builder, name)


def _check_declarations(builder: TaskBuilder, name: str) -> None:
    task, cls = builder.task, cast(Any, builder.cls)
    with checking(name, "declarations"):
        uses = [*task.streams.values(), *task.decoders.values()]
        typed = all(isinstance(use, (StreamUse, DecoderUse)) for use in uses)
        expect(typed, "streams and decoders map names to StreamUse and DecoderUse")
        shadowed = set(task.head_types) & set(arguments(cls))
        expect(not shadowed, f"{', '.join(shadowed)} is a head and an option")
        lacking = set(task.head_types) ^ set(task.head_uses)
        expect(not lacking, f"head_types and head_uses differ in {', '.join(lacking)}")
        unknown = {u.stream.split(".")[0] for u in task.head_uses.values()} - set(task.streams)
        expect(not unknown, f"a head reads {', '.join(unknown)}, which streams does not name")
        views = [stream for stream, use in task.streams.items() if use.views]
        own_views = type(task).views is not Task.views
        expect(own_views or not views, f"{', '.join(views)}: views=True without `views`")
        if any(use.ema for use in task.streams.values()) or list(task.ema_modules()):
            decays = [task.ema_decay(progress) for progress in (0.0, 0.5, 1.0)]
            expect(all(0 <= d <= 1 for d in decays), f"ema_decay is {decays}, expected 0 to 1")


def _check_examples(builder: TaskBuilder, name: str) -> None:
    task, rows = builder.task, builder.rows
    with checking(name, "example_rows"):
        expect(len(rows) > 1, f"{len(rows)} rows, expected two or more")
        for row in rows:
            absent = set(task.columns()) - set(row)
            expect(not absent, f"a row lacks {', '.join(absent)}, which columns() names")
    with checking(name, "prepare"):
        batch = builder.prepare(task, rows)
        missing = ", ".join(batch.missing)
        expect(not missing, f"not every row has the label {missing}")
        wrong = [key for key, label in batch.labels.items() if not isinstance(label, Tensor)]
        expect(not wrong, f"the label {', '.join(wrong)} is no tensor")
        decoded = json.loads(json.dumps(batch.references))
        expect(decoded == batch.references, "a reference changes when written as JSON")
        again = builder.prepare(task, rows)
        equal = same(batch.labels, again.labels) and batch.references == again.references
        expect(equal, "equal rows and generators yield another example")


def _check_loss(builder: TaskBuilder, name: str, sums_rows: bool) -> None:
    with checking(name, "loss"):
        loss = builder.loss()
        expect(isinstance(loss, Loss), f"returned {type(loss).__name__}, expected Loss")
        expect(loss.total.ndim == 0, f"total has the shape {tuple(loss.total.shape)}")
        expect(bool(loss.total.isfinite()), f"total is {loss.total.item()}")
        expect(int(loss.count) > 0, f"count is {int(loss.count)}")
        again = builder.loss().total
        expect(close(again, loss.total), f"computed again: {gap(again, loss.total)}")
    with checking(name, "loss, padding"):
        zeros = {
            stream: f.replace(tokens=f.tokens * f.mask[..., None])
            for stream, f in builder.features().items()
        }
        total = builder.loss(features=zeros).total
        expect(close(total, loss.total), f"padding is read: {gap(total, loss.total)}")
    if sums_rows:
        with checking(name, "loss, a sum of rows"):
            parts = [builder.loss(slice(i, i + 1)) for i in range(len(builder.rows))]
            total = torch.stack([part.total for part in parts]).sum()
            expect(close(total, loss.total), f"rows and batch: {gap(total, loss.total)}")
            counts, count = sum(int(part.count) for part in parts), int(loss.count)
            expect(counts == count, f"the rows count {counts}, the batch {count}")
            names = {tuple(sorted(part.parts)) for part in (*parts, loss)}
            expect(len(names) == 1, f"parts have the names {sorted(names)}")


def _check_training(builder: TaskBuilder, name: str) -> None:
    task, decoders = builder.task, builder.decoders
    with checking(name, "gradients"):
        open_zero_branches(task)
        features = {
            stream: f.replace(tokens=f.tokens.requires_grad_())
            for stream, f in builder.features().items()
        }
        total = builder.loss(features=features).total
        check_gradients(task, [total], zeros=True)
        for stream, inputs in features.items():
            if stream not in builder.encoders:
                _check_stream(stream, task.streams[stream], inputs)
        for stream, encoder in builder.encoders.items():
            trained = any(p.grad is not None for p in encoder.parameters())
            expect(trained, f"no gradient reaches the encoder of {stream}")
        for key, use in task.decoders.items():
            trained = any(p.grad is not None for p in decoders[key].parameters())
            expect(trained or use.role != "student", f"no gradient reaches the decoder {key}")
    with checking(name, "on_step_end"):
        task.on_step_end(builder.context(builder.features()).at(1, 0.5))


def _check_stream(name: str, use: StreamUse, features: Features) -> None:
    """Inputs get a gradient, at real tokens alone; labels and teachers get none."""
    grad = features.tokens.grad
    if use.role != "input":
        expect(grad is None, f"a gradient reaches the {use.role} stream {name}")
        return
    reached = torch.zeros_like(features.mask) if grad is None else grad.abs().sum(-1) > 0
    expect(reached.any(), f"no gradient reaches the stream {name}")
    expect(not reached[~features.mask].any(), f"a gradient reaches the padding of {name}")
    expect(reached.any(1).all(), f"no gradient reaches some row of the stream {name}")


def _check_prediction(builder: TaskBuilder, name: str, question: Mapping[str, Any]) -> None:
    task, count = builder.task.eval(), len(builder.rows)
    with checking(name, "predict"), torch.no_grad():
        batch = builder.prepare(task, builder.rows, training=False)
        batch.features = builder.features()
        predictions = task.predict(batch, builder.context(batch.features))
        expect(len(predictions) == count, f"{len(predictions)} predictions for {count} rows")
        decoded = json.loads(json.dumps(predictions))
        expect(same(decoded, predictions), "a prediction changes when written as JSON")
    with checking(name, "metrics"):
        metrics: Metrics = task.metrics()
        metrics.update(predictions, batch.references)
        values = metrics.compute()
        expect(values, "there are none")
        wrong = [key for key, value in values.items() if not isinstance(value, float)]
        expect(not wrong, f"{', '.join(wrong)} is no float")
        written = task.format_predictions(predictions, batch.references, batch.keys)
        expect(len(written) == count, f"format_predictions returns {len(written)} for {count} rows")
    with checking(name, "predict of rows without labels"), torch.no_grad():
        questions = builder.prepare(task, [question] * count, training=False)
        features = builder.features()
        questions.features = {stream: features[stream] for stream in task.inputs()}
        answers = task.predict(questions, builder.context(questions.features))
        expect(len(answers) == count, f"{len(answers)} predictions for {count} rows")
    task.train()


def _check_read_back(builder: TaskBuilder, name: str) -> None:
    """Fitted parts and weights come back from a run's files."""
    with checking(name, "read back from a run"):
        copy, decoders = builder.read_back()
        check_state(builder.task, copy)
        for key, decoder in decoders.items():
            check_state(builder.decoders[key], decoder)
        copy.validate_loaded()
        before, after = (builder.prepare(task, builder.rows) for task in (builder.task, copy))
        equal = same(before.labels, after.labels) and before.references == after.references
        expect(equal, "a row is another example")
        original, restored = builder.loss().total, builder.loss(task=copy, decoders=decoders).total
        expect(close(original, restored), f"the loss is another one: {gap(original, restored)}")


def _check_meta(builder: TaskBuilder, name: str) -> None:
    """A dry run has shapes and no values: nothing may be read back from the device."""
    with checking(name, "loss on the meta device"):
        task = builder.task.to("meta")
        check_meta(task)
        batch = builder.prepare(task, builder.rows).to("meta")
        batch.features = {
            stream: f.to("meta").replace(tokens=f.tokens.to("meta").requires_grad_())
            for stream, f in builder.features().items()
        }
        for decoder in builder.decoders.values():
            decoder.to("meta")
        for encoder in builder.encoders.values():
            encoder.to("meta")
        total = task.loss(batch, builder.context(batch.features)).total
        expect(total.is_meta, "total is not on the meta device")
        if total.requires_grad:
            total.backward()
