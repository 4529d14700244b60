"""A model and a control task as `reset()` and `step(observation) -> action`, for one robot or many.

It owns what an episode needs beside the model: the history that the task's windows look back at,
the chunks that were predicted and not yet executed, the last action. Temporal ensembling is that
of ACT (Zhao et al. 2023, algorithm 2): all chunks that speak of a step, weighted by
`exp(-m * i)`, the oldest with i = 0.

Legend: `dof` numbers of an action, `steps` of a chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...modalities.messages import did_you_mean
from ..data import Span, observation_windows
from ..inference import Pipeline, find_control_task
from ..recipe import Env
from ..utils import ConfigError, RuntimeFailure
from .observation_history import History

Row = Mapping[str, Any]
PredictChunks = Callable[[list[dict[str, Any]]], Sequence[np.ndarray]]
"""Rows -> a chunk `[steps, dof]` each."""

Keys = str | Sequence[str]

LAST = "last_action"
"""What rows call the action executed last; None at first."""


class EpisodeState:
    """One environment's part: its history, its chunks and the steps at which they were made."""

    def __init__(self, name: str, texts: Row, spans: Mapping[str, Span]) -> None:
        self.name, self.texts = name, dict(texts)
        self.history = History(spans)
        self.chunks: list[tuple[int, np.ndarray]] = []
        self.step = 0
        self.last: np.ndarray | None = None

    def hungry(self, execute: int | None) -> bool:
        """Whether the newest chunk is used up, as far as it is to be executed."""
        if not self.chunks:
            return True
        made, chunk = self.chunks[-1]
        return self.step - made >= (execute or len(chunk))

    def action(self, ensemble: float | None) -> np.ndarray:
        """`[dof]` what the chunks say of this step; the newest alone without an ensemble."""
        live = [(made, c) for made, c in self.chunks if self.step - made < len(c)]
        self.chunks = live if ensemble is not None else live[-1:]
        said = np.stack([chunk[self.step - made] for made, chunk in self.chunks])
        weights = np.exp(-(ensemble or 0.0) * np.arange(len(said)))
        return np.asarray(weights @ said / weights.sum(), np.float32)


class Policy:
    """ask: rows of streams and texts -> chunks. observe: stream -> key or keys of an observation.
    spans: stream -> frames of its window. bounds: low and high `[dof]`; actions are clipped to
    them. execute, ensemble: see `Env`.

    calls: how often the model was asked; seconds: how long that took.
    """

    def __init__(
        self,
        ask: PredictChunks,
        observe: Mapping[str, Keys],
        *,
        spans: Mapping[str, Span] | None = None,
        execute: int | None = None,
        ensemble: float | None = None,
        bounds: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.ask, self.spans = ask, dict(spans or {})
        self.observe: Mapping[str, Any] = dict(observe)
        self.execute = 1 if execute is None and ensemble is not None else execute
        self.ensemble, self.bounds = ensemble, bounds
        self.calls, self.seconds = 0, 0.0
        self._seats: list[EpisodeState] = []
        self.reset()

    def reset(self, texts: Sequence[Row] = ({},), names: Sequence[str] = ()) -> None:
        """Begin an episode in each environment. texts: further columns of each one's rows (the
        instruction); names: of the environments, for errors."""
        called = [*names, *(f"environment {i}" for i in range(len(names), len(texts)))]
        self._seats = [EpisodeState(n, t, self.spans) for n, t in zip(called, texts, strict=True)]

    def step(self, observations: Row | Sequence[Row], who: Sequence[int] | None = None) -> Any:
        """The next action `[dof]` for an observation, or `[n, dof]` for several at once.

        who: the environments that they come from, where some have ended. Raises RunError where
        an observation lacks a stream, or a value or an action is not finite: nothing is sent.
        """
        if isinstance(observations, Mapping):
            return self.step([observations], [0])[0]
        places = range(len(self._seats)) if who is None else who
        seats = [self._seats[place] for place in places]
        for seat, seen in zip(seats, observations, strict=True):
            seat.history.see({s: _value(seen, k, s, seat) for s, k in self.observe.items()})
        self._predict([seat for seat in seats if seat.hungry(self.execute)])
        return np.stack([self._act(seat) for seat in seats])

    def _predict(self, seats: Sequence[EpisodeState]) -> None:
        if not seats:
            return
        began = time.perf_counter()
        rows = [{**s.texts, **s.history.row(), LAST: s.last} for s in seats]
        chunks = self.ask(rows)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        for seat, chunk in zip(seats, chunks, strict=True):
            if self.execute is not None and len(chunk) < self.execute:
                raise ConfigError(
                    f"env.execute: found {self.execute}, and a chunk has {len(chunk)} steps; "
                    f"say {len(chunk)} or fewer"
                )
            seat.chunks.append((seat.step, np.asarray(chunk, np.float32)))

    def _act(self, seat: EpisodeState) -> np.ndarray:
        action = seat.action(self.ensemble)
        if not np.isfinite(action).all():
            joint = int(np.argmin(np.isfinite(action)))
            raise RuntimeFailure(
                f"{seat.name}, step {seat.step}: the model gives {action[joint]} for number "
                f"{joint} of the action; nothing was sent to the robot"
            )
        if self.bounds is not None:
            action = np.clip(action, *self.bounds)
        seat.step += 1
        seat.last = action
        return action


def _value(seen: Row, keys: Keys, stream: str, seat: EpisodeState) -> Any:
    """The value of a stream in an observation; several keys are joined."""
    names = [keys] if isinstance(keys, str) else list(keys)
    where = f"{seat.name}, step {seat.step}"
    for name in names:
        if seen.get(name) is None:
            there = [key for key, value in seen.items() if value is not None]
            raise RuntimeFailure(
                f"{where}: the observation has no {name!r}{did_you_mean(name, there)}; the stream "
                f"{stream} reads it, env.observe maps another"
            )
        values = np.asarray(seen[name])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise RuntimeFailure(
                f"{where}: {name} holds a value that is not finite; the robot stands"
            )
    if len(names) == 1:
        return seen[names[0]]
    return np.concatenate([np.atleast_1d(np.asarray(seen[n], np.float32)) for n in names])


def make_policy(
    pipeline: Pipeline, section: Env, bounds: tuple[np.ndarray, np.ndarray] | None = None
) -> Policy:
    """A loaded model as a policy, as `env:` says."""
    plan = pipeline.model.plan
    name, task = find_control_task(plan, section.task, "env.task")
    for stream in section.observe:
        if stream not in task.streams:
            raise ConfigError(
                f"env.observe.{stream}: the task {name} has no such stream"
                f"{did_you_mean(stream, task.streams)}"
            )
    where = f"tasks.{name}.data"

    begins = task.tokenizer.pins_start
    rest = np.zeros(task.chunk.dof, np.float32)  # nothing was executed yet

    def ask(rows: list[dict[str, Any]]) -> list[np.ndarray]:
        wanted: dict[str, Any] = {k: [row[k] for row in rows] for k in rows[0] if k in known}
        if begins:
            last = [row[LAST] for row in rows]
            wanted[task.last_action] = [rest if value is None else value for value in last]
        made = pipeline.generate(name, **wanted)
        return [np.asarray(chunk["actions"], np.float32)[begins:] for chunk in made]

    known = {*task.streams, *task.columns()}
    return Policy(
        ask,
        {stream: section.observe.get(stream, stream) for stream in task.streams},
        spans=observation_windows(plan.recipe.tasks[name], task.streams, where),
        execute=section.execute,
        ensemble=section.ensemble,
        bounds=bounds if section.clip else None,
    )
