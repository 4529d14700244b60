"""A modality from outside the package, in a file or installed, has the rights of the package's."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import load
from sensorium.engine.recipe import Env, parse_recipe, plan_recipe, registry, schema
from sensorium.engine.report import write_report
from sensorium.engine.rollout import Ablation, RolloutOptions, env_config, rollout
from sensorium.engine.rollout.replay import mean_demonstration
from sensorium.engine.rollout.simulator import Simulator, instructions
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.modalities.modality import Modality

PARTS = Path(__file__).with_name("series_parts.py")
NAMES = {"in a file": "series_parts:SERIES", "installed": "stroke"}

CLASSIFY: dict[str, Any] = {
    "inputs": {"series": {"encoder": "linear", "augment": {"deviation": 0.2}}},
    "tasks": {
        "kind": {
            "type": "classification",
            "input": "series",
            "target": "kind",
            "data": {"train": {"source": "strokes"}, "test": {"source": "strokes", "count": 1}},
        }
    },
    "train": {"steps": 3, "batch_size": 4, "optimizer": {"lr": 0.01}, "log_every": 1},
}
BACKBONE = {
    "type": "causal",
    "name": "tiny-llama",
    "tokenizer": "bytes",
    "weights": "none",
    "options": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}
ACT: dict[str, Any] = {
    "inputs": {"state": {"encoder": {"type": "linear"}, "connector": "linear"}},
    "backbone": BACKBONE,
    "tasks": {
        "walk": {
            "type": "control",
            "prompt": "<state> {instruction}",
            "tokenizer": {"type": "bins", "vocab": 16},
            "data": {"train": {"source": "strokes", "delta_frames": {"action": [0, 3]}}},
        }
    },
    "train": {"steps": 1, "batch_size": 4},
    "env": {"name": ["line/left", "line/right"], "max_steps": 6},
}


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def name(request: Any, runner: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The modality's name in recipes; its file lies in the current folder."""
    shutil.copy(PARTS, runner.folder / PARTS.name)
    monkeypatch.delitem(sys.modules, "series_parts", raising=False)
    monkeypatch.setattr(registry, "_NAMED", {})
    registry._plugins.cache_clear()
    if request.param == "stroke":
        __import__("series_parts").write_plugin(runner.folder)
    yield request.param
    registry._plugins.cache_clear()
    sys.modules.pop("series_parts", None)


def of(recipe: dict[str, Any], name: str, runner: Any) -> dict[str, Any]:
    """The recipe with its streams of this modality."""
    inputs = {stream: {"modality": name} for stream in recipe["inputs"]}
    changed: dict[str, Any] = runner.changed(recipe, {"inputs": inputs})
    return changed


def test_it_is_checked_trained_evaluated_and_shown(runner: Any, name: str) -> None:
    recipe = of(CLASSIFY, name, runner)
    assert "inputs.series.encoder" in str(check(parse_recipe(recipe)))
    model = runner.train(recipe, "run")
    evaluate(model, folder=runner.folder / "run")
    page = write_report([runner.folder / "run"], runner.folder / "page.html").read_text()
    assert "<p class='series'>8 steps</p>" in page
    pipeline = load(runner.folder / "run")
    assert pipeline.generate("kind", series="0,1,2,3,4,5,6,7")["label"] in ("rising", "falling")
    assert pipeline.embed(series="0,1,2,3,4,5,6,7").shape == (1, 4)


def test_without_data_it_is_checked_with_its_example(runner: Any, name: str) -> None:
    recipe = of(CLASSIFY, name, runner)
    recipe["tasks"]["kind"]["data"] = {}
    assert "walked with its example rows" in str(check(parse_recipe(recipe)))


def test_its_options_are_in_the_schema(runner: Any, name: str) -> None:
    result = schema(parse_recipe(of(CLASSIFY, name, runner)))
    rules = result["$defs"]["StreamSection"]["allOf"]
    (rule,) = [r for r in rules if r["if"]["properties"]["modality"]["const"] == name]
    text = json.dumps(rule["then"])
    assert '"deviation"' in text and '"linear"' in text
    sources = result["$defs"]["DataSection"]["allOf"]
    assert "strokes" in [rule["if"]["properties"]["source"]["const"] for rule in sources]


