"""A tiny run in a stranger's world: figures, conditions, films, refusals, the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gymnasium")

from sensorium import __main__ as entry
from sensorium.engine.inference import Pipeline, load
from sensorium.engine.recipe import Env, parse_recipe, plan_recipe
from sensorium.engine.report import write_report
from sensorium.engine.rollout import Ablation, RolloutOptions, env_config, rollout
from sensorium.engine.rollout.policy import make_policy
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError, RuntimeFailure

WORLD = Path(__file__).with_name("tiny_world.py")
LINE = "tiny_world:TinyLine-v0"
STEM = "rollout-tiny_world-TinyLine-v0"

RECIPE: dict[str, Any] = {
    "inputs": {
        "state": {
            "modality": "action",
            "encoder": {"type": "state", "dim": 16, "hidden": 16},
            "connector": "linear",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "weights": "none",
        "options": {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
    },
    "tasks": {
        "walk": {
            "type": "control",
            "prompt": "<state> {instruction}",
            "action_decoder": "continuous",
            "tokenizer": {"type": "bspline", "num_basis": 4, "degree": 3},
            "data": {
                "train": {
                    "source": "tiny_world:Walks",
                    "delta_frames": {"state": [-1, 0], "action": [0, 5]},
                }
            },
        }
    },
    # Seventeen seeds of seventeen reach every goal; at lr 0.01 one in four learned to stand still.
    "train": {"steps": 160, "batch_size": 16, "optimizer": {"lr": 0.003}},
    "env": {
        "name": LINE,
        "n_action_steps": 3,
        "end_effector_key": "hand",
        "max_steps": 15,
        "instruction": "go",
    },
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the stranger's world and a run."""
    folder = tmp_path_factory.mktemp("rollout")
    shutil.copy(WORLD, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(folder))
        patch.delitem(sys.modules, "tiny_world", raising=False)
        train(parse_recipe(RECIPE), folder / "run", show=False)
        yield folder
        sys.modules.pop("tiny_world", None)


@pytest.fixture(scope="module")
def pipeline(home: Path) -> Pipeline:
    return load(home / "run")


def test_it_gets_there_and_says_how(pipeline: Pipeline, home: Path) -> None:
    section = env_config(pipeline)
    result = rollout(pipeline, section, seeds=range(6), folder=home / "run")[LINE]
    assert result["success"] >= 0.8 and result["episodes"] == 6
    assert result["steps"] == 6 * 12, "the world ends after 12 steps, before max_steps"
    assert result["model_calls"] == 12 // 3, "one call for all six, every three steps"
    written = json.loads((home / "run" / f"{STEM}.json").read_text())
    assert written["env"] == LINE and written["ablation"] == ""
    assert np.shape(written["trajectory"]["commands"]) == (12, 1)
    assert np.shape(written["trajectory"]["hand"]) == (12, 2)
    assert [e["seed"] for e in written["episodes"]] == list(range(6))
    assert {e["instruction"] for e in written["episodes"]} == {"go"}


def test_it_acts_where_its_weights_are(pipeline: Pipeline, home: Path, accelerator: Any) -> None:
    on_device = Pipeline(load(home / "run").model.to(accelerator))
    moved, plain = (rollout(p, env_config(p), seeds=range(2))[LINE] for p in (on_device, pipeline))
    assert moved["success"] == plain["success"] and moved["steps"] == plain["steps"]


def test_a_batch_decides_nothing(pipeline: Pipeline, home: Path) -> None:
    section = env_config(pipeline)
    figures = [
        rollout(pipeline, section, seeds=range(5), options=RolloutOptions(batch))[LINE]
        for batch in (1, 2, 5)
    ]
    for name in ("success", "success_at_end", "steps"):
        assert len({figure[name] for figure in figures}) == 1
    np.testing.assert_allclose(
        [f["hand_jerk"] for f in figures], figures[0]["hand_jerk"], rtol=1e-3
    )


def test_it_needs_its_own_eyes(pipeline: Pipeline) -> None:
    """Half of the goals lie on the other side: another's state is a coin."""
    section, seeds = env_config(pipeline), range(24)
    success = rollout(pipeline, section, seeds=seeds)[LINE]["success"]
    for conditions in (Ablation(shuffle_streams=("state",)), Ablation(zero_streams=("state",))):
        other = rollout(pipeline, section, seeds=seeds, options=RolloutOptions(24, conditions))[
            LINE
        ]
        assert other["success"] < success - 0.2


@pytest.mark.parametrize("suffix", [".gif"])
def test_the_first_episodes_are_filmed(pipeline: Pipeline, tmp_path: Path, suffix: str) -> None:
    options = RolloutOptions(num_envs=2, num_videos=3, suffix=suffix)
    rollout(pipeline, env_config(pipeline), seeds=range(7, 12), options=options, folder=tmp_path)
    films = sorted(path.name for path in tmp_path.glob(f"*{suffix}"))
    assert films == sorted(f"{STEM}-{seed}{suffix}" for seed in (7, 8, 9))
    assert json.loads((tmp_path / f"{STEM}.json").read_text())["videos"] == films
    assert 2 <= Image.open(tmp_path / films[0]).n_frames <= 12  # equal pictures become one


def test_a_folder_that_is_not_there_is_made(pipeline: Pipeline, tmp_path: Path) -> None:
    out = tmp_path / "new" / "place"
    rollout(
        pipeline,
        env_config(pipeline),
        seeds=range(1),
        options=RolloutOptions(num_videos=1),
        folder=out,
    )
    assert {path.suffix for path in out.iterdir()} == {".json", ".gif"}


