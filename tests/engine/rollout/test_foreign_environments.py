"""Environments are code of others: what they raise, what they draw, and what they write again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from sensorium.engine.recipe import Env
from sensorium.engine.rollout import RolloutOptions, rollout
from sensorium.engine.rollout.replay import OpenLoopReplay
from sensorium.engine.rollout.simulator import Simulator
from sensorium.engine.utils import ConfigError, RuntimeFailure

ERRORS = (
    ValueError("the arm reports: over-current"),
    KeyError("joint 3"),
    AssertionError(),
    ZeroDivisionError("division by zero"),
    gymnasium.error.ResetNeeded("call reset first"),
    RuntimeError("two\nlines"),
    OSError(5, "Input/output error"),
    type("VendorError", (Exception,), {})("no carrier"),
)


class Bare(gymnasium.Env[Any, np.ndarray]):
    """Knows no `render_mode`; its observation is one array. fails: where it raises `error`, in the
    episode of seed 2 at its second step."""

    observation_space = spaces.Dict({"state": spaces.Box(-99, 99, (3,), np.float64)})
    action_space = spaces.Box(-9, 9, (1,), np.float32)

    def __init__(
        self, fails: str = "", error: Exception | None = None, success: Any = True
    ) -> None:
        self.fails, self.error, self.success = fails, error, success
        self.observation = {"state": np.zeros(3)}
        self.canvas = np.zeros((8, 8, 3), np.uint8)
        self._fail("make", True)

    def _fail(self, where: str, now: bool) -> None:
        if where == self.fails and now and self.error is not None:
            raise self.error

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seed, self.steps = seed, 0
        self.observation["state"][:] = 0
        self._fail("reset", seed == 2)
        return self.observation, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._fail("step", self.seed == 2 and self.steps == 1)
        self.steps += 1
        self.observation["state"] += [1, self.steps, self.steps**2]
        info = {"success": self.success}
        return self.observation, 0.0, False, self.steps == 5, info

    def close(self) -> None:
        self._fail("close", True)


class Drawn(Bare):
    """Draws into one array, if it is asked to."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.render_mode = render_mode

    def render(self) -> np.ndarray | None:
        self._fail("render", self.seed == 2 and self.steps == 1)
        if self.render_mode is None:
            return None
        self.canvas[self.steps] = 255
        return self.canvas


class OldStep(Bare):
    """Steps as gym did, with four values."""

    def step(self, action: np.ndarray) -> Any:
        observation, reward, _, ended, info = super().step(action)
        return observation, reward, ended, info


for kind in (Bare, Drawn, OldStep):
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind, disable_env_checker=True)


@pytest.fixture(autouse=True)
def _policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a model's: the numbers 0, 0.1, 0.2, ..."""
    actions = np.arange(9, dtype=np.float32)[:, None] / 10
    module = import_module("sensorium.engine.rollout.rollout")
    monkeypatch.setattr(module, "make_checked_policy", lambda *_: OpenLoopReplay(actions))


class Loaded:
    """A pipeline of which only the mode is set."""

    class model:
        @staticmethod
        def eval() -> None: ...


