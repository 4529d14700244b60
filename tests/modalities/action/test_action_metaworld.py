"""Meta-World as an environment: one seed one episode, the expert, the pictures, the refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("metaworld")

from sensorium.engine.recipe import Env
from sensorium.engine.rollout import RolloutOptions
from sensorium.engine.rollout.metrics import Episode
from sensorium.engine.rollout.replay import OpenLoopReplay
from sensorium.engine.rollout.runner import Runner
from sensorium.modalities.action.metaworld.env import GOAL_COLOUR, PROPRIO, MetaWorld, expert
from sensorium.modalities.action.metaworld.instructions import heldout_instruction
from sensorium.modalities.action.metaworld.instructions import train_instructions as words
from sensorium.modalities.action.metaworld.sentences import SENTENCES


@pytest.mark.slow
@pytest.mark.parametrize("task", SENTENCES)
def test_a_seed_is_its_construction_and_one_reset(task: str) -> None:
    """Also where the layouts are dealt without moving the arm for each."""
    import gymnasium

    theirs = gymnasium.make("Meta-World/MT1", env_name=task, seed=7, disable_env_checker=True)
    expected, _ = theirs.reset()
    ours = MetaWorld(task, 7)
    result, _ = ours.reset()
    np.testing.assert_array_equal(result["state"], expected.astype(np.float32))
    action = np.array([0.3, -0.2, 0.5, 1.0], np.float32)
    for _ in range(5):
        expected, *_ = theirs.step(action)
        result, *_ = ours.step(action)
        np.testing.assert_array_equal(result["state"], expected.astype(np.float32))


def test_the_same_seed_is_the_same_episode_however_it_is_asked_for() -> None:
    env = MetaWorld("push-v3", 3)
    first, _ = env.reset()
    env.step(np.ones(4, np.float32))
    again, _ = env.reset()
    requested, _ = MetaWorld("push-v3").reset(seed=3)
    other, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first["state"], again["state"])
    np.testing.assert_array_equal(first["state"], requested["state"])
    assert not np.array_equal(first["state"], other["state"])


def test_an_observation_is_of_its_space_and_the_hand_alone_is_proprio() -> None:
    env = MetaWorld("reach-v3", 1)
    result, _ = env.reset()
    assert env.observation_space.contains(result)
    np.testing.assert_array_equal(result["proprio"], result["state"][list(PROPRIO)])
    assert not set(PROPRIO) & {*range(4, 18), *range(22, 39)}, "neither the object nor the goal"


def test_the_expert_succeeds_with_actions_of_the_space() -> None:
    env, act = MetaWorld("reach-v3", 2), expert("reach-v3")
    result, _ = env.reset()
    done = False
    for _ in range(150):
        action = act(result["state"])
        assert env.action_space.contains(action)
        result, _, _, _, info = env.step(action)
        done = done or bool(info["success"])
    assert done


def test_an_episode_ends_where_the_simulator_ends_it() -> None:
    """Farama-Foundation/Metaworld#436: a step after the 500th raises. Success is of any step."""
    section = Env(name="metaworld/reach-v3", max_steps=600)
    stand_in = OpenLoopReplay(np.zeros((1, 4), np.float32))
    rolled = Runner(stand_in, section.names[0], section, RolloutOptions(num_envs=1)).run([3])
    assert len(rolled.episodes[0].commands) == 500
    early = Episode(0, success=[False, True, False])
    assert early.to_json()["success"] and not early.to_json()["success_at_end"]


def test_what_is_told_in_the_test_was_not_told_before() -> None:
    assert {MetaWorld.instruction("push-v3", seed) for seed in range(1000)} == set(words("push-v3"))
    for split, seeds in (("development", (2000, 2049)), ("test", (5000, 5199))):
        assert {MetaWorld.instruction("push-v3", seed) for seed in seeds} == {
            heldout_instruction("push-v3", split)
        }
        assert heldout_instruction("push-v3", split) not in words("push-v3")


@pytest.mark.parametrize(
    ("make_it", "line"),
    [
        (lambda: MetaWorld("pusg-v3"), "no task 'pusg-v3'; did you mean 'push-v3'"),
        (lambda: expert("fly"), "no task 'fly'"),
        (lambda: MetaWorld("push-v3", cameras=["corner9"]), "no camera 'corner9'; did you mean"),
    ],
)
def test_what_is_not_there_is_named(make_it: object, line: str) -> None:
    with pytest.raises(ValueError, match=line.replace("?", r"\?")):
        make_it()  # type: ignore[operator]


@pytest.fixture
def seen() -> MetaWorld:
    env = MetaWorld("reach-v3", 1, cameras=["topview", "corner"], size=64)
    try:
        env.reset()
    except RuntimeError as error:
        pytest.skip(str(error))
    return env


def test_pictures_show_the_goal_in_a_colour_of_its_own(seen: MetaWorld) -> None:
    result, _ = seen.reset(seed=1)
    assert seen.observation_space.contains(result)
    strong = np.array(GOAL_COLOUR[:3]) > 0.5
    pixels = result["topview"].astype(int)
    goal = (pixels[..., strong].min(-1) - pixels[..., ~strong].max(-1)) > 60
    assert 4 <= goal.sum() <= 60
    other, _ = seen.reset(seed=2)
    assert not np.array_equal(result["topview"], other["topview"])


def test_a_person_is_shown_the_scene_upright(seen: MetaWorld) -> None:
    """The camera's picture turned by half: the arm hangs from above the table."""
    shown = seen.render()
    np.testing.assert_array_equal(np.rot90(shown, 2), seen.picture("corner2", len(shown)))


def test_many_environments_draw_side_by_side(seen: MetaWorld) -> None:
    """A second OpenGL context gives noise under OSMesa."""
    alone, _ = seen.reset(seed=1)
    pair = [MetaWorld(task, 1, cameras=["topview"], size=64) for task in ("push-v3", "reach-v3")]
    for env in pair:
        env.reset()
    np.testing.assert_array_equal(pair[1].picture("topview"), alone["topview"])
    assert pair[1].picture("corner", 32).shape == (32, 32, 3)
    np.testing.assert_array_equal(seen.picture("topview"), alone["topview"])


@pytest.mark.slow
def test_a_machine_that_cannot_draw_says_what_to_install() -> None:
    """In a process of its own: MuJoCo chooses how to draw when it is imported."""
    code = (
        "from sensorium.modalities.action.metaworld.env import MetaWorld\n"
        "env = MetaWorld('reach-v3', cameras=['corner'])\n"
        "try:\n    env.reset()\n"
        "except RuntimeError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MUJOCO_GL": "glfw"}, capture_output=True, text=True
    )
    assert "apt install libegl1 libegl-mesa0" in done.stdout, done.stderr[-500:]
    assert len(done.stdout.splitlines()) == 1
