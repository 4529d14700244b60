"""A recipe whose task reads no stream goes through every verb, or is told in a line why not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from sensorium import __main__ as entry
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check

PARTS = Path(__file__).with_name("streamless_parts.py")

DATA = {
    "train": {"source": "digits", "split": "train", "limit": 24, "holdout": 0.25},
    "test": {"source": "digits", "split": "test", "limit": 6},
}
PRIOR: dict[str, Any] = {
    "tasks": {"prior": {"type": "streamless_parts:Prior", "data": DATA}},
    "train": {
        "steps": 4,
        "batch_size": 4,
        "log_every": 1,
        "validate": {"every": 2, "metric": "prior/nll"},
    },
}
LANGUAGE: dict[str, Any] = {
    "inputs": {},
    "backbone": {
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
    },
    "tasks": {"language": {"type": "streamless_parts:LanguageModel", "data": DATA}},
    "train": {"steps": 2, "batch_size": 4, "log_every": 1},
}
RECIPES = {"prior": (PRIOR, "word=two"), "language": (LANGUAGE, "caption=a two")}


@pytest.fixture
def home(runner: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with the tasks' file in it."""
    shutil.copy(PARTS, runner.folder / PARTS.name)
    monkeypatch.delitem(sys.modules, "streamless_parts", raising=False)
    yield runner
    sys.modules.pop("streamless_parts", None)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`sensorium WORDS` in this process: exit code, stdout, stderr."""

    def sensorium(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sensorium", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            entry.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return sensorium


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("inputs", [{}, None], ids=["empty", "left out"])
def test_inputs_may_be_empty_or_left_out(home: Any, name: str, inputs: Any) -> None:
    recipe = parse_recipe(home.changed({**RECIPES[name][0], "inputs": {}}, {"inputs": inputs}))
    assert recipe.inputs == {}
    assert parse_recipe(recipe.to_dict()) == recipe
    assert f"tasks.{name}" in str(check(recipe)) or name == "language"


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_verb_after_training(home: Any, run: Any, name: str) -> None:
    recipe, words = RECIPES[name]
    home.write(recipe, name)
    folder = home.folder / "runs" / name

    def good(*words: str) -> str:
        code, out, err = run(*words)
        assert code == 0, err
        return str(out)

    good("train", f"{name}.yaml")
    assert "no README" not in good("report", str(folder), "--out", "page.html")
    good("evaluate", str(folder))
    result = json.loads((folder / "evaluation.json").read_text())[name]
    assert result["nll"] > 0 and not [key for key in result if key.endswith("_shuffled")]
    (line,) = good("generate", str(folder), words).splitlines()
    assert json.loads(line)["prediction"]["nll"] > 0
    good("generate", str(folder), words, "--out", str(home.folder / "answers"))
    good("report", str(folder), "--out", "page.html")
    page = (home.folder / "page.html").read_text()
    assert 'aria-label="task ' in page or 'aria-label="decoder causal' in page
    assert "| nll |" in (folder / "README.md").read_text().replace(f"| {name} ", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", "RUN", "a.jpg"), "a.jpg: prior reads no stream; write word=VALUE"),
        (("generate", "RUN", "wrod=two"), "did you mean 'word'?"),
        (("embed", "RUN", "--out", "index"), "--stream: the recipe has no stream to embed"),
        (("embed", "RUN", "--stream", "image"), "--stream: there is no 'image'; there are none"),
        (("rollout", "RUN", "--env", "metaworld/push-v3"), "expected a control task"),
    ],
)
def test_what_needs_a_stream_says_so_in_a_line(
    home: Any, run: Any, words: tuple[str, ...], message: str
) -> None:
    home.train(PRIOR, "run")
    code, _, err = run(*(str(home.folder / "run") if w == "RUN" else w for w in words))
    assert code == 2 and message in err and err.count("\n") == 1, err


def test_the_python_api_says_so_too(home: Any) -> None:
    from sensorium import load
    from sensorium.engine.utils import ConfigError

    home.train(PRIOR, "run")
    pipeline = load(home.folder / "run")
    assert len(pipeline.generate("prior", word=["one", "two"])) == 2
    with pytest.raises(ConfigError, match="embed: the recipe has no stream"):
        pipeline.embed(image="a.jpg")
