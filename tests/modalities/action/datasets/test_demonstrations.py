"""Demonstrations of the scripted experts: what is recorded, under which seeds and words."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("metaworld")

from sensorium.engine.data.windows import Windows
from sensorium.modalities.action.datasets import Recording, write
from sensorium.modalities.action.metaworld.demonstrations import SEEDS, Demonstrations
from sensorium.modalities.action.metaworld.env import PROPRIO, MetaWorld, expert
from sensorium.modalities.action.metaworld.expert import ExpertRecorder, SimulatorSnapshot
from sensorium.modalities.action.metaworld.instructions import (
    KEPT,
    heldout_instruction,
    train_instructions,
)
from sensorium.modalities.action.metaworld.sentences import SENTENCES
from sensorium.modalities.image.read import read as read_picture

TASKS = ["reach-v3", "window-close-v3"]


@pytest.fixture(scope="module")
def recorded() -> Demonstrations:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = Demonstrations(tasks=TASKS, episodes=2, noise=0.3, branches=1, hold=5)
        assert len(source)
    return source


def test_rows_hold_what_they_say(recorded: Demonstrations) -> None:
    row = recorded[0]
    assert tuple(row) == recorded.columns
    assert row["state"].shape == (39,) and row["action"].shape == (4,)
    assert np.array_equal(row["proprio"], row["state"][list(PROPRIO)])
    assert row["task"] == "reach-v3" and row["instruction"] in train_instructions("reach-v3")
    assert {recorded[e.start]["task"] for e in recorded.episodes} == set(TASKS)
    for name in ("state", "proprio", "action"):
        values = recorded.column_array(name)
        assert values.dtype == np.float32 and np.isfinite(values).all()
    assert np.abs(recorded.column_array("action")).max() <= 1


def test_an_episode_is_asked_for_in_many_ways(recorded: Demonstrations) -> None:
    for episode in recorded.episodes:
        ways = {recorded[i]["instruction"] for i in episode}
        assert len(ways) > 3 and ways <= set(train_instructions(recorded[episode.start]["task"]))


def test_every_action_is_the_experts_own_clean_and_clipped(recorded: Demonstrations) -> None:
    """Above all where an episode goes on from a disturbed state."""
    states, actions = recorded.column_array("state"), recorded.column_array("action")
    assert recorded.column_array("disturbed").any()
    for episode in recorded.episodes:
        act = expert(recorded[episode.start]["task"])
        for i in episode:
            assert np.array_equal(act(states[i]), actions[i])


def test_the_actions_lead_from_each_state_to_the_next(recorded: Demonstrations) -> None:
    """The clean episode of a seed, played again."""
    for episode in recorded.episodes:
        row = recorded[episode.start]
        if row["disturbed"] or row["seed"]:
            continue
        env = MetaWorld(row["task"], row["seed"])
        result, _ = env.reset()
        for i in episode:
            assert np.array_equal(result["state"], recorded[i]["state"])
            result, *_, info = env.step(recorded[i]["action"])
        assert info["success"]


def test_a_disturbed_episode_begins_elsewhere(recorded: Demonstrations) -> None:
    states, first = recorded.column_array("state"), {}
    for episode in recorded.episodes:
        row = recorded[episode.start]
        first[row["task"], row["seed"], row["disturbed"]] = states[episode.start]
    for task, seed in {(task, seed) for task, seed, disturbed in first if disturbed}:
        assert not np.array_equal(first[task, seed, True][:3], first[task, seed, False][:3])
        assert np.array_equal(first[task, seed, True][36:], first[task, seed, False][36:])  # goal


@pytest.mark.parametrize("task", ["reach-v3", "push-v3", "pick-place-v3"])
def test_a_simulation_is_put_back_exactly(task: str) -> None:
    env, act = MetaWorld(task, 3), expert(task)
    first, _ = env.reset()
    moment = SimulatorSnapshot(env)

    def played() -> np.ndarray:
        result, states = first, []
        for _ in range(40):
            result, *_ = env.step(act(result["state"]))
            states.append(result["state"])
        return np.stack(states)

    once = played()
    for _ in range(3):
        env.step(np.ones(4, np.float32))
    moment.restore()
    assert np.array_equal(once, played())


def test_a_seed_gives_one_recording(recorded: Demonstrations) -> None:
    makers = [ExpertRecorder("reach-v3", noise=0.3, branches=1, hold=5) for _ in range(2)]
    runs = [list(m.episodes(0, train_instructions("reach-v3"))) for m in makers]
    for one, other in zip(*runs, strict=True):
        assert one is not None and other is not None and one.task == other.task
        assert np.array_equal(one.columns["action"], other.columns["action"])
    assert np.array_equal(
        runs[0][0].columns["state"], recorded.column_array("state")[: len(runs[0][0])]
    )


def test_it_is_recorded_once(recorded: Demonstrations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpertRecorder, "episodes", lambda *_: pytest.fail("recorded again"))
    again = Demonstrations(tasks=TASKS, episodes=2, noise=0.3, branches=1, hold=5)
    assert again.fingerprint() == recorded.fingerprint() and len(again) == len(recorded)
    assert again.key(3) == recorded.key(3) and again.key(3).startswith("metaworld/train/0/3")
    info = json.loads((again.folder / "meta/info.json").read_text())
    assert info["options"]["noise"] == 0.3 and info["codebase_version"] == "v3.0"


def test_every_option_that_changes_rows_changes_the_name() -> None:
    base: dict[str, Any] = {"tasks": TASKS, "episodes": 2, "noise": 0.1}
    changes: list[dict[str, Any]] = [
        {},
        {"tasks": TASKS[::-1]},
        {"episodes": 3},
        {"split": "development"},
        {"noise": 0.2},
        {"branches": 2},
        {"hold": 3},
        {"cameras": ["corner"]},
        {"cameras": ["corner"], "size": 64},
    ]
    sources = [Demonstrations(**{**base, **change}) for change in changes]
    assert (
        len({s.fingerprint() for s in sources}) == len({s.folder for s in sources}) == len(changes)
    )
    assert "corner" in sources[-1].columns and "corner" not in sources[0].columns


def test_every_task_of_meta_world_can_be_recorded_and_asked_for() -> None:
    """All fifty have an expert, ways to ask in training, and one way for each other split."""
    from metaworld import MT1

    tasks = list(MT1.ENV_NAMES)
    assert len(tasks) == 50 and set(SENTENCES) == set(tasks)
    assert Demonstrations(tasks=tasks, episodes=1).tasks == tuple(tasks)
    for task in tasks:
        assert expert(task)(np.zeros(39, np.float32)).shape == (4,)
        requested = [MetaWorld.instruction(task, seed) for seed in (0, 1, 2000, 5000)]
        assert len(set(requested)) == 4 and requested[3] == heldout_instruction(task, "test")


@pytest.mark.slow
@pytest.mark.parametrize("task", SENTENCES)
def test_the_expert_of_every_task_is_recorded(task: str) -> None:
    """It succeeds within the steps that are recorded, if not for every seed (soccer)."""
    recorder = ExpertRecorder(task, hold=2)
    episodes = [next(recorder.episodes(seed, ("go",))) for seed in range(3)]
    assert any(episode is not None for episode in episodes)


def test_splits_share_neither_seeds_nor_the_words_of_the_test() -> None:
    for one, other in itertools.combinations(SEEDS.values(), 2):
        assert not set(one) & set(other)
    assert [len(s) for s in SEEDS.values()] == [1000, 50, 200]
    words = {word for task in SENTENCES for way in train_instructions(task) for word in way.split()}
    for task in SENTENCES:
        remaining = {heldout_instruction(task, split) for split in KEPT}
        assert (
            len(remaining) == 2
            and not remaining & set(train_instructions(task))
            and len(train_instructions(task)) >= 8
        )
        assert {word for way in remaining for word in way.split()} <= words
    every = [
        way
        for task in SENTENCES
        for way in (*train_instructions(task), *(k[task] for k in KEPT.values()))
    ]
    assert len(set(every)) == len(every)
    assert all(way == " ".join(way.split()) and "{" not in way for way in every)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["pushing-v3"]}, "^task: Meta-World has no task 'pushing-v3'"),
        ({"tasks": []}, r"^tasks: found \[\]"),
        ({"tasks": ["push-v3"] * 2}, r"^tasks: found .*each once"),
        ({"episodes": 51, "split": "development"}, "^episodes: found 51, expected 1 to 50"),
        ({"noise": -1}, "^noise: found noise -1"),
        ({"cameras": ["front"]}, "^camera: Meta-World has no camera 'front'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Demonstrations(**{"tasks": TASKS, **options})


def test_a_recording_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield Recording("push", {"action": np.zeros((2, 4), np.float32)})
        raise RuntimeError("the simulator fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        write(tmp_path / "a", broken(), 80.0)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="there is no episode to write"):
        write(tmp_path / "a", [], 80.0)
    assert not list(tmp_path.iterdir())


def test_whoever_records_first_is_kept(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        actions = np.full((2, 4), value, np.float32)
        write(tmp_path / "a", [Recording("push", {"action": actions})], value)
    assert json.loads((tmp_path / "a/meta/info.json").read_text())["fps"] == 1.0
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_pictures_are_those_of_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn for what is recorded alone, and read by the modality of pictures."""
    drawn = iter(range(10_000))

    def picture(self: Any, camera: str, size: int | None = None) -> np.ndarray:
        return np.full((size or 0, size or 0, 3), next(drawn) % 256, np.uint8)

    monkeypatch.setattr("sensorium.modalities.action.metaworld.env.MetaWorld.picture", picture)
    options: dict[str, Any] = {"noise": 0.3, "hold": 2, "cameras": ["corner"], "size": 16}
    source = Demonstrations(tasks=["reach-v3"], episodes=1, **options)
    seen = [np.asarray(read_picture(source[i]["corner"])) for i in range(len(source))]
    assert all(pixels.shape == (16, 16, 3) for pixels in seen)
    assert [int(pixels[0, 0, 0]) for pixels in seen] == [i % 256 for i in range(len(source))]
    with pytest.raises(
        ValueError, match=r"delta_frames\.corner: its cells cannot be stacked: corner"
    ):
        Windows(source, {"corner": (0, 1)})
