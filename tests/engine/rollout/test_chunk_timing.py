"""A policy that knows the demonstration executes it: each action in its order, at its own step.

The model is composed from a recipe, and its decoder form is made to predict the tokens of the
demonstrated chunk; windows, tokenizers, starts, history, chunks and ensembles are the real ones.
The environment only counts its steps, in an observation that is always the same array.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sensorium.engine.data import load_split
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.rollout import rollout
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Source
from sensorium.tasks.control import distillation, regression
from sensorium.tasks.control.control import ACTION_DECODERS
from sensorium.tasks.control.decoders import Chunk

FRAMES, SEEN = 24, 16
"""Frames of a demonstration, and steps of it that the environment asks for."""


def demonstrated(frame: np.ndarray) -> np.ndarray:
    """`[..., 2]` a ramp, which a shift of one frame moves by 1, and a gripper that closes."""
    return np.stack([10.0 + frame, np.where(frame < 7, -1.0, 1.0)], -1).astype(np.float32)


class Ramps(Source):
    """Episodes of one demonstration; the state is the number of the frame."""

    columns = ("state", "action", "previous_action")

    def __init__(self, *, count: int = 3) -> None:
        self.count = count

    @property
    def episodes(self) -> list[range]:
        return [range(i * FRAMES, (i + 1) * FRAMES) for i in range(self.count)]

    def __len__(self) -> int:
        return self.count * FRAMES

    def __getitem__(self, index: int) -> dict[str, Any]:
        frame = index % FRAMES
        before = demonstrated(np.array(max(0, frame - 1)))
        action = demonstrated(np.array(frame))
        return {"state": np.array([frame], np.float32), "action": action, "previous_action": before}

    def fingerprint(self) -> str:
        return f"ramps {self.count}"


class Counter(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes the number of its steps, in one array that it writes again at each."""

    observation_space = spaces.Box(-1, 999, (1,), np.float32)
    action_space = spaces.Box(-999, 999, (2,), np.float32)
    executed: ClassVar[dict[int, list[np.ndarray]]] = {}

    def __init__(self) -> None:
        self.state = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state[:] = 0
        self.actions = self.executed[seed or 0] = []
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action.copy())
        self.state += 1
        action[:] = np.nan  # what an environment does with its argument is its own affair
        return self.state, 0.0, False, len(self.actions) == SEEN, {"success": True}


gymnasium.register("FrameCounter-v0", entry_point=Counter)

SPLINE = {"type": "bspline", "num_basis": 6, "degree": 3, "vocab": 1024, "grippers": [-1]}
WHOLE = {"vocab": 512, "quantiles": [0.0, 1.0]}
BINS, FAST = {"type": "bins", **WHOLE}, {"type": "fast", "scale": 50.0, **WHOLE}
TASKS: dict[str, dict[str, Any]] = {
    "parallel": {"action_decoder": "parallel", "tokenizer": SPLINE},
    "fourier": {"action_decoder": "fourier", "frequencies": 4, "tokenizer": SPLINE},
    "continuous": {"action_decoder": "continuous", "tokenizer": SPLINE},
    "vae": {"action_decoder": "continuous", "latent": 2, "tokenizer": SPLINE},
    "bins": {"action_decoder": "autoregressive", "tokenizer": BINS},
    "fast": {"action_decoder": "autoregressive", "tokenizer": FAST},
    "spelled": {"action_decoder": "autoregressive", "tokenizer": SPLINE},
    "regression": {"type": "action_regression", "tokenizer": SPLINE},
    "distillation": {"type": "distill_actions", "expert": "expert", "tokenizer": SPLINE},
}
PINNED = [name for name, task in TASKS.items() if task["tokenizer"] is SPLINE]
WINDOWS = [(0, 9), (-1, 8), (-3, 7)]
CASES = [
    *itertools.product(TASKS, WINDOWS, [0]),
    *((name, (-1, 8), 1) for name in PINNED),
]
EXECUTIONS: list[dict[str, Any]] = [
    *({"n_action_steps": n} for n in (None, 1, 3, 7)),
    *(
        {"temporal_ensemble_coeff": m, "n_action_steps": n}
        for m in (0.0, 0.1, 5.0)
        for n in (None, 2)
    ),
]


