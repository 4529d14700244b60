"""A run's folder is the model: what is loaded says and embeds what the trained one did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

import sensorium
from sensorium.engine.checkpoint import push
from sensorium.engine.checkpoint.run_folder import FINGERPRINTS
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import Model
from sensorium.engine.recipe import load_recipe, parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError, RuntimeFailure

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {
                "type": "patches",
                "size": 8,
                "patch_size": 4,
                "dim": 12,
                "weights": "hf-hub:org/before",
                "freeze": True,
            },
            "connector": "mlp",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": {"type": "bpe", "size": 300},
        "options": SMALL,
        "lora": {"r": 2},
    },
    "tasks": {
        "caption": {
            "type": "captioning",
            "prompt": "<image> {parity}:",
            "target": "{word}",
            "max_new_tokens": 4,
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 16},
                "test": {"source": "digits", "split": "test", "limit": 6},
            },
        },
        "digit": {
            "type": "classification",
            "input": "image",
            "head": {"type": "mlp", "hidden": 8},
            "target": "word",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        },
    },
    "train": {
        "steps": 4,
        "batch_size": 4,
        "optimizer": {"lr": 0.01},
        "max_grad_norm": None,
        "log_every": 1,
    },
}


def serve(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the hub give a folder, whatever is asked for."""
    import huggingface_hub

    patch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(folder))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run in it (`run`), and the run whose encoder it froze (`before`)."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        serve(patch, folder / "before")
        first: dict[str, Any] = json.loads(json.dumps(RECIPE))
        del first["backbone"], first["tasks"]["caption"], first["inputs"]["image"]["connector"]
        encoder = first["inputs"]["image"]["encoder"]
        first["inputs"]["image"]["encoder"] = encoder | {"weights": "none", "freeze": False}
        train(parse_recipe(first), folder / "before", show=False)
        yield folder


@pytest.fixture(scope="module")
def trained(home: Path) -> Model:
    result: Model = train(
        parse_recipe(RECIPE), home / "run", show=False, command="sensorium train x"
    )
    return result