def test_its_simulator_is_driven(runner: Any, name: str) -> None:
    runner.train(of(ACT, name, runner), "run")
    pipeline = load(runner.folder / "run")
    section = env_config(pipeline)
    assert instructions(section, "line/left", range(2)) == ["go left", "go left"]
    figures = rollout(
        pipeline, section, seeds=range(2), options=RolloutOptions(2), folder=runner.folder / "run"
    )
    assert set(figures) == {"line/left", "line/right"}
    swapped = RolloutOptions(2, Ablation(swap_instructions=True))
    assert set(rollout(pipeline, section, names=["line/left"], seeds=[0, 1], options=swapped))
    replayed = RolloutOptions(2, Ablation(open_loop=True))
    (figure,) = rollout(
        pipeline, section, names=["line/right"], seeds=[0, 1], options=replayed
    ).values()
    assert figure["success"] == 1.0
    page = write_report([runner.folder / "run"], runner.folder / "page.html").read_text()
    assert "line/left" in page


def test_its_simulator_can_be_named_in_full(runner: Any, name: str) -> None:
    section = Env(name="series_parts:Line/left", max_steps=6)
    assert Simulator(section.names[0], section).reset(0)["state"].tolist() == [0.0, -0.5]
    assert len(mean_demonstration("series_parts:Line/left", section).actions) == 6
    with pytest.raises(ConfigError, match=r"env\.name: series_parts:Line/up cannot be made: task"):
        Simulator("series_parts:Line/up", section)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "another name": (
        {"modality": "strok"},
        r"inputs\.series\.modality: no modality is called 'strok'.*your own: package\.module",
    ),
    "an encoder": (
        {"modality": "series_parts:Linear"},
        r"inputs\.series\.modality: series_parts:Linear is no modality; expected an object of "
        r"sensorium\.modalities\.modality:Modality",
    ),
    "no such object": (
        {"modality": "series_parts:SERIE"},
        r"inputs\.series\.modality: .* has no 'SERIE'; did you mean 'SERIES'",
    ),
    "no such encoder": (
        {"modality": "series_parts:SERIES", "encoder": "liner"},
        r"inputs\.series\.encoder\.type: no series_parts:SERIES encoder is called 'liner'; did "
        r"you mean 'linear'",
    ),
    "no augment": (
        {"modality": "series_parts:PLAIN"},
        r"inputs\.series\.augment: series_parts:PLAIN has no augment",
    ),
}


@pytest.mark.parametrize("name", ["series_parts:SERIES"], indirect=True)
@pytest.mark.parametrize(("changes", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line(runner: Any, name: str, changes: dict[str, Any], words: str) -> None:
    recipe = runner.changed(of(CLASSIFY, name, runner), {"inputs": {"series": changes}})
    with pytest.raises(ConfigError, match=words) as error:
        plan_recipe(parse_recipe(recipe))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["series_parts:PLAIN"], indirect=True)
def test_what_a_modality_does_not_declare_has_a_default(runner: Any, name: str) -> None:
    rows = [{"series": [0.0, float(i % 2), 1.0], "kind": "ab"[i % 2]} for i in range(8)]
    (runner.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {split: {"source": "json", "path": "rows.jsonl"} for split in ("train", "test")}
    recipe = of(CLASSIFY, name, runner)
    del recipe["inputs"]["series"]["augment"]
    recipe["tasks"]["kind"]["data"] = data
    model = runner.train(recipe, "run")
    evaluate(model, folder=runner.folder / "run")
    assert "&lt;list&gt;" in write_report([runner.folder / "run"], Path("page.html")).read_text()
    recipe["tasks"]["kind"]["data"] = {}
    with pytest.raises(ConfigError, match=r"modality of inputs.series, .*PLAIN, makes no example"):
        check(parse_recipe(recipe))


@pytest.mark.parametrize(
    ("field", "value"),
    [("read", print), ("read", "no_colon"), ("encoders", {"a": "b.c"}), ("envs", {"a": 3})],
)
def test_a_declaration_holds_lazy_strings(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Modality: {field}.* expected 'package.module:name'"):
        Modality(**{field: value})
