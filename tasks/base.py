"""The contract of a task: its streams, its loss, its predictions, its metrics.

A task sees encoders only through `Context.encode` (those with a vocabulary also through
`Context.encoder`) and decoders only through `Context.decoder`; it knows neither a modality nor a
model's name. The engine reads the declarations (`streams`, `decoders`, `head_uses`), builds the
parts that they need, and calls the methods in this order:

`prepare(row, tools, rng)` in a loader worker: an `Example` of one row; `loss(batch, ctx)` in
training, or `predict(batch, ctx)` and `metrics()`; `on_step_end(ctx)` after each optimizer step.

Legend: `B` rows of a batch, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..modalities.base import Features, Sample
from ..modalities.base import Loss as Loss
from ..modalities.groups import EncoderInputs
from ..modalities.signal_tokens import SignalTokenizer
from .abilities import Baselines as Baselines
from .abilities import ExportsMaps as ExportsMaps
from .batch import Batch as Batch
from .batch import Example as Example
from .batch import Tools as Tools
from .uses import BACKBONE as BACKBONE
from .uses import ChunkSpec as ChunkSpec
from .uses import DecoderUse as DecoderUse
from .uses import HeadUse as HeadUse
from .uses import StreamUse as StreamUse
from .uses import VocabularyEncoder as VocabularyEncoder

Row = Mapping[str, Any]


class Context(Protocol):
    """The model as a task sees it, for one batch.

    step: optimizer steps taken so far. progress: the same as a share of all steps, 0 to 1.
    generator: a CPU generator, seeded by the run's seed, the step and the rows of the batch. logs:
    whether the parts of a loss are read; a costly one may be left out otherwise.
    """

    step: int
    progress: float
    logs: bool

    @property
    def generator(self) -> torch.Generator: ...

    def encode(self, stream: str, view: str = "main", **options: Any) -> Features:
        """Return the features of a stream: encoder, then connector. Each stream, view and set of
        options runs once a step.

        `audio` is the end of the stream; `audio.encoder` the encoder's output before the
        connector; without a graph, `audio.ema` its moving average's, `audio.targets` `HasTargets`'.
        Options: `chunk`, rows that are encoded at a time, their activations computed again in the
        backward; `windows`, a `ChunkSpec` for long signals; and `supports` of the encoder
        (`token_mask`, `layer_hooks`, `hidden_states`).
        """
        ...

    def sample(self, stream: str, view: str = "main") -> EncoderInputs:
        """Return the batch's own tensors of a stream, such as token ids."""
        ...

    def encoder(self, stream: str) -> VocabularyEncoder:
        """Return the encoder of a text stream that the task uses with `vocabulary`, to embed ids,
        encode them and score hidden states."""
        ...

    def decoder(self, name: str = BACKBONE) -> Backbone:
        """Return a decoder by its name. Raise ValueError if the recipe has none of that name."""
        ...


class StopTraining(RuntimeError):
    """A task found that training should stop. The message has the value found, the value expected,
    what to do."""


class Metrics(Protocol):
    """An accumulator: updated batch by batch, computed once."""

    def update(
        self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]]
    ) -> None: ...

    def compute(self) -> dict[str, float]: ...