def test_a_pipeline_acts(pipeline: Pipeline) -> None:
    """`act` gives the chunk whose first steps the policy executes at the start of an episode."""
    state = np.array([0.0, 0.5], np.float32)
    chunk = pipeline.act("walk", state=state, instruction="go")
    assert chunk.shape == (6, 1) and chunk.dtype == np.float32
    both = pipeline.act("walk", state=[state, -state], instruction="go")
    np.testing.assert_allclose(both[0], chunk, atol=1e-5)
    policy = make_policy(pipeline, env_config(pipeline))
    policy.reset([{"instruction": "go"}])
    np.testing.assert_allclose(policy.step({"state": state}), chunk[0], atol=1e-5)
    with pytest.raises(ConfigError, match="act: there is no task 'wlk'; did you mean 'walk'"):
        pipeline.act("wlk", state=state)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"options": {"dof": 2}}, "takes actions of 2 numbers, the policy was fitted on 1"),
        ({"name": "CartPole-v1"}, r"takes actions of Discrete\(2\), expected a Box"),
        ({"name": "TinyLine-v9"}, "env.name: .*TinyLine"),
        ({"success_key": "won"}, "env.success_key: .* reports no 'won'; its info has success"),
        (
            {"end_effector_key": "foot"},
            "env.end_effector_key: .* observes no 'foot'; there are state, hand",
        ),
        ({"observation_keys": {"stat": "x"}}, "env.observation_keys.stat: .* did you mean 'state'"),
        ({"task": "talk"}, "env.task: there is no task 'talk'; did you mean 'walk'"),
        ({"cameras": ["corner"]}, "has no camera 'corner'; use render"),
        ({"instruction": {}}, "env.instruction: .* has none for {instruction}"),
        ({"n_action_steps": 9}, "env.n_action_steps: found 9, and a chunk has 6 steps"),
    ],
)
def test_an_environment_that_does_not_fit(
    pipeline: Pipeline, changes: dict[str, Any], line: str
) -> None:
    section = Env.model_validate({**RECIPE["env"], **changes})
    with pytest.raises(ConfigError, match=line) as error:
        rollout(pipeline, section, seeds=range(2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"task": "wlk"}, "env.task: there is no task 'wlk'; did you mean 'walk'"),
        ({"observation_keys": {"stat": "x"}}, "env.observation_keys.stat: .* did you mean 'state'"),
        ({"success_kye": "won"}, "env.success_kye: .* did you mean 'success_key'"),
        ({"n_action_steps": 0}, "env.n_action_steps: found 0 .*, expected int > 0"),
    ],
)
def test_a_section_that_does_not_fit_its_recipe(
    home: Path, changes: dict[str, Any], line: str
) -> None:
    """Found when the recipe is read, before anything is built."""
    with pytest.raises(ConfigError, match=line):
        plan_recipe(parse_recipe({**RECIPE, "env": {**RECIPE["env"], **changes}}))


def test_a_sensor_that_fails_stops_the_robot(pipeline: Pipeline) -> None:
    section = Env.model_validate({**RECIPE["env"], "options": {"broken": True}})
    line = f"{LINE}, seed 1, step 3: state holds a value that is not finite"
    with pytest.raises(RuntimeFailure, match=line):
        rollout(pipeline, section, seeds=[1])


def test_conditions_that_cannot_be(pipeline: Pipeline) -> None:
    section = env_config(pipeline)
    cases = [
        (Ablation(shuffle_streams=("stat",)), range(4), "no stream 'stat'; did you mean 'state'"),
        (Ablation(shuffle_streams=("state",)), range(1), "leave a batch of one"),
        (Ablation(swap_instructions=True), range(2), "--swap-instructions: .* no other has one"),
        (Ablation(open_loop=True), range(2), "--open-loop-baseline: .* brings no expert"),
    ]
    for conditions, seeds, line in cases:
        with pytest.raises(ConfigError, match=line):
            rollout(pipeline, section, seeds=seeds, options=RolloutOptions(ablation=conditions))


def test_the_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "rollout",
        "run",
        "--n-episodes",
        "4",
        "--zero-stream",
        "state",
        "--instruction",
        "go there",
    ]
    monkeypatch.setattr(sys, "argv", ["sensorium", *words])
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert not end.value.code
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "environment" and line.split()[0] == LINE
    path = home / "run" / f"{STEM}-blank-state-told-otherwise.json"
    assert json.loads(path.read_text())["episodes"][0]["instruction"] == "go there"


def test_a_run_without_an_environment(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.model.plan.recipe, "env", None)
    with pytest.raises(ConfigError, match="env: the recipe has none; name one with --env"):
        env_config(pipeline)
    assert env_config(pipeline, [LINE], n_action_steps=2).n_action_steps == 2


def test_the_page_shows_what_came_of_it(pipeline: Pipeline, home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(home / "run", run)
    for old in run.glob("rollout-*"):
        old.unlink()
    rollout(
        pipeline,
        env_config(pipeline),
        seeds=range(4),
        options=RolloutOptions(num_videos=1),
        folder=run,
    )
    blank = RolloutOptions(ablation=Ablation(zero_streams=("state",)))
    rollout(pipeline, env_config(pipeline), seeds=range(4), options=blank, folder=run)
    page = write_report([run], tmp_path / "page.html").read_text()
    assert page.count(f'<th scope="row">{LINE}</th>') == 2
    assert "blank state" in page and "as it is" in page
    assert "data:image/gif;base64," in page and "12 steps of 1 joints" in page
    (run / f"{STEM}.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is no rollout .* roll the run out again"):
        write_report([run], tmp_path / "page.html")
