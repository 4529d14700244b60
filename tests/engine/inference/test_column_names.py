"""Columns of any name can be asked for: none clashes with a parameter of the pipeline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sensorium import __main__ as entry
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.recipe import Env, parse_recipe
from sensorium.engine.rollout.policy import make_policy
from sensorium.engine.training import train

NAMES = ("task", "options", "inputs", "self", "named", "stream", "model", "key", "index")
"""Of columns that a prompt reads: parameters and attributes of what they pass through."""


def recipe(name: str, folder: Path) -> dict[str, Any]:
    rows = [f"{e},{t},{t},{t / 5},push" for e in range(2) for t in range(8)]
    table = folder / "data.csv"
    table.write_text("\n".join([f"episode_index,frame_index,s,a,{name}", *rows]) + "\n")
    options = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return {
        "inputs": {
            "state": {
                "modality": "action",
                "encoder": {"type": "state", "dim": 8},
                "connector": "linear",
            }
        },
        "backbone": {
            "type": "causal",
            "name": "tiny-llama",
            "tokenizer": "bytes",
            "weights": "none",
            "options": options | heads,
        },
        "tasks": {
            "act": {
                "type": "control",
                "prompt": f"<state> {{{name}}}",
                "action_decoder": "continuous",
                "tokenizer": {"type": "bspline", "num_basis": 4, "degree": 3},
                "data": {
                    "train": {
                        "source": "frames",
                        "path": str(table),
                        "join": {"state": ["s"], "action": ["a"]},
                        "delta_frames": {"action": [0, 4]},
                    }
                },
            }
        },
        "train": {"steps": 1, "batch_size": 4},
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_column_of_any_name_is_asked_for(name: str, tmp_path: Path) -> None:
    """By the pipeline, as a keyword where Python allows it, of no row at all, and by a policy."""
    pipeline = Pipeline(compose(resolve_and_fit(parse_recipe(recipe(name, tmp_path)))))
    inputs: dict[str, Any] = {"state": np.array([3.0], np.float32), name: "pull"}
    actions = pipeline.act("act", inputs)
    assert actions.shape == (5, 1)
    np.testing.assert_allclose(pipeline.generate("act", inputs)["actions"], actions)
    if name != "options":
        np.testing.assert_allclose(pipeline.act("act", **inputs), actions)
        assert pipeline.generate("act", **inputs) == pipeline.generate("act", inputs)
    assert pipeline.generate("act", {"state": [], name: "pull"}) == []
    assert pipeline.act("act", {"state": [], name: []}).shape == (0, 5, 1)
    assert pipeline.embed(state=[]).shape == (0, *pipeline.embed(state=inputs["state"]).shape[1:])
    policy = make_policy(pipeline, Env(name="any", instruction_column=name))
    policy.reset([{name: "pull"}])
    np.testing.assert_allclose(policy.step({"state": inputs["state"]}), actions[0], atol=1e-6)


def test_a_column_called_task_is_trained_and_asked_for_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe("task", tmp_path)))
    train(parse_recipe(recipe("task", tmp_path)), tmp_path / "run", show=False)
    (tmp_path / "state.csv").write_text("s\n3.0\n")
    monkeypatch.setattr(sys, "argv", ["sensorium", "generate", "run", "state.csv", "task=pull"])
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert not end.value.code
    assert '"task": "pull"' in capsys.readouterr().out
