"""What is asked of a model: targets, loss, prediction, metrics.

A task sees streams only through `encode` and the decoder only through the backbone's
contract: nothing in here knows a modality or a model's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..modalities.base import Features, Sample
from ..modalities.base import Loss as Loss
from ..modalities.groups import EncoderInputs

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Window:
    """How a signal of more than `limit` tokens is encoded: in pieces of `length` tokens, of which
    each shares `overlap` with the next."""

    length: int
    overlap: int
    limit: int


class Encode(Protocol):
    """Run a stream of this batch: encoder, then connector. Runs once a step and view.

    `audio` is the stream's end; `audio.encoder` what its encoder gives, before the connector;
    `audio.teacher` what the average of that encoder gives (`Task.averages`), without a graph.
    With the option `window` (a `Window`) signals too long to be encoded at once are encoded in
    pieces, where the encoder says that its signals can be cut (`along`).
    """

    def __call__(self, stream: str, view: str = "main", **options: Any) -> Features: ...


@dataclass
class Batch:
    """Rows of one task on their way through the model.

    streams: the encoders' keyword arguments, by stream and view; in groups of equal shapes where
    padding would change features. features: what a frozen encoder gave, by stream, where it came
    from the cache. targets: what the task's
    `targets` gave, a row each. keys: the rows' names, for errors.
    """

    task: str
    targets: list[dict[str, Any]]
    keys: list[str]
    streams: dict[str, dict[str, EncoderInputs]] = field(default_factory=dict)
    features: dict[str, Features] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Self:
        """The same batch, its tensors on a device."""

        def move(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: move(inner) for key, inner in value.items()}
            return value.to(device, non_blocking=True)

        return replace(self, streams=move(self.streams), features=move(self.features))


class Halt(RuntimeError):
    """What a task saw makes it useless to go on: what was found, what was expected, what to do."""


Embed = Callable[[str, Sequence[Any]], Tensor]
"""(stream, raw values) -> their vectors `[values, D]`, of unit length."""


class Metrics(Protocol):
    """An accumulator: fed batch by batch, read once."""

    def update(self, predictions: Sequence[Any], targets: Sequence[Mapping[str, Any]]) -> None: ...

    def compute(self) -> dict[str, float]: ...


class Task(nn.Module):
    """streams: the names of the streams it uses, in order. needs: what it asks of a stream's
    encoder beyond a forward (`layers`, `token_mask`, `layer_hooks`). layers: hidden layers it wants
    of each stream. head_names: sections of the recipe's task that are heads; they are built by
    the engine and stand in `heads`; head_types: their type where a recipe names none, `linear`
    if not said. dim: the width its streams must end in, where the task says so. uses_backbone:
    True where the task needs the shared decoder. in_full: options of `predict` for what is
    written at evaluation and looked at (times of words). aside: streams that the decoder does
    not read, so that they may end in any width. fixed: streams that must not train (a teacher);
    one that does is refused. follows: streams that end in the width of another one.
    answers: streams that hold what is to be said (a mask): the
    loss and the scores read them, a prediction does without. averages: streams of whose encoder
    a moving average is kept (a teacher); it begins as the encoder does, follows it after each
    step by `momentum`, never trains, and is saved. varies_views: True where `augment` varies each
    view by itself, not the sample before. gathers: True where the loss looks at other processes'
    rows: it is then asked of every process, of one whose rows were all unreadable with an empty
    batch.

    What must resume (a teacher, centres) is a buffer or a submodule.
    """

    streams: tuple[str, ...] = ()
    needs: Mapping[str, frozenset[str]] = {}
    layers: Mapping[str, tuple[int, ...]] = {}
    head_names: ClassVar[tuple[str, ...]] = ()
    head_types: ClassVar[Mapping[str, str]] = {}
    dim: int | None = None
    uses_backbone: bool = False
    in_full: Mapping[str, Any] = {}
    aside: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    follows: Mapping[str, str] = {}
    answers: tuple[str, ...] = ()
    averages: tuple[str, ...] = ()
    varies_views: bool = False
    gathers: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()

    def width(self, stream: str) -> int | None:
        """The width that one of its streams must end in; None where any will do."""
        return self.dim

    def head_widths(self) -> dict[str, tuple[str, int]]:
        """Of each of `head_names`, once fitted: the stream it reads (`audio`, or `audio.encoder`
        for what stands before the connector) and its `out_dim`."""
        return {}

    def new_tokens(self) -> int:
        """How many ids it wants after those of the decoder, once fitted."""
        return 0

    def attach(self, backbone: Backbone | None, first: int | None) -> None:
        """Meet the decoder, before any weight is loaded: build what needs its width. `first`: the
        first of the ids asked for. Called again where the plan is composed again."""

    def loaded(self) -> None:
        """Called when its tensors came from a run; ValueError where they belong to another
        decoder or vocabulary than the one it met."""

    def measure(self, widths: Mapping[str, int]) -> None:
        """Build what needs the widths of its streams: of each its end (`audio`) and its encoder's
        (`audio.encoder`). Called before weights are loaded, and again where composed again."""

    def columns(self) -> tuple[str, ...]:
        """The columns that `targets` reads; a data set without one of them is refused."""
        return ()

    def targets(self, row: Row) -> dict[str, Any]:
        """What a row of the data adds to the batch, beside its streams."""
        return {}

    def corpus(self, row: Row) -> Iterable[str]:
        """The texts of a row that a tokenizer should be fitted on."""
        return ()

    def material(self, part: str, row: Row) -> Iterable[Any]:
        """What of a row one of its fitted parts is fitted on; the row itself, if not said."""
        return (row,)

    def views(self, stream: str, sample: Sample, rng: np.random.Generator) -> dict[str, Sample]:
        """Views of one sample (crops, say); they are collated and encoded apart."""
        return {"main": sample}

    def varies(self, stream: str) -> bool:
        """True where `views` gives other samples than the one it is given: no store can then hold
        what the encoder makes of it."""
        return type(self).views is not Task.views

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        raise NotImplementedError

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[Any]:
        """One JSON value a row."""
        raise NotImplementedError

    def metrics(self) -> Metrics:
        raise NotImplementedError

    def extra_metrics(
        self, predictions: Sequence[Any], targets: Sequence[Mapping[str, Any]], embed: Embed
    ) -> dict[str, float]:
        """Further metrics of a split that ask more of the model than its rows' predictions."""
        return {}

    def maps(self, prediction: Any) -> Mapping[str, tuple[Tensor, Tensor]]:
        """What of a prediction is a map, by name: its values on a grid, and the matrix from there
        to the world of its first stream; `generate --out folder` writes each as a file."""
        return {}

    def written(
        self,
        predictions: Sequence[Any],
        targets: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> Sequence[Any]:
        """What of a split's predictions is written beside its metrics, a JSON value a row."""
        return predictions

    def after_step(self, step: int) -> None:
        """Called after each optimizer step (schedules); may raise `Halt`."""

    def momentum(self, done: float) -> float:
        """Called after each optimizer step, where there are `averages`: the share of them that
        stays. done: the share of the training that lies behind, 0 to 1."""
        raise NotImplementedError

    def example(self) -> list[dict[str, Any]]:
        """A few rows with the columns of `columns()`: for the dry run, the docs and the tests."""
        raise NotImplementedError