def run(
    name: str, folder: Path | None = None, how: RolloutOptions | None = None, **section: Any
) -> Mapping[str, Any]:
    env = Env.model_validate({"name": name, **section})
    pipeline: Any = Loaded()
    how = how or RolloutOptions(num_envs=1)
    return rollout(pipeline, env, seeds=range(4), options=how, folder=folder)[name]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("reset", "Bare-v0, seed 2, step 0: "),
        ("step", "Bare-v0, seed 2, step 1: "),
        ("make", "env.name: Bare-v0 cannot be made: "),
    ],
)
def test_whatever_an_environment_raises_is_a_line(
    error: Exception, where: str, place: str, tmp_path: Path
) -> None:
    """It names environment, episode and step; what was done before stays."""
    with pytest.raises((RuntimeFailure, ConfigError)) as raised:
        run("Bare-v0", tmp_path, options={"fails": where, "error": error})
    line = str(raised.value)
    assert line.startswith(place) and "\n" not in line
    assert raised.value.__cause__ is not None
    if where != "make":
        assert "the 2 of 4 episodes before it are in" in line
        (path,) = tmp_path.glob("rollout-*.json")
        written = json.loads(path.read_text())
        assert [episode["seed"] for episode in written["episodes"]] == [0, 1]
        assert line.startswith(written["stopped"])


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_episodes_beside_the_one_that_failed_are_not_whole(batch: int, tmp_path: Path) -> None:
    how = RolloutOptions(batch, num_videos=4)
    options = {"fails": "step", "error": ValueError("no")}
    with pytest.raises(RuntimeFailure, match="Drawn-v0, seed 2, step 1: no"):
        run("Drawn-v0", tmp_path, how, options=options)
    films = sorted(path.name for path in tmp_path.glob("*.gif"))
    whole = list(range(2 // batch * batch))
    assert films == [f"rollout-Drawn-v0-{seed}.gif" for seed in whole]
    assert bool(list(tmp_path.glob("*.json"))) == bool(whole)


def test_a_picture_that_cannot_be_drawn_is_a_line(tmp_path: Path) -> None:
    options = {"fails": "render", "error": KeyError("camera")}
    with pytest.raises(RuntimeFailure, match=r"Drawn-v0, seed 2, step 1: .*camera"):
        run("Drawn-v0", tmp_path, RolloutOptions(1, num_videos=4), options=options)


def test_an_environment_that_fails_to_close_loses_nothing() -> None:
    result = run("Bare-v0", options={"fails": "close", "error": ValueError("no")})
    assert result["episodes"] == 4


def test_the_step_of_another_edition_is_a_line() -> None:
    with pytest.raises(RuntimeFailure, match="OldStep-v0, seed 0, step 0: not enough values"):
        run("OldStep-v0")


@pytest.mark.parametrize("success", [True, np.True_, 1.0, np.array([1.0]), np.array(True)])
def test_success_is_one_truth(success: Any) -> None:
    assert run("Bare-v0", options={"success": success})["success"] == 1.0


@pytest.mark.parametrize(
    "success", [np.array([True, False]), [1, 0], "yes", None, {}, 0.3, float("nan"), 7]
)
def test_success_of_another_form_is_refused(success: Any) -> None:
    with pytest.raises(ConfigError, match=r"env\.success_key: Bare-v0 reports .*expected one"):
        run("Bare-v0", options={"success": success})


def test_pictures_are_asked_for_only_where_they_are_used(tmp_path: Path) -> None:
    """Bare has no `render_mode`, as many environments; Drawn draws only what is filmed or seen."""
    assert run("Bare-v0")["episodes"] == 4
    assert Simulator("Drawn-v0", Env(name="Drawn-v0")).env.unwrapped.render_mode is None
    cameras = Env(name="Drawn-v0", cameras=["render"])
    assert Simulator("Drawn-v0", cameras).env.unwrapped.render_mode == "rgb_array"
    chosen = Simulator("Drawn-v0", Env(name="Drawn-v0", options={"render_mode": "rgb_array"}))
    chosen.reset(0)
    assert chosen.picture() is not None
    for requested in (
        {"cameras": ["render"]},
        {"how": RolloutOptions(1, num_videos=1), "folder": tmp_path},
    ):
        with pytest.raises(ConfigError, match=r"Bare-v0 cannot be made with pictures \(env\.camer"):
            run("Bare-v0", **requested)


def test_what_is_written_again_is_kept_as_it_was(tmp_path: Path) -> None:
    """Hand, commands and film, of an environment that has one array for each."""
    run("Drawn-v0", tmp_path, RolloutOptions(1, num_videos=1), end_effector_key="state")
    written = json.loads((tmp_path / "rollout-Drawn-v0.json").read_text())
    steps = np.arange(1, 6)
    expected = np.stack([steps, np.cumsum(steps), np.cumsum(steps**2)], 1)
    np.testing.assert_allclose(written["trajectory"]["hand"], expected)
    assert Image.open(tmp_path / "rollout-Drawn-v0-0.gif").n_frames == 5
    simulator = Simulator("Drawn-v0", Env(name="Drawn-v0", cameras=["render"]))
    first = simulator.reset(0)
    second, _, _ = simulator.step(np.zeros(1))
    assert first["state"].tolist() == [0, 0, 0] and second["state"].tolist() == [1, 1, 1]
    assert (first["render"] != second["render"]).any()


A, B, C = np.zeros(3), np.ones(3), np.full(2, 2.0)
OBSERVATIONS = [
    (A, {"state": A}),
    ((A, B), {"0": A, "1": B}),  # no history of two steps
    ({"robot": {"arm": A, "hand": C}, "goal": B}, {"robot.arm": A, "robot.hand": C, "goal": B}),
    ({"robot": (A, {"x": C})}, {"robot.0": A, "robot.1.x": C}),
    ([1.0, 2.0], {"state": [1.0, 2.0]}),
]


class Seen(Bare):
    observed: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observed, {}


gymnasium.register("Seen-v0", entry_point=Seen, disable_env_checker=True)


@pytest.mark.parametrize(("observed", "expected"), OBSERVATIONS)
def test_an_observation_is_arrays_by_name(
    observed: Any, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Seen, "observed", observed)
    seen = Simulator("Seen-v0", Env(name="Seen-v0")).reset(0)
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(seen[name], value)


GREY = np.full((4, 6, 3), 0.5)
PICTURES = [
    (np.full((4, 6, 3), 128, np.uint8), True),
    (GREY, True),
    (GREY * 200, False),
    (GREY.transpose(2, 0, 1), False),
    (np.full((3, 4, 6), 128, np.uint8), False),
    (np.full((4, 6), 128, np.uint8), False),
    (np.full((4, 6, 3), 128, np.int64), False),
    ([np.full((4, 6, 3), 128, np.uint8)] * 2, False),  # the frames since the last one
]


@pytest.mark.parametrize(("picture", "fits"), PICTURES)
def test_a_rendered_picture_keeps_its_light_or_is_refused(
    picture: Any, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bare, "render", lambda self: picture)
    simulator = Simulator("Bare-v0", Env(name="Bare-v0"))
    simulator.reset(0)
    if fits:
        drawn = simulator.picture()
        assert drawn is not None and drawn.dtype == np.uint8 and (drawn == 128).all()
    else:
        with pytest.raises(RuntimeFailure, match=r"render returned .*expected a picture"):
            simulator.picture()
