"""A folder with a trained run, and a function that runs a verb in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

Run = Callable[..., tuple[int, str, str]]


RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 12},
            "connector": "mlp",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "options": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    },
    "tasks": {
        "answer": {
            "type": "captioning",
            "prompt": "<image> {parity} or even?",
            "target": "{word}",
            "max_new_tokens": 3,
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 8},
                "test": {"source": "digits", "split": "test", "limit": 4},
            },
        },
    },
    "train": {"steps": 2, "batch_size": 4, "log_every": 1},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recipe, its run, two pictures and a cache of its own."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    for name in ("a", "b=c"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture
def trained(home: Path, run: Run) -> Path:
    """`runs/tiny`, trained by the command line once."""
    folder = Path("runs/tiny")
    if not folder.exists():
        code, _, err = run("train", "tiny.yaml")
        assert code == 0, err
    return folder
