"""Object storage: data, weights, runs and caches on moto's S3 server, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.cache import Store, sync_stores
from sensorium.engine.checkpoint import load_model
from sensorium.engine.data.sources.json_rows import Json
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import (
    ConfigError,
    Mirror,
    RuntimeFailure,
    check_folder,
    find_files,
    find_folder,
    objects,
)
from sensorium.modalities.paths import address_of

BUCKET = "s3://bucket"
TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server on the loopback, and the environment that leads to it."""
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def store(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file system of an empty bucket."""
    import s3fs

    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    system = s3fs.S3FileSystem(use_listings_cache=False)
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    return system


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("s3://bucket/key", "s3://bucket/key"),
        (Path("s3://bucket/key"), "s3://bucket/key"),
        ("gs://b", "gs://b"),
        ("runs/a", None),
        ("hf-hub:org/name", None),
        ("milvus://host/x", None),
        ("https://host/x", None),
        ("c:/data", None),
        ("runs/x:image", None),
    ],
)
def test_what_is_an_address(path: Any, address: str | None) -> None:
    assert address_of(path) == address


def test_tables_and_folders_are_read(store: Any) -> None:
    """Also when an object has changed or is gone since."""
    store.pipe("bucket/data/rows.jsonl", b'{"file": "pictures/a.txt", "n": 1}\n')
    store.pipe("bucket/data/pictures/a.txt", b"one")
    store.pipe("bucket/data/pictures/b.txt", b"two")
    rows = Json(path=f"{BUCKET}/data/rows.jsonl", paths=["file"])
    assert Path(rows[0]["file"]).read_bytes() == b"one" and rows[0]["n"] == 1
    names = [file.name for file in find_files(f"{BUCKET}/data/pictures/*.txt")]
    assert names == ["a.txt", "b.txt"]
    folder = find_folder(f"{BUCKET}/data/pictures")
    store.pipe("bucket/data/pictures/a.txt", b"six")
    store.rm("bucket/data/pictures/b.txt")
    assert find_folder(f"{BUCKET}/data/pictures") == folder
    assert {f.name: f.read_bytes() for f in folder.glob("*.txt")} == {"a.txt": b"six"}


def test_one_line_for_what_is_not_there(store: Any) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/none: does not exist"):
        find_folder(f"{BUCKET}/none")
    with pytest.raises(ConfigError, match="no object fits this pattern"):
        find_files(f"{BUCKET}/*.csv")
    with pytest.raises((ConfigError, RuntimeFailure), match=r"^s3://absent/x: "):
        find_files("s3://absent/x")
    with pytest.raises(ConfigError, match="--out: s3://bucket/x is object storage; name a local"):
        check_folder(Path(f"{BUCKET}/x"), "--out")


def test_a_folder_is_whole_before_it_says_so(store: Any) -> None:
    """The state of a checkpoint is uploaded last and removed first."""
    mirror, calls = Mirror(f"{BUCKET}/run", ("state.json",)), list[str]()
    step = mirror.pull() / "step-1"
    step.mkdir()
    for name in ("a", "state.json", "z"):
        (step / name).write_text(name)
    opened = objects._open

    class Spy:
        """A file system that notes what is written and removed."""

        def __init__(self, system: Any) -> None:
            self.system = system

        def __getattr__(self, name: str) -> Any:
            method = getattr(self.system, name)
            if name not in ("put_file", "rm_file"):
                return method

            def noted(*names: str) -> Any:
                calls.append(names[-1].rpartition("/")[2])
                return method(*names)

            return noted

    def spied(uri: str) -> tuple[Any, str]:
        system, path = opened(uri)
        return Spy(system), path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "_open", spied)
        assert (mirror.push(), mirror.push()) == (3, 0)
        for name in ("a", "state.json", "z"):
            (step / name).unlink()
        mirror.push()
    assert calls == ["a", "z", "state.json", "state.json", "a", "z"]
    assert not store.find("bucket/run")


def test_a_cache_travels(store: Any, tmp_path: Path) -> None:
    with Store(tmp_path / "here", "features", {"x": 1}).writer() as writer:
        writer.put("a", {"values": np.arange(3)})
    assert sync_stores(tmp_path / "here", f"{BUCKET}/cache", upload=True) == 2
    assert sync_stores(tmp_path / "here", f"{BUCKET}/cache", upload=True) == 0
    assert sync_stores(tmp_path / "other", f"{BUCKET}/cache", upload=False) == 2
    (record,) = Store(tmp_path / "other", "features", {"x": 1}).get(["a"])
    assert record["values"].tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match="is no address of object storage"):
        sync_stores(tmp_path, "here", upload=True)


def small_recipe(table: str, steps: int) -> Any:
    encoder = {"type": "causal_lm", "tokenizer": "bytes", "max_length": 8, "config": TINY}
    task = {"type": "classification", "input": "text"}
    data = {"train": {"source": "json", "path": table}}
    checkpoint = {"every": 2, "keep": 1}
    return parse_recipe(
        {
            "inputs": {"text": {"modality": "text", "encoder": encoder, "connector": "mean"}},
            "tasks": {"sort": {**task, "data": data}},
            "train": {"steps": steps, "batch_size": 2, "checkpoint": checkpoint},
        }
    )


@pytest.mark.slow
def test_a_run_is_trained_resumed_and_loaded(store: Any, tmp_path: Path) -> None:
    """With a cache that was emptied in between, as on another machine; equal to a run on a disk."""
    import shutil

    rows = [{"text": text, "label": n % 2} for n, text in enumerate(["go", "no", "on", "in"])]
    store.pipe("bucket/rows.jsonl", "\n".join(map(json.dumps, rows)).encode())
    table, run = f"{BUCKET}/rows.jsonl", f"{BUCKET}/runs/a"
    train(small_recipe(table, 2), run, show=False)
    assert store.exists("bucket/runs/a/model.safetensors")
    assert store.exists("bucket/runs/a/checkpoints/step-00000002/state.json")
    shutil.rmtree(tmp_path / "cache")
    options: Any = {"resume": True, "allow_changes": ["train.steps"], "show": False}
    train(small_recipe(table, 4), run, **options)
    shutil.rmtree(tmp_path / "cache")
    train(small_recipe(table, 2), tmp_path / "local", show=False)
    local = train(small_recipe(table, 4), tmp_path / "local", **options)
    loaded = load_model(run)
    for name, value in local.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


@pytest.mark.slow
def test_an_index_is_filled_and_searched(store: Any) -> None:
    """Also by the table's own lists, which lie where the table does."""
    from sensorium.engine.index import create_index, open_index
    from sensorium.tests.engine.index.index_rows import ABOUT, entries, keys, unit

    vectors = unit(300)
    index = create_index(f"{BUCKET}/index", ABOUT)
    index.add(entries(vectors[:299]))
    again = index.add(entries(vectors[297:], 297))
    assert (again.new, again.replaced, index.count()) == (1, 2, 300)
    index.optimize()
    opened = open_index(f"{BUCKET}/index")
    expected = keys(opened.search(vectors[:2], 3))
    assert keys(opened.search(vectors[:2], 3, kind="ivf_pq")) == expected
    assert [hits[0] for hits in expected] == ["row-0", "row-1"]
    with pytest.raises(ConfigError, match="search it with --search ivf_pq"):
        opened.search(vectors[:1], 1, kind="hnsw")
    with pytest.raises(ConfigError, match="there is no index here"):
        open_index(f"{BUCKET}/other")
