"""A model and a control task as `reset()` and `step(observation) -> action`, for one robot or many.

It holds the state of an episode: the history that the task's windows look back at,
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
from ..data import Span, observation_windows, split_windows
from ..inference import ControlTask, Pipeline, find_control_task
from ..recipe import Env, ResolvedRecipe
from ..utils import ConfigError, RuntimeFailure, located_errors
from .observation_history import History

Row = Mapping[str, Any]
PredictChunks = Callable[[list[dict[str, Any]]], Sequence[np.ndarray]]
"""Rows -> a chunk `[steps, dof]` each."""

Keys = str | Sequence[str]


class EpisodeState:
    """One environment's part: its history, its chunks and the steps at which they were made, and
    the action executed last."""

    def __init__(
        self, name: str, texts: Row, spans: Mapping[str, Span], initial_action: np.ndarray | None
    ) -> None:
        self.name, self.texts = name, dict(texts)
        self.history = History(spans)
        self.chunks: list[tuple[int, np.ndarray]] = []
        self.step = 0
        self.previous_action = initial_action

    def needs_chunk(self, n_action_steps: int | None) -> bool:
        """Return whether the newest chunk is used up, up to the last step to execute."""
        if not self.chunks:
            return True
        start, chunk = self.chunks[-1]
        return self.step - start >= (n_action_steps or len(chunk))

    def action(self, ensemble: float | None) -> np.ndarray:
        """Return the action `[dof]` of this step by the chunks; the newest alone without an
        ensemble."""
        live = [(start, c) for start, c in self.chunks if self.step - start < len(c)]
        self.chunks = live if ensemble is not None else live[-1:]
        actions = np.stack([chunk[self.step - first_step] for first_step, chunk in self.chunks])
        weights = np.exp(-(ensemble or 0.0) * np.arange(len(actions)))
        return np.asarray(weights @ actions / weights.sum(), np.float32)


class Policy:
    """A model as a policy.

    ask: rows of streams and texts -> chunks, whose first sample is the action to execute now.
    observation_keys: stream -> key or keys of an observation. spans: stream -> frames of its
    window. bounds: low and high `[dof]`; actions are clipped to them. n_action_steps,
    temporal_ensemble_coeff: see `Env`. previous_action: the column of rows that holds the action
    executed last, if the model reads it; `initial_action`, `[dof]` or the key of the observation
    that holds it, is used before the first.

    calls: number of calls of the model; seconds: their time. undecodable: chunks whose tokens had
    no meaning, in place of which the mean action is executed.
    """

    def __init__(
        self,
        predict: PredictChunks,
        observation_keys: Mapping[str, Keys],
        *,
        spans: Mapping[str, Span] | None = None,
        n_action_steps: int | None = None,
        temporal_ensemble_coeff: float | None = None,
        bounds: tuple[np.ndarray, np.ndarray] | None = None,
        previous_action: str | None = None,
        initial_action: np.ndarray | str | None = None,
    ) -> None:
        self.predict, self.spans = predict, dict(spans or {})
        self.previous_action, self.initial_action = previous_action, initial_action
        self.observation_keys: Mapping[str, Any] = dict(observation_keys)
        self.n_action_steps = n_action_steps
        if n_action_steps is None and temporal_ensemble_coeff is not None:
            self.n_action_steps = 1
        self.temporal_ensemble_coeff, self.bounds = temporal_ensemble_coeff, bounds
        self.calls, self.seconds, self.undecodable = 0, 0.0, 0
        self._states: list[EpisodeState] = []
        self.reset()

    def reset(self, texts: Sequence[Row] = ({},), names: Sequence[str] = ()) -> None:
        """Begin an episode in each environment. texts: further columns of each one's rows (the
        instruction); names: of the environments, for errors."""
        labels = [*names, *(f"environment {i}" for i in range(len(names), len(texts)))]
        first = None if isinstance(self.initial_action, str) else self.initial_action
        self._states = [
            EpisodeState(label, text, self.spans, first)
            for label, text in zip(labels, texts, strict=True)
        ]

    def step(self, observations: Row | Sequence[Row], indices: Sequence[int] | None = None) -> Any:
        """Return the next action `[dof]` for an observation, or `[n, dof]` for several at once.

        indices: the environments that they come from, if some have ended. Raise RuntimeFailure
        where an observation lacks a stream, or a value or an action is not finite: nothing is sent.
        """
        if isinstance(observations, Mapping):
            return self.step([observations], [0])[0]
        slots = range(len(self._states)) if indices is None else indices
        states = [self._states[slot] for slot in slots]
        for state, observation in zip(states, observations, strict=True):
            keys = self.observation_keys.items()
            state.history.append(
                {stream: _value(observation, k, stream, state) for stream, k in keys}
            )
            if isinstance(self.initial_action, str) and not state.step:
                value = _value(observation, self.initial_action, "env.initial_action", state)
                state.previous_action = np.array(value, np.float32)
        self._predict([state for state in states if state.needs_chunk(self.n_action_steps)])
        return np.stack([self._act(state) for state in states])

    def _predict(self, states: Sequence[EpisodeState]) -> None:
        if not states:
            return
        start = time.perf_counter()
        rows = [{**state.texts, **self._last(state), **state.history.row()} for state in states]
        chunks = self.predict(rows)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        for state, chunk in zip(states, chunks, strict=True):
            if self.n_action_steps is not None and len(chunk) < self.n_action_steps:
                raise _too_many_steps(self.n_action_steps, len(chunk))
            state.chunks.append((state.step, np.asarray(chunk, np.float32)))

    def _last(self, state: EpisodeState) -> dict[str, Any]:
        return {} if self.previous_action is None else {self.previous_action: state.previous_action}

    def _act(self, state: EpisodeState) -> np.ndarray:
        action = state.action(self.temporal_ensemble_coeff)
        if not np.isfinite(action).all():
            joint = int(np.argmin(np.isfinite(action)))
            raise RuntimeFailure(
                f"{state.name}, step {state.step}: the model returns {action[joint]} for number "
                f"{joint} of the action; nothing was sent to the robot"
            )
        if self.bounds is not None:
            action = np.clip(action, *self.bounds)
        state.step += 1
        state.previous_action = action.copy()  # the caller may write into the result
        return action


def _value(observation: Row, keys: Keys, reader: str, state: EpisodeState) -> Any:
    """Return the value of a stream in an observation; several keys are joined."""
    names = [keys] if isinstance(keys, str) else list(keys)
    where = f"{state.name}, step {state.step}"
    for name in names:
        if observation.get(name) is None:
            available = [key for key, value in observation.items() if value is not None]
            raise RuntimeFailure(
                f"{where}: the observation has no {name!r}{did_you_mean(name, available)}; the "
                f"stream {reader} reads it, env.observation_keys maps another"
            )
        values = np.asarray(observation[name])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise RuntimeFailure(
                f"{where}: {name} holds a value that is not finite; the robot is not moved"
            )
    if len(names) == 1:
        return observation[names[0]]
    return np.concatenate([np.atleast_1d(np.asarray(observation[n], np.float32)) for n in names])


def make_policy(
    pipeline: Pipeline, section: Env, bounds: tuple[np.ndarray, np.ndarray] | None = None
) -> Policy:
    """Return a loaded model as a policy, configured by `env:`."""
    plan = pipeline.model.plan
    name, task = check_policy(plan, section)
    streams, pinned = task.inputs(), task.tokenizer.fixed_start
    start = task.execution_start(split_windows(plan.recipe.tasks[name]))
    columns = {*streams, *task.columns(), *((task.previous_action,) if pinned else ())}

    def predict(rows: list[dict[str, Any]]) -> list[np.ndarray]:
        inputs = {key: [row[key] for row in rows] for key in rows[0] if key in columns}
        predictions = pipeline.generate(name, inputs)
        policy.undecodable += sum(bool(row.get("undecodable")) for row in predictions)
        return [np.asarray(row["actions"], np.float32)[start:] for row in predictions]

    policy = Policy(
        predict,
        {stream: section.observation_keys.get(stream, stream) for stream in streams},
        spans=observation_windows(plan.recipe.tasks[name], streams, f"tasks.{name}.data"),
        n_action_steps=section.n_action_steps,
        temporal_ensemble_coeff=section.temporal_ensemble_coeff,
        bounds=bounds if section.clip else None,
        previous_action=task.previous_action if pinned else None,
        initial_action=_initial_action(task, section),
    )
    return policy


def check_env(plan: ResolvedRecipe) -> None:
    """Raise ConfigError if the recipe has an `env:` in which none of its tasks can act."""
    if plan.recipe.env is not None:
        check_policy(plan, plan.recipe.env)


def check_policy(plan: ResolvedRecipe, section: Env) -> tuple[str, ControlTask]:
    """Return the control task that acts, with its name.

    Raise ConfigError unless it can act under `env:`: it reads only past observations, and its
    chunks hold the actions from now on, for as many steps as are executed.
    """
    name, task = find_control_task(plan, section.task, "env.task")
    streams, where = task.inputs(), f"tasks.{name}.data"
    for stream in section.observation_keys:
        if stream not in streams:
            raise ConfigError(
                f"env.observation_keys.{stream}: the task {name} has no such stream"
                f"{did_you_mean(stream, streams)}"
            )
    observation_windows(plan.recipe.tasks[name], streams, where)
    with located_errors(f"{where}.train.delta_frames", (task.action, task.previous_action)):
        start = task.execution_start(split_windows(plan.recipe.tasks[name]))
    if section.n_action_steps is not None and section.n_action_steps > task.chunk.steps - start:
        raise _too_many_steps(section.n_action_steps, task.chunk.steps - start)
    _initial_action(task, section)
    return name, task


def _initial_action(task: ControlTask, section: Env) -> np.ndarray | str | None:
    """Return the action before an episode, or the key of the observation that holds it.

    Raise ConfigError if the tokenizer begins there and nothing is known of it.
    """
    if not task.tokenizer.fixed_start or task.previous_action in task.inputs():
        return None
    if isinstance(section.initial_action, str):
        return section.initial_action
    action = section.initial_action or task.chunk.first
    if len(action) != task.chunk.dof:
        raise ConfigError(
            f"env.initial_action: found {list(action) or 'nothing'}, expected {task.chunk.dof} "
            "numbers, or the key of the observation that holds them: the tokenizer begins at the "
            "action executed last, and no training row has the first action of an episode"
        )
    return np.asarray(action, np.float32)


def _too_many_steps(n_action_steps: int, steps: int) -> ConfigError:
    return ConfigError(
        f"env.n_action_steps: found {n_action_steps}, and a chunk has {steps} steps; use {steps} "
        "or fewer"
    )