def recipe(
    task: Mapping[str, Any], window: tuple[int, int], start_order: int = 0
) -> dict[str, Any]:
    section = {"type": "control", "prompt": "<state>", **task}
    tokenizer = section["tokenizer"]
    if tokenizer["type"] == "bspline":
        section["tokenizer"] = {**tokenizer, "start_order": start_order}
    state = {"modality": "action", "encoder": {"type": "state", "dim": 8}, "connector": "linear"}
    inputs: dict[str, Any] = {"state": state}
    windows = {"action": list(window), "state": [-1, 0]}
    train = {"source": f"{__name__}:Ramps", "delta_frames": windows}
    if section["type"] == "action_regression":
        del section["prompt"]
        section["input"] = "state"
        state["connector"] = "mean"
    if section["type"] == "distill_actions":
        encoder = {**state["encoder"], "freeze": True}
        inputs["expert"] = {"modality": "action", "encoder": encoder}
        train["columns"] = {"expert": "state"}
    options = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    backbone = {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"}
    return {
        "inputs": inputs,
        **({"backbone": {**backbone, "options": options | heads}} if "prompt" in section else {}),
        "tasks": {"act": {**section, "data": {"train": train}}},
        "train": {"steps": 1, "batch_size": 4},
        "env": {"name": "FrameCounter-v0", "max_steps": FRAMES, "clip": False},
    }


class Oracle(Pipeline):
    """A pipeline whose model predicts the tokens of the demonstrated chunk of the frames that it
    is asked about, and of the true action before it."""

    def __init__(self, plan: Any, patch: pytest.MonkeyPatch) -> None:
        super().__init__(compose(plan))
        self.task: Any = self.model.task("act")
        windows = plan.recipe.tasks["act"].data["train"].delta_frames
        self.offsets = np.arange(windows["action"][0], windows["action"][1] + 1)
        self.frames: list[int] = []
        if hasattr(self.task, "action_decoder"):
            patch.setattr(self.task.action_decoder, "generate", lambda *_: self.tokens())
        for module in (regression, distillation):
            patch.setattr(module, "head_output", lambda *_: self.tokens())

    def generate(self, task: str, inputs: Any = None, /, **options: Any) -> Any:
        states = inputs["state"] if isinstance(inputs["state"], list) else [inputs["state"]]
        self.frames = [round(float(np.asarray(state).reshape(-1)[-1])) for state in states]
        return super().generate(task, inputs, **options)

    def tokens(self) -> Any:
        frames = np.array(self.frames)[:, None] + self.offsets
        inside = np.clip(frames, 0, FRAMES - 1)
        actions = torch.from_numpy(demonstrated(inside))
        start = actions[:, 0] if self.task.tokenizer.fixed_start else None
        chunk = Chunk(actions, torch.from_numpy(frames != inside), start)
        if getattr(getattr(self.task, "action_decoder", None), "discrete", False):
            return self.task.tokenizer.encode(actions, padding=chunk.padding, start=start)
        return self.task.encode(chunk)


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        context.setitem(sys.modules, __name__, sys.modules[__name__])
        yield context


def test_every_form_is_in_the_table() -> None:
    assert {task["action_decoder"] for task in TASKS.values() if "action_decoder" in task} == set(
        ACTION_DECODERS
    )


@pytest.mark.quick_share(4)
@pytest.mark.filterwarnings("ignore:.*share an object:UserWarning")  # that is its purpose
@pytest.mark.parametrize(
    ("name", "window", "start_order"),
    CASES,
    ids=str,
)
def test_the_demonstration_is_executed_as_it_was_recorded(
    name: str, window: tuple[int, int], start_order: int, patch: pytest.MonkeyPatch
) -> None:
    """Whatever frame a chunk begins at, however much of it is executed, and with an ensemble."""
    plan = resolve_and_fit(parse_recipe(recipe(TASKS[name], window, start_order)))
    oracle, section = Oracle(plan, patch), plan.recipe.env
    expected = demonstrated(np.arange(SEEN))
    for execution in EXECUTIONS:
        Counter.executed.clear()
        rollout(oracle, section.model_copy(update=execution), seeds=range(2))
        assert list(Counter.executed) == [0, 1]
        for actions in Counter.executed.values():
            assert len(actions) == SEEN
            # A shift of one frame is 1 away.
            np.testing.assert_allclose(actions, expected, atol=0.3)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("name", "window", "start_order"), CASES, ids=str)
def test_act_begins_with_the_action_of_now(
    name: str, window: tuple[int, int], start_order: int, patch: pytest.MonkeyPatch
) -> None:
    plan = resolve_and_fit(parse_recipe(recipe(TASKS[name], window, start_order)))
    oracle = Oracle(plan, patch)
    for frame in (0, 1, 5):
        inputs: dict[str, Any] = {"state": np.array([float(frame)])}
        if start_order:
            inputs["previous_action"] = demonstrated(np.array(frame - 1)) if frame else None
        actions = oracle.act("act", **inputs)
        assert actions.shape == (window[1] + 1, 2)
        frames = np.arange(frame, frame + window[1] + 1)
        np.testing.assert_allclose(actions[:, 0], demonstrated(frames)[:, 0], atol=0.3)
    several = oracle.act("act", {key: [value, value] for key, value in inputs.items()})
    np.testing.assert_allclose(several, [actions, actions], atol=1e-4)