@pytest.fixture
def copy(home: Path, trained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, to be spoiled."""
    monkeypatch.chdir(home)
    return Path(shutil.copytree(home / "run", tmp_path / "copy"))


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def _ask(pipeline: Pipeline) -> tuple[Any, Any, Tensor]:
    pictures = [_picture(i) for i in range(3)]
    said = pipeline.generate("caption", image=pictures, parity="odd")
    named = pipeline.generate("digit", image=pictures)
    return said, named, pipeline.embed(image=pictures)


@pytest.fixture
def loaded(copy: Path) -> Pipeline:
    return sensorium.load(copy)


def test_what_is_loaded_is_what_was_trained(trained: Model, loaded: Pipeline) -> None:
    before, after = trained.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    said, named, embedded = _ask(Pipeline(trained))
    again = _ask(loaded)
    assert again[0] == said
    assert again[1] == named
    assert torch.equal(again[2], embedded)
    assert not loaded.model.training


def test_it_is_saved_and_loaded_again(loaded: Pipeline, tmp_path: Path) -> None:
    sensorium.save(loaded, tmp_path / "other")
    again = sensorium.load(tmp_path / "other")
    first, second = _ask(loaded), _ask(again)
    assert first[:2] == second[:2]
    assert torch.equal(first[2], second[2])
    for name in ("model.safetensors", "recipe.yaml", FINGERPRINTS):
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()


def test_the_saved_recipe_is_the_one_that_ran(trained: Model, copy: Path) -> None:
    assert load_recipe(copy / "recipe.yaml") == trained.plan.recipe
    assert load_recipe(copy) == trained.plan.recipe


def test_only_what_was_trained_is_kept(trained: Model, copy: Path) -> None:
    from safetensors.torch import load_file

    remaining = load_file(copy / "model.safetensors")
    assert not any(name.startswith("streams.image.encoder.") for name in remaining)
    assert any(name.startswith("streams.image.connector.") for name in remaining)
    assert any("lora_A" in name for name in remaining)
    prints = json.loads((copy / FINGERPRINTS).read_text())
    assert [name for name in prints if not name.endswith(".processor")] == ["inputs.image.encoder"]


def test_no_training_data_is_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.modalities.image.datasets.digits import Digits

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the data were opened")

    monkeypatch.setattr(Digits, "__init__", never)
    sensorium.load(copy).generate("caption", image=_picture(0), parity="odd")


def test_one_value_gives_one_answer(loaded: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(_picture(0)).save(path)
    one = loaded.generate("caption", image=str(path), parity="odd")
    assert set(one) == {"text"}
    assert loaded.generate("caption", image=[str(path)] * 2, parity=["odd", "odd"]) == [one, one]
    assert one == loaded.generate("caption", image=_picture(0), parity="odd")
    vectors = loaded.embed(image=[str(path), path.read_bytes(), _picture(0)])
    assert vectors.shape == (3, 16)
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_options_reach_the_generation(loaded: Pipeline) -> None:
    short = loaded.generate(
        "caption", image=_picture(0), parity="odd", options={"max_new_tokens": 1}
    )
    usual = loaded.generate("caption", image=_picture(0), parity="odd")
    assert len(short["text"]) <= len(usual["text"])


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda p: p.generate("captoin", image=_picture(0)), ("'captoin'", "caption")),
        (lambda p: p.generate("caption", parity="odd"), ("caption", "image", "parity")),
        (lambda p: p.generate("caption", image=_picture(0)), ("'parity'",)),
        (lambda p: p.generate("caption", image=[_picture(0)] * 2, parity=["a"]), ("2", "1")),
        (lambda p: p.embed(picture=_picture(0)), ("'picture'", "image")),
        (lambda p: p.embed(), ("one stream", "none")),
        (lambda p: p.generate("digit", image="gone.png"), ("gone.png",)),
    ],
)
def test_a_wrong_question_is_one_line(
    loaded: Pipeline, ask: Callable[[Pipeline], Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError) as error:
        ask(loaded)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_another_encoder_is_refused_by_its_name(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(home / "before", copy.parent / "other")
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "model.safetensors")
    name = next(k for k in tensors if k.startswith("streams.image.encoder."))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, other / "model.safetensors")
    serve(monkeypatch, other)
    with pytest.raises(ConfigError) as error:
        sensorium.load(copy)
    prints = json.loads((copy / FINGERPRINTS).read_text())
    line = str(error.value)
    assert line.startswith("inputs.image.encoder: ")
    assert prints["inputs.image.encoder"][:12] in line
    assert "\n" not in line


FILES = ["recipe.yaml", "model.safetensors", FINGERPRINTS, "fitted/backbone.tokenizer.json",
         "fitted/tasks.digit.labels.json"]  # fmt: skip


@pytest.mark.parametrize("spoil", ["gone", "cut", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_is_not_whole_is_one_line(copy: Path, name: str, spoil: str) -> None:
    path = copy / name
    if spoil == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if spoil == "cut" else b"")
    with pytest.raises(ConfigError) as error:
        sensorium.load(copy)
    assert "\n" not in str(error.value)
    if name != "recipe.yaml":  # a recipe that is cut short may still be YAML
        assert path.name in str(error.value)


@pytest.mark.parametrize("folder", ["gone", "empty"])
def test_a_folder_that_is_no_run(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        sensorium.load(tmp_path / folder)


def test_a_recipe_that_was_changed_is_refused(copy: Path) -> None:
    text = (copy / "recipe.yaml").read_text()
    assert "hidden: 8" in text
    (copy / "recipe.yaml").write_text(text.replace("hidden: 8", "hidden: 9"))
    with pytest.raises(ConfigError) as error:
        sensorium.load(copy)
    for word in ("tasks.digit.heads.head", "(8", "(9", "was the recipe changed?"):
        assert word in str(error.value)


def test_the_card_says_what_it_is_made_of(copy: Path) -> None:
    card = (copy / "README.md").read_text()
    for words in (
        "inputs.image.encoder | patches | hf-hub:org/before |",
        "sensorium train x",
        "digits",
    ):
        assert words in card
    rows = {line.split(" | ")[0][2:]: line for line in card.splitlines() if line.startswith("| ")}
    assert rows["inputs.image.encoder"].endswith("| no |")
    assert "tasks.caption" not in rows  # it has no parameters of its own
    assert "tasks.digit" not in rows
    assert "tasks.digit.head" in rows


@pytest.mark.parametrize(
    "error", [ConnectionError("offline mode is enabled"), OSError("refused"), ValueError("bad id")]
)
def test_push_without_a_hub_is_one_line(
    copy: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import huggingface_hub

    class Api:
        def create_repo(self, *args: Any, **kwargs: Any) -> None:
            raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(RuntimeFailure, match=rf"cannot be pushed to org/name: .*{error}") as caught:
        push(copy, "org/name")
    assert "\n" not in str(caught.value)


def test_push_uploads_the_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **kwargs: calls.append((name, {"args": args, **kwargs}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push(copy, "org/name", private=True) == "hf-hub:org/name"
    assert [name for name, _ in calls] == ["create_repo", "upload_folder"]
    assert calls[0][1]["private"] is True
    assert "checkpoints/**" in calls[1][1]["ignore_patterns"]
    (copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        push(copy, "org/name")


def test_import_is_light_and_the_rest_comes_when_asked_for() -> None:
    code = (
        "import sys, sensorium; "
        "heavy = {'torch', 'numpy', 'pydantic', 'yaml', 'transformers'} & set(sys.modules); "
        "print(sorted(heavy), sensorium.__version__ != '', "
        "{'load', 'compose', 'push', 'save'} <= set(dir(sensorium)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True", "True"]
    with pytest.raises(AttributeError, match="laod"):
        sensorium.laod  # noqa: B018
    assert sensorium.compose(parse_recipe(_light())).backbone is None


def _light() -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads(json.dumps(RECIPE))
    del recipe["backbone"], recipe["tasks"]["caption"], recipe["inputs"]["image"]["connector"]
    recipe["inputs"]["image"]["encoder"] |= {"weights": "none", "freeze": False}
    return recipe


def test_compose_takes_a_file_too(tmp_path: Path) -> None:
    parse_recipe(_light()).write(tmp_path / "recipe.yaml")
    a, b = sensorium.compose(tmp_path / "recipe.yaml"), sensorium.compose(parse_recipe(_light()))
    assert all(torch.equal(a.state_dict()[k], v) for k, v in b.state_dict().items())


TIMM = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"transform": {"mean": [0.1, 0.2, 0.3]}}, "mean"),
        ({"transform": {"crop_pct": 0.7}}, "crop_pct"),
        ({"transform": {"crop_mode": "squash"}}, "crop_mode"),
        ({"options": {**TIMM, "dynamic_img_size": True, "img_size": 24}}, "input_size"),
    ],
)
@pytest.mark.parametrize("freeze", [True, False])
def test_other_preprocessing_of_its_encoder_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str, freeze: bool
) -> None:
    encoder = {"type": "timm", "name": "vit_tiny_patch16_224", "freeze": freeze}
    encoder |= {"options": {**TIMM, "dynamic_img_size": True}, "weights": "none"}
    data = {"train": {"source": "digits", "split": "train", "limit": 8}}
    recipe = {
        "inputs": {"image": {"modality": "image", "encoder": encoder}},
        "tasks": {
            "digit": {"type": "classification", "input": "image", "target": "word", "data": data}
        },
    }
    train(parse_recipe({**recipe, "train": {"steps": 1, "batch_size": 2}}), tmp_path, show=False)
    sensorium.load(tmp_path)
    written = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    written["inputs"]["image"]["encoder"] |= change
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    expected = rf"^inputs\.image\.encoder\.processor: the run was trained with {named} .* \(now "
    with pytest.raises(ConfigError, match=expected) as caught:
        sensorium.load(tmp_path)
    assert "\n" not in str(caught.value)