class Task(nn.Module):
    """An objective on streams and decoders.

    streams: requirements of each stream, in order; may be empty. decoders: requirements of each
    decoder. head_types: sections of the recipe's task that are heads, with the type each has by
    default; `head_uses` defines their inputs. eval_options: options of `predict` in an evaluation
    (times of words). ability: the Python API's name for its prediction (`caption`, `classify`);
    empty if it has none. main_metric: the metric that a page names first, by default the first of
    `metrics`. cross_rows: the loss compares rows of all processes; it is then called in every
    process, with an empty batch in one whose rows were all unreadable. similarity: how the vectors
    of its streams are compared (`cosine`, `dot`, `maxsim`; None if they are not), which sets the
    form of an index of them. self_supervised: streams that are their own target, so that an
    evaluation does not shuffle them among rows.

    State that must resume (centres, queues) is a buffer or a submodule. signal_tokenizers: those of
    its streams of signal tokens (`supports` has `codes`), by stream; set before `build`.
    """

    streams: Mapping[str, StreamUse] = {}
    decoders: Mapping[str, DecoderUse] = {}
    head_types: ClassVar[Mapping[str, Any]] = {}
    eval_options: Mapping[str, Any] = {}
    ability: ClassVar[str] = ""
    main_metric: str | None = None
    cross_rows: bool = False
    similarity: str | None = None
    self_supervised: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()
        self.signal_tokenizers: dict[str, SignalTokenizer] = {}

    @property
    def metric_names(self) -> Mapping[str, str]:
        """Descriptions of the task's own metrics by name, for the end of a table."""
        return {}

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        """Input and output width of each head of `head_types`; read once the task is fitted."""
        return {}

    def columns(self) -> tuple[str, ...]:
        """Return the columns that `prepare` reads; data without one of them is refused."""
        return ()

    def training_columns(self) -> tuple[str, ...]:
        """Return the columns that `prepare` reads beside `columns()` of training rows alone (a
        teacher's scores)."""
        return ()

    def read_streams(self, training: bool) -> tuple[str, ...]:
        """Return the streams whose cells are read in training, or else in evaluation."""
        return tuple(n for n, use in self.streams.items() if training or not use.training_only)

    def prompt_columns(self) -> tuple[str, ...]:
        """Return the columns that a prediction reads beside the streams: those of a prompt."""
        return ()

    def nullable(self) -> Collection[str]:
        """Return the columns of `columns()` whose cells may be null (an image without a box). A row
        with a null in another one fails."""
        return ()

    def check_windows(self, windows: Mapping[str, tuple[int, int]]) -> None:
        """Raise ValueError if the windows of a data section do not fit the task. The message
        begins with the column.

        windows: by column the first and last frame of its cells, counted from the row's own.
        """

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Return the labels and the reference of a row.

        Runs in a loader worker. rng: depends on the seed, the epoch and the row alone; None in
        evaluation. A row without the task's columns is for prediction only.
        """
        return Example()

    def prepare_batch(self, batch: Batch) -> None:
        """Add labels that are cheaper to compute for many rows at once (chunks of actions as
        tokens). Runs in a loader worker, on the collated examples."""

    def views(self, stream: str, sample: Sample, rng: np.random.Generator) -> dict[str, Sample]:
        """Return views of one sample (e.g. crops); they are collated and encoded apart."""
        return {"main": sample}

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Return what of a row a part is fitted on: `part` is an argument of the task, or, with a
        dot, the part of another: `backbone.tokenizer`, which is fitted on texts."""
        return () if "." in part else (row,)

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        """Create what depends on the model, before any weight is loaded.

        widths: of each stream its end (`audio`) and its encoder's output (`audio.encoder`).
        Tokens are added to a decoder here (`add_tokens`). Called once a composed model, and
        again if the recipe is composed again.
        """

    def comparable(self, text: str) -> str:
        """Return a predicted or reference text as the metrics compare it; a report judges rows
        and marks words by it."""
        return " ".join(text.split())

    def validate_loaded(self) -> None:
        """Raise ValueError if tensors that were just loaded belong to another decoder or
        vocabulary than the one that `build` saw."""

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over the rows and its count."""
        raise NotImplementedError

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return one JSON value a row. A task names its options as keyword-only arguments, or as
        `**options: Unpack[...]`; the pipeline refuses others, and values out of an option's
        range (`Annotated[int, Gt(0)]`)."""
        raise NotImplementedError

    def metrics(self) -> Metrics:
        raise NotImplementedError

    def format_predictions(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> Sequence[Any]:
        """Return the predictions as written beside the metrics, a JSON value a row."""
        return predictions

    def on_step_end(self, ctx: Context) -> None:
        """Called after each optimizer step. May raise `StopTraining`."""

    def ema_decay(self, progress: float) -> float:
        """Return the decay of the moving averages at a step, for streams with `ema` and for
        `ema_modules`."""
        raise NotImplementedError

    def ema_modules(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return pairs (average, module) of the task's own modules that follow `ema_decay`."""
        return ()

    def example_rows(self) -> list[dict[str, Any]]:
        """Return a few rows with the columns of `columns()`: for the dry run, docs and tests."""
        raise NotImplementedError

    def inputs(self) -> tuple[str, ...]:
        """Return the streams that a prediction needs."""
        return tuple(name for name, use in self.streams.items() if use.role == "input")


Embed = Callable[[str, Sequence[Any]], Tensor]
"""(stream, raw values) -> their vectors `[values, D]`, of unit length."""


@runtime_checkable
class DatasetMetrics(Protocol):
    """A task with metrics of a split that need more of the model than its rows' predictions."""

    def dataset_metrics(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        embed: Embed,
    ) -> dict[str, float]: ...


@dataclass(frozen=True)
class Unit:
    """What of a prediction is explained by itself: a word, a label, a number.

    text: as it is shown. target: the values by which the task scores it again.
    """

    text: str
    target: Any = None


@runtime_checkable
class Explains(Protocol):
    """A task whose predictions `sensorium explain` can take apart."""

    def units(self, batch: Batch, ctx: Context) -> list[Unit]:
        """Return the units of the prediction of the batch's first row."""
        ...

    def unit_scores(self, batch: Batch, ctx: Context, units: Sequence[Unit]) -> Tensor:
        """Return `[B, U]`, the log-probability (or the value) of each unit in each row, with a
        graph."""
        ...
