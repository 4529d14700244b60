"""A control recipe from its rows to its run's folder and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import load
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Source

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
SPLINE = {"type": "bspline", "num_basis": 4, "degree": 3, "vocab": 16, "grippers": [-1]}


class Arms(Source):
    """Episodes of an arm that goes where its instruction says, and closes its hand half-way."""

    columns = ("state", "action", "instruction")

    def __init__(self, *, count: int = 6, nan: bool = False) -> None:
        self.count, self.nan = count, nan

    @property
    def episodes(self) -> list[range]:
        return [range(i * 20, i * 20 + 20) for i in range(self.count)]

    def __len__(self) -> int:
        return self.count * 20

    def __getitem__(self, index: int) -> dict[str, Any]:
        episode, frame = divmod(index, 20)
        left = episode % 2
        state = np.array([frame / 20, episode / self.count, 1.0], np.float32)
        speed = -0.1 if left else 0.1
        if self.nan and index == 7:
            speed = np.nan
        action = np.array([speed, frame / 40, 1.0 if frame > 10 else -1.0], np.float32)
        return {"state": state, "action": action, "instruction": "left" if left else "right"}

    def fingerprint(self) -> str:
        return f"arms {self.count}"


def recipe(**task: Any) -> dict[str, Any]:
    data = {"source": f"{__name__}:Arms", "delta_frames": {"state": [-1, 0], "action": [0, 7]}}
    return {
        "inputs": {
            "state": {
                "modality": "action",
                "encoder": {"type": "state", "dim": 16},
                "connector": "linear",
            }
        },
        "backbone": {
            "type": "causal",
            "name": "tiny-llama",
            "tokenizer": "bytes",
            "options": {**SMALL, "num_attention_heads": 2, "num_key_value_heads": 2},
        },
        "tasks": {
            "act": {
                "type": "control",
                "prompt": "<state> {instruction}",
                "tokenizer": SPLINE,
                "data": {"train": data, "test": {**data, "count": 2}},
                **task,
            }
        },
        "train": {"steps": 6, "batch_size": 16},
    }


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(
    "task",
    [
        {},
        {"action_decoder": "continuous", "latent": 2},
        {"action_decoder": "fourier", "frequencies": 4},
        {"action_decoder": "autoregressive", "tokenizer": "bins"},
        {"action_decoder": "autoregressive", "tokenizer": "fast"},
    ],
    ids=str,
)
def test_a_run_comes_back_as_it_was(task: dict[str, Any]) -> None:
    parsed = parse_recipe(recipe(**task))
    assert "a step of act" in str(check(parsed))
    model = train(parsed, Path("run"), show=False)
    scores = evaluate(model, input_ablation=False)["act"]
    assert {"l1", "l1_gripper", "l1_joints"} <= set(scores) or "grippers" not in str(task)
    requested: Any = {"state": np.zeros((2, 3), np.float32), "instruction": "left"}
    again = load("run")
    assert evaluate(again.model, input_ablation=False)["act"] == scores
    result = again.generate("act", **requested)
    assert np.shape(result["actions"]) == (8, 3)
    assert np.isfinite(result["actions"]).all()


def test_the_rate_is_the_user_s() -> None:
    train(parse_recipe(recipe()), Path("run"), show=False)
    ask: Any = {"state": np.zeros((2, 3), np.float32), "instruction": "left"}
    model = load("run")
    slow, fast = (
        np.array(model.generate("act", options={"steps": n}, **ask)["actions"]) for n in (8, 15)
    )
    assert fast.shape == (15, 3)
    np.testing.assert_allclose(fast[::2, :2], slow[:, :2], atol=1e-5)
    with pytest.raises(ConfigError, match=r"act\.step: .* did you mean 'steps'"):
        model.generate("act", options={"step": 3}, **ask)


def test_a_vocabulary_that_moved_is_refused() -> None:
    """Two tasks have rows of their own after the text's; whose come first is frozen."""
    values = recipe()
    values["tasks"]["again"] = copy.deepcopy(values["tasks"]["act"])
    train(parse_recipe(values), Path("run"), show=False)
    path = Path("run/recipe.yaml")
    written = yaml.safe_load(path.read_text())
    written["tasks"] = dict(reversed(written["tasks"].items()))
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    with pytest.raises(ConfigError, match=r"tasks\.\w+: vocabulary: the run was trained with") as e:
        load("run")
    assert "\n" not in str(e.value)


@pytest.mark.filterwarnings("error")
def test_a_dry_run_needs_no_data() -> None:
    values = recipe(tokenizer={**SPLINE, "vocab": 64, "num_basis": 30, "grippers": [4]})
    del values["tasks"]["act"]["data"]
    assert "walked with its example rows" in str(check(parse_recipe(values)))


