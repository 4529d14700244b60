"""The Python API: abilities, several tasks at once, iterators, addresses, what `load` takes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sensorium
from sensorium.engine.inference import Pipeline, load, pipeline
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError
from sensorium.tasks import TASKS
from sensorium.tasks.base import Task

DATA = {"train": {"source": "digits", "split": "train", "limit": 16}}
RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 12},
            "connector": "mlp",
        },
        "caption": {
            "modality": "text",
            "encoder": {
                "type": "causal_lm",
                "tokenizer": "bytes",
                "max_length": 32,
                "config": {
                    "model_type": "llama",
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 2,
                },
            },
            "connector": "mean",
        },
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "options": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    },
    "tasks": {
        "describe": {
            "type": "captioning",
            "prompt": "<image> It is",
            "target": "{word}",
            "max_new_tokens": 3,
            "data": DATA,
        },
        "digit": {"type": "classification", "input": "image", "target": "word", "data": DATA},
        "parity": {"type": "classification", "input": "image", "target": "parity", "data": DATA},
        "match": {
            "type": "contrastive",
            "streams": ["image", "caption"],
            "dim": 16,
            "data": DATA,
        },
    },
    "train": {"steps": 2, "batch_size": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        train(parse_recipe(RECIPE), folder / "run", show=False)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Pipeline:
    return load(run, device="cpu")


@pytest.fixture(scope="module")
def pixels() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (8, 8, 3), np.uint8) for _ in range(5)]


def test_one_picture_in_every_form(model: Pipeline, pixels: list[np.ndarray], folder: Path) -> None:
    picture = Image.fromarray(pixels[0])
    path = folder / "one.png"
    picture.save(path)
    file = io.BytesIO(path.read_bytes())
    forms = [pixels[0], picture, str(path), path, path.read_bytes(), torch.tensor(pixels[0]), file]
    answers = [model.classify("digit", image=form) for form in forms]
    assert all(answer == answers[0] for answer in answers)
    together = model.classify("digit", image=list(forms[:4]))
    assert [answer["label"] for answer in together] == [answers[0]["label"]] * 4


def test_abilities_are_generate_by_another_name(model: Pipeline, pixels: list[np.ndarray]) -> None:
    assert model.caption(image=pixels) == model.generate("describe", image=pixels)
    assert model.classify("parity", image=pixels) == model.generate("parity", image=pixels)
    assert model.caption(image=pixels[0], options={"max_new_tokens": 1})["text"] is not None


@pytest.mark.parametrize("name", sorted(TASKS))
def test_an_ability_of_a_task_is_a_method(name: str) -> None:
    from sensorium.engine.inference.pipeline import ABILITIES
    from sensorium.engine.recipe import find

    task: type[Task] = find("task", name, name)
    assert task.ability == "" or (task.ability in ABILITIES and hasattr(Pipeline, task.ability))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.classify(image="a"), "classify: found digit, parity, expected one task"),
        (lambda m: m.transcribe(image="a"), "one task; the tasks of the model are"),
        (lambda m: m.classify("describe", image="a"), "the task 'describe' can caption; those"),
        (lambda m: m.classify("digits", image="a"), "no task 'digits'; did you mean 'digit'"),
        (lambda m: pipeline("captoin", m), "no task 'captoin'; did you mean 'caption'"),
        (lambda m: pipeline("classify", m), "classify: found digit, parity"),
        (lambda m: pipeline("embed", m)("a"), "embed: name the stream of the input"),
    ],
)
def test_wrong_questions_are_one_line(model: Pipeline, call: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        call(model)
    assert "\n" not in str(error.value)


def test_several_tasks_cost_one_pass_of_the_encoder(
    model: Pipeline, pixels: list[np.ndarray]
) -> None:
    passes: list[int] = []
    encoder = model.model.stream("image").encoder
    handle = encoder.register_forward_hook(lambda *args: passes.append(1))
    try:
        alone = {name: model.generate(name, image=pixels) for name in ("describe", "digit")}
        assert len(passes) == 2 * 3  # batches of two
        passes.clear()
        together = model.generate(["describe", "digit"], image=pixels)
        assert len(passes) == 3
        passes.clear()
        model.generate(["describe", "digit", "parity"], image=pixels, batch_size=5)
        assert len(passes) == 1
        one = model.generate(["digit", "describe"], image=pixels[0])
    finally:
        handle.remove()
    assert together["describe"] == alone["describe"]
    for ours, theirs in zip(together["digit"], alone["digit"], strict=True):
        assert ours["label"] == theirs["label"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
    assert list(one) == ["digit", "describe"] and one["describe"] == alone["describe"][0]


def test_a_value_that_cannot_be_read_is_named_by_several_tasks_too(model: Pipeline) -> None:
    with pytest.raises(ConfigError, match=r"gone\.png"):
        model.generate(["describe", "digit"], image=["gone.png", np.zeros((8, 8), np.uint8)])


def test_iterators_are_answered_lazily(model: Pipeline, pixels: list[np.ndarray]) -> None:
    read: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for number, picture in enumerate(pixels):
            read.append(number)
            yield picture

    answers = model.caption(image=camera())
    assert not read
    first = next(answers)
    assert len(read) == 2  # a batch of the recipe's
    assert [first, *answers] == model.caption(image=pixels)
    both = list(model.generate(["digit", "parity"], image=iter(pixels), batch_size=3))
    assert [set(each) for each in both] == [{"digit", "parity"}] * 5
    vectors = list(model.embed(image=iter(pixels)))
    torch.testing.assert_close(torch.stack(vectors), model.embed(image=pixels))


def test_a_pipeline_is_a_task_as_a_function(
    model: Pipeline, run: Path, pixels: list[np.ndarray]
) -> None:
    caption = sensorium.pipeline("caption", run, device="cpu", batch_size=4)
    assert caption(pixels) == model.caption(image=pixels)
    assert caption(image=pixels[0]) == model.caption(image=pixels[0])
    assert pipeline("parity", model)(pixels[0]) == model.classify("parity", image=pixels[0])
    embed = pipeline("embed", model, batch_size=2)
    torch.testing.assert_close(embed(image=pixels), model.embed(image=pixels))
    assert len(list(pipeline("digit", model)(iter(pixels)))) == 5


@pytest.fixture
def server(folder: Path, pixels: list[np.ndarray]) -> Iterator[str]:
    Image.fromarray(pixels[0]).save(folder / "served.png")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_are_fetched_only_where_asked_for(
    model: Pipeline, server: str, pixels: list[np.ndarray]
) -> None:
    address = f"{server}/served.png"
    for call in (model.caption, model.embed):
        with pytest.raises(ConfigError, match=r"image: http.*not fetched; download it first, or"):
            call(image=address)
    asking = Pipeline(model.model, allow_urls=True)
    for form in (address, {"path": address}):
        assert asking.caption(image=[form]) == model.caption(image=pixels[:1])
    assert asking.embed(image=address).shape == (1, 16)
    with pytest.raises(ConfigError, match=r"gone\.png cannot be fetched"):
        asking.caption(image=f"{server}/gone.png")


def test_a_text_may_be_an_address(model: Pipeline) -> None:
    assert model.embed(caption="https://example.org").shape == (1, 16)


def test_load_takes_a_recipe(run: Path, folder: Path, pixels: list[np.ndarray]) -> None:
    import yaml

    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    composed = sensorium.load(path, device="cpu")
    assert composed.embed(image=pixels).shape == (5, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "bf16", "torch.bfloat16"])
def test_load_takes_a_dtype(run: Path, dtype: Any) -> None:
    assert load(run, device="cpu", dtype=dtype).model.precision == "bf16"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float8"}, "dtype: there is no 'float8'; did you mean 'float"),
        ({"dtype": torch.int8}, "dtype: there is no 'int8'"),
        ({"revision": "v2"}, "revision: found 'v2' beside .*; only a hub id"),
    ],
)
def test_wrong_options_of_load(run: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(run, **options)


def test_a_revision_of_the_hub(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    requested: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        requested.append((name, options.get("revision")))
        return str(run)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load("hf-hub:org/name", revision="v2", device="cpu")
    assert requested == [("org/name", "v2")]