def test_chunks_that_mean_nothing_are_counted(patch: pytest.MonkeyPatch) -> None:
    """The mean action is executed in their place, which nobody would see."""
    plan = resolve_and_fit(parse_recipe(recipe(TASKS["fast"], (0, 9))))
    oracle = Oracle(plan, patch)
    patch.setattr(oracle, "tokens", lambda: [torch.zeros(1, dtype=torch.long)] * 2)
    figures = rollout(oracle, plan.recipe.env, seeds=range(2))["FrameCounter-v0"]
    assert figures["undecodable_chunks"] == 2 * figures["model_calls"] > 0


@pytest.mark.parametrize(
    ("window", "start_order", "line"),
    [
        ((0, 9), 1, r"delta_frames\.action: found \[0, 9\], expected \[-1, 9\]: .*start_order: 1"),
        ((-3, 6), 1, r"delta_frames\.action: found \[-3, 6\], expected \[-1, 6\]"),
        ((1, 9), 0, r"delta_frames\.action: found \[1, 9\], in which the frame 0 is missing"),
        ((-9, -1), 0, r"delta_frames\.action: found \[-9, -1\], in which the frame 0 .*\[-9, 0\]"),
    ],
)
def test_a_chunk_that_cannot_be_executed_from_now_is_refused(
    window: tuple[int, int], start_order: int, line: str
) -> None:
    recipes = parse_recipe(recipe(TASKS["parallel"], window, start_order))
    with pytest.raises(ConfigError, match=rf"tasks\.act\.data\.train\.{line}") as error:
        check(recipes)
    assert "\n" not in str(error.value)


PREVIOUS = [  # column that stands for the action executed last, its window, whether it is right
    ("previous_action", None, True),
    ("previous_action", [0, 0], True),
    ("action_before", [-1, -1], True),
    ("action_before", [-4, -1], True),
    ("action_before", None, False),
    ("action_before", [0, 0], False),
    ("action_before", [-1, 1], False),
]


@pytest.mark.parametrize(("column", "window", "right"), PREVIOUS)
def test_the_action_executed_last_may_have_a_window_of_its_own(
    column: str, window: list[int] | None, right: bool
) -> None:
    """Its last frame is what a chunk begins at; the action that is to be predicted is refused."""
    content = recipe(TASKS["parallel"], (-1, 8), 1)
    data = content["tasks"]["act"]["data"]["train"]
    if column != "previous_action":  # the column of actions under another name
        data["columns"] = {**data.get("columns", {}), "previous_action": "action"}
    if window is not None:
        data["delta_frames"]["previous_action"] = window
    if not right:
        with pytest.raises((ConfigError, ValueError), match=r"previous_action.*\[-\d, -1\]"):
            plan = resolve_and_fit(parse_recipe(content))
            rows = load_split(plan, "act", "train")
            plan.tasks["act"].task.prepare(rows[5], plan.tools, None)
        return
    plan = resolve_and_fit(parse_recipe(content))
    rows, task = load_split(plan, "act", "train"), plan.tasks["act"].task
    for index in (0, 1, 7, FRAMES):
        labels = task.prepare(rows[index], plan.tools, None).labels
        np.testing.assert_allclose(labels["start"], labels["actions"][0], atol=1e-5)


def test_splits_with_other_windows_are_refused() -> None:
    """Their chunks have one shape and begin at other frames."""
    content = recipe(TASKS["parallel"], (0, 9))
    data = content["tasks"]["act"]["data"]
    data["test"] = {
        **data["train"],
        "delta_frames": {**data["train"]["delta_frames"], "action": [-1, 8]},
    }
    with pytest.raises(
        ConfigError, match=r"data\.test\.delta_frames\.action: found \[-1, 8\], the trai"
    ):
        check(parse_recipe(content))


def test_check_reads_what_env_says_of_chunks() -> None:
    content = recipe(TASKS["parallel"], (-3, 6))
    content["env"]["n_action_steps"] = 8
    with pytest.raises(ConfigError, match=r"env\.n_action_steps: found 8, and a chunk has 7 steps"):
        check(parse_recipe(content))
    content["env"]["n_action_steps"] = 7
    check(parse_recipe(content))