@pytest.mark.parametrize(
    ("task", "data", "line"),
    [
        ({}, {"nan": True}, "'action' holds nan at step"),
        (
            {},
            {"delta_frames": {"action": [0, 2]}},
            r"num_basis: 4 bases cannot be found from a chunk of",
        ),
        (
            {},
            {"delta_frames": {"state": [-1, 0]}},
            r"holds \(3,\), expected a chunk \[steps, dof\]",
        ),
        ({"tokenizer": {**SPLINE, "dof": 7}}, {}, r"actions: chunk 0 is \(8, 3\), expected \[ste"),
        ({"action": "torque"}, {}, "torque"),
        ({"latent": 2}, {}, r"tasks\.act\.latent: belongs to action_decoder: continuous"),
        (
            {"tokenizer": None},
            {},
            r"tasks\.act\.tokenizer: is required here; for example token",
        ),
    ],
)
def test_mistakes_are_lines(task: dict[str, Any], data: dict[str, Any], line: str) -> None:
    values = recipe(**task)
    values["tasks"]["act"]["data"]["train"] |= data
    with pytest.raises(ConfigError, match=line) as error:
        train(parse_recipe(values), Path("run"), show=False)
    assert str(error.value).startswith("tasks.act")
    assert "\n" not in str(error.value)


def test_predictions_are_written_beside_the_metrics() -> None:
    model = train(parse_recipe(recipe()), Path("run"), show=False)
    evaluate(model, input_ablation=False, folder=Path("run"))
    line = json.loads(Path("run/predictions-act.jsonl").read_text().splitlines()[0])
    assert np.shape(line["prediction"]["actions"]) == np.shape(line["target"]["actions"])


def policy(**changes: Any) -> dict[str, Any]:
    """A small policy, an expert for the student that `recipe` becomes."""
    values = recipe()
    values["tasks"]["act"] |= {"type": "action_regression", "input": "state", **changes}
    for key in ("prompt", "backbone"):
        values["tasks"]["act"].pop(key, None)
    del values["backbone"]
    return values


def student(stage: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, Any]:
    """A student that reads the state through the decoder, and the expert's stream beside it."""
    values, frozen = recipe(), {"weights": "expert:state", "freeze": True}
    expert = {**values["inputs"]["state"]["encoder"], **frozen}
    values["inputs"]["expert"] = {"modality": "action", "encoder": expert}
    values["inputs"]["expert"]["connector"] = {"type": "linear", **frozen}
    values["backbone"] |= backbone
    task = values["tasks"]["act"]
    task |= {"type": "distill_actions", "expert": "expert", **stage}
    task["decoder"] = {"type": "mlp", "weights": "expert", "freeze": True}
    task["tokenizer"] = {**SPLINE, "weights": "expert"}
    for data in task["data"].values():
        data["columns"] = {"expert": "state"}
    values["train"] |= {"steps": 30, "optimizer": {"lr": 3e-3}}
    return values


@pytest.mark.slow
def test_a_student_learns_from_an_expert_in_two_stages() -> None:
    """VITA-VLA: aligned with the decoder frozen, then tuned from there; all through recipes."""
    expert = train(parse_recipe(policy()), Path("expert"), show=False)
    first = train(
        parse_recipe(student({"distill_weight": 1.0}, {"freeze": True})), Path("first"), show=False
    )
    theirs, student_task = expert.task("act"), first.task("act")
    for name, value in theirs.heads["decoder"].state_dict().items():
        torch.testing.assert_close(student_task.heads["decoder"].state_dict()[name], value)
    assert (
        student_task.tokenizer.state()["low"].tolist() == theirs.tokenizer.state()["low"].tolist()
    )
    tuned = student(
        {"distill_weight": 0.1, "action_weight": 1.0, "weights": "first"}, {"weights": "first"}
    )
    tuned["inputs"]["state"]["encoder"]["weights"] = "first"
    tuned["inputs"]["state"]["connector"] = {"type": "linear", "weights": "first"}
    second = train(parse_recipe(tuned), Path("second"), show=False)
    before, after = (evaluate(m, input_ablation=False)["act"]["l1"] for m in (first, second))
    assert after < before
    result = load("second").generate("act", state=np.zeros((2, 3), np.float32), instruction="left")
    assert np.shape(result["actions"]) == (8, 3)


def test_what_was_fitted_comes_with_the_weights() -> None:
    """A frozen encoder reads values scaled as when it was trained, whatever the new data."""
    expert = train(parse_recipe(policy()), Path("expert"), show=False)
    other = policy()
    other["tasks"]["act"]["data"]["train"]["count"] = 3
    fitted = compose(resolve_and_fit(parse_recipe(other)))
    other["inputs"]["state"]["encoder"]["weights"] = "expert"
    taken = compose(resolve_and_fit(parse_recipe(other)))

    def scale(model: Any) -> str:
        state = model.plan.fitted()["inputs.state.encoder.normalizer"].state()
        return str({name: np.asarray(value).tolist() for name, value in state.items()})

    assert scale(taken) == scale(expert) != scale(fitted)
    other["tasks"]["act"]["tokenizer"] = {**SPLINE, "weights": "nowhere"}
    with pytest.raises(ConfigError, match=r"tasks\.act\.tokenizer\.weights: found 'nowhere'"):
        resolve_and_fit(parse_recipe(other))
