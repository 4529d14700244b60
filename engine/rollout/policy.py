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

LAST = "previous_action"
"""What rows call the action executed last; None at first."""


class EpisodeState:
    """One environment's part: its history, its chunks and the steps at which they were made."""

    def __init__(self, name: str, texts: Row, spans: Mapping[str, Span]) -> None:
        self.name, self.texts = name, dict(texts)
        self.history = History(spans)
        self.chunks: list[tuple[int, np.ndarray]] = []
        self.step = 0
        self.last: np.ndarray | None = None

    def needs_chunk(self, n_action_steps: int | None) -> bool:
        """Whether the newest chunk is used up, as far as it is to be executed."""
        if not self.chunks:
            return True
        made, chunk = self.chunks[-1]
        return self.step - made >= (n_action_steps or len(chunk))

    def action(self, ensemble: float | None) -> np.ndarray:
        """`[dof]` what the chunks say of this step; the newest alone without an ensemble."""
        live = [(made, c) for made, c in self.chunks if self.step - made < len(c)]
        self.chunks = live if ensemble is not None else live[-1:]
        said = np.stack([chunk[self.step - made] for made, chunk in self.chunks])
        weights = np.exp(-(ensemble or 0.0) * np.arange(len(said)))
        return np.asarray(weights @ said / weights.sum(), np.float32)


class Policy:
    """A model as a policy.

    ask: rows of streams and texts -> chunks. observation_keys: stream -> key or keys of an
    observation. spans: stream -> frames of its window. bounds: low and high `[dof]`; actions are
    clipped to them. n_action_steps, temporal_ensemble_coeff: see `Env`.

    calls: number of calls of the model; seconds: their time.
    """

    def __init__(
        self,
        ask: PredictChunks,
        observation_keys: Mapping[str, Keys],
        *,
        spans: Mapping[str, Span] | None = None,
        n_action_steps: int | None = None,
        temporal_ensemble_coeff: float | None = None,
        bounds: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.ask, self.spans = ask, dict(spans or {})
        self.observation_keys: Mapping[str, Any] = dict(observation_keys)
        self.n_action_steps = n_action_steps
        if n_action_steps is None and temporal_ensemble_coeff is not None:
            self.n_action_steps = 1
        self.temporal_ensemble_coeff, self.bounds = temporal_ensemble_coeff, bounds
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
            seat.history.see(
                {s: _value(seen, k, s, seat) for s, k in self.observation_keys.items()}
            )
        self._predict([seat for seat in seats if seat.needs_chunk(self.n_action_steps)])
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
            if self.n_action_steps is not None and len(chunk) < self.n_action_steps:
                raise ConfigError(
                    f"env.n_action_steps: found {self.n_action_steps}, and a chunk has "
                    f"{len(chunk)} steps; say {len(chunk)} or fewer"
                )
            seat.chunks.append((seat.step, np.asarray(chunk, np.float32)))

    def _act(self, seat: EpisodeState) -> np.ndarray:
        action = seat.action(self.temporal_ensemble_coeff)
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
                f"{stream} reads it, env.observation_keys maps another"
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
    for stream in section.observation_keys:
        if stream not in task.streams:
            raise ConfigError(
                f"env.observation_keys.{stream}: the task {name} has no such stream"
                f"{did_you_mean(stream, task.streams)}"
            )
    where = f"tasks.{name}.data"

    begins = task.tokenizer.fixed_start
    rest = np.zeros(task.chunk.dof, np.float32)  # nothing was executed yet

    def ask(rows: list[dict[str, Any]]) -> list[np.ndarray]:
        wanted: dict[str, Any] = {k: [row[k] for row in rows] for k in rows[0] if k in known}
        if begins:
            last = [row[LAST] for row in rows]
            wanted[task.previous_action] = [rest if value is None else value for value in last]
        made = pipeline.generate(name, **wanted)
        return [np.asarray(chunk["actions"], np.float32)[begins:] for chunk in made]

    known = {*task.streams, *task.columns()}
    return Policy(
        ask,
        {stream: section.observation_keys.get(stream, stream) for stream in task.streams},
        spans=observation_windows(plan.recipe.tasks[name], task.streams, where),
        n_action_steps=section.n_action_steps,
        temporal_ensemble_coeff=section.temporal_ensemble_coeff,
        bounds=bounds if section.clip else None,
    )
