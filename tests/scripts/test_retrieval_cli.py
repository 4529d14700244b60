"""`sensorium embed` and `sensorium retrieve` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from sensorium import __main__ as entry
from sensorium.engine.recipe import registry

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 12},
            "connector": "mean",
        },
        "caption": {
            "modality": "text",
            "encoder": {
                "type": "transformers",
                "tokenizer": "bytes",
                "config": {
                    "model_type": "bert",
                    "hidden_size": 12,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 12,
                },
            },
            "connector": "mean",
        },
    },
    "tasks": {
        "match": {
            "type": "contrastive",
            "streams": ["image", "caption"],
            "dim": 12,
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 16},
                "test": {"source": "digits", "split": "test", "limit": 10},
            },
        },
    },
    "train": {"steps": 2, "batch_size": 4, "log_every": 1},
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recipe, photographs of a user's own, and a cache."""
    folder = tmp_path_factory.mktemp("retrieval")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    (folder / "photos" / "2024").mkdir(parents=True)
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / ("2024" if i % 2 else "") / f"{i}.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture
def trained(home: Path, run: Run) -> str:
    """`runs/tiny`, trained by the command line once."""
    if not Path("runs/tiny").exists():
        code, _, err = run("train", "tiny.yaml")
        assert code == 0, err
    return "runs/tiny"


@pytest.fixture
def index(trained: str, run: Run) -> str:
    """The photographs, embedded once."""
    if not Path("index").exists():
        code, out, err = run("embed", trained, "--stream", "image", "--data", "photos")
        assert code == 0, err
        assert out.startswith("index: 6 rows embedded")
        assert "1 rows could not be read" in out
        assert err.startswith("broken.jpg: ")
    return "index"


def test_a_folder_of_photographs_in_three_commands(index: str, run: Run) -> None:
    code, out, err = run("retrieve", index, "--text", "a beach", "-k", "2", "--html", "a.html")
    assert code == 0, err
    head, *rows = out.splitlines()
    assert head.split() == ["score", "key", "image"]
    assert len(rows) == 2
    assert err == "a.html\n"
    page = Path("a.html").read_text()
    assert page.count('<li class="sample">') == page.count("data:image/png") == 2
    assert "a beach" in page


def test_json_lines(index: str, run: Run) -> None:
    code, out, _ = run("retrieve", index, "--image", "photos/2024/3.jpg", "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert (rows[0]["key"], rows[0]["score"]) == ("2024/3.jpg", pytest.approx(1, abs=1e-5))
    assert rows[0]["image"] == str(Path("photos/2024/3.jpg").resolve())


def test_a_split_of_the_recipe_and_a_condition(trained: str, run: Run) -> None:
    code, out, err = run("embed", trained, "--stream", "caption", "--out", "captions")
    assert code == 0, err
    assert "10 rows embedded" in out
    code, out, err = run("embed", trained, "--stream", "caption", "--out", "captions")
    assert "0 rows embedded" in out
    assert "10 were there already" in out
    run("embed", trained, "--stream", "caption", "--out", "captions", "--split", "train")
    where = "split = 'train' AND parity = 'odd'"
    options = ("--image", "photos/0.jpg", "-k", "50", "--where", where, "--json")
    code, out, err = run("retrieve", "captions", *options, "--html", "c.html")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows
    assert {(row["split"], row["parity"]) for row in rows} == {("train", "odd")}
    assert all(row["caption"].split()[2].strip(",") in Path("c.html").read_text() for row in rows)
    code, out, _ = run("retrieve", "captions", "--text", "x", "--where", "label > 10")
    assert (code, out) == (0, "no row was found\n")


FORMS: dict[str, list[str]] = {
    "cut": ["--dim", "8"],
    "bytes": ["--storage", "int8"],
    "bits": ["--dim", "8", "--storage", "binary"],
    "tokens": ["--form", "multi_vector"],
    "sparse": ["--form", "sparse"],
}


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("form", FORMS)
def test_an_index_of_another_form_finds_a_picture_by_itself(
    index: str, trained: str, run: Run, form: str
) -> None:
    words = ("embed", trained, "--stream", "image", "--data", "photos", "--out", form)
    code, out, err = run(*words, *FORMS[form])
    assert code == 0 and "6 rows embedded" in out, err
    code, out, err = run(*words, *FORMS[form])
    assert "0 rows embedded" in out and "6 were there already" in out
    code, out, err = run("retrieve", form, "--image", "photos/4.jpg", "-k", "9", "--json")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 6
    assert "4.jpg" in [row["key"] for row in rows][: 3 if form in ("bits", "sparse") else 1]
    code, _, err = run(*words)
    assert code == 2 and "or give them another --out" in err


def test_several_indexes_are_fused_and_passages_grouped(trained: str, index: str, run: Run) -> None:
    for form in ("cut", "bytes"):
        if not Path(form).exists():
            words = ("embed", trained, "--stream", "image", "--data", "photos", "--out", form)
            run(*words, *FORMS[form])
    code, out, err = run("retrieve", index, "cut", "bytes", "--image", "photos/2.jpg", "--json")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["key"] == "2.jpg" and rows[0]["score"] == pytest.approx(3 / 61, abs=1e-4)
    if not Path("captions").exists():
        run("embed", trained, "--stream", "caption", "--out", "captions")
    for aggregate in ("max", "sum"):
        options = ("--group-by", "parity", "--aggregate", aggregate, "--json")
        code, out, err = run("retrieve", "captions", "--text", "two", *options)
        assert code == 0, err
        rows = [json.loads(line) for line in out.splitlines()]
        assert {row["parity"] for row in rows} == {"odd", "even"} and len(rows) == 2
        assert (rows[0]["score"] > 1.5) is (aggregate == "sum")


@pytest.mark.parametrize(
    ("method", "words", "keys"),
    [
        ("paraphrases", ["captions", "--threshold", "-1"], {"first", "second", "score"}),
        ("shared", ["captions", "--by", "parity"], {"first", "second", "score"}),
        ("bitext", ["captions", "captions", "--threshold", "-9"], {"first", "second", "score"}),
        ("negatives", ["captions", "captions", "-k", "2"], {"first", "second", "negatives"}),
        ("consistent", ["captions", "captions", "-k", "10"], {"first", "second", "rank"}),
    ],
)
def test_pairs_are_mined(
    trained: str, run: Run, method: str, words: list[str], keys: set[str]
) -> None:
    if not Path("captions").exists():
        run("embed", trained, "--stream", "caption", "--out", "captions")
    code, out, err = run("mine", method, *words, "--out", "mined.jsonl")
    assert code == 0, err
    rows = [json.loads(line) for line in Path("mined.jsonl").read_text().splitlines()]
    assert rows and out.startswith(f"mined.jsonl: {len(rows)} rows")
    assert all(set(row) == keys and isinstance(row["first"], str) for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["retrieve", "index", "--text", " "], "--text: the query is empty"),
        (["retrieve", "index", "--text", "x", "--where", "splt = 1"], "no column 'splt'"),
        (["retrieve", "index", "--text", "x", "-k", "0"], "-k: found 0"),
        (["retrieve", "index", "--text", "x", "--search", "hsnw"], "did you mean 'hnsw'"),
        (["retrieve", "index", "--mri", "a.nii"], "has 0 streams of mri"),
        (["retrieve", "index", "--image", "photos/broken.jpg"], "broken.jpg: no picture"),
        (["retrieve", "index"], "found 0 queries"),
        (["retrieve", "index", "--text", "x", "--aggregate", "sum"], "pass --group-by COLUMN"),
        (["retrieve", "index", "--text", "x", "--group-by", "imag"], "did you mean 'image'"),
        (["embed", "runs/tiny", "--stream", "image", "--dim", "13"], "--dim: found 13"),
        (["retrieve", "nothing", "--text", "x"], "nothing: there is no index here"),
        (["embed", "runs/tiny", "--data", "photos"], "--stream: which? there are: "),
        (["embed", "runs/tiny", "--stream", "imag"], "did you mean 'image'"),
        (["embed", "runs/tiny", "--stream", "image", "--data", "phots"], "'phots' is no folder"),
        (["embed", "runs/tiny", "--stream", "caption", "--out", "index"], "stream 'image'"),
        (["embed", "runs/none", "--stream", "image"], "runs/none"),
        (["mine", "bitext", "index"], "mine: bitext reads 2 index, found 1"),
        (["mine", "shared", "index"], "--by: shared pairs rows"),
        (["mine", "negatives", "index", "index", "--by", "parety"], "--by: the index has no"),
        (
            ["embed", "tiny.yaml", "train.seed=5", "--stream", "image", "--out", "index"],
            "another --out",
        ),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    index: str, run: Run, words: list[str], message: str
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.slow
def test_it_is_a_script_too(index: str) -> None:
    script = Path(entry.__file__).parent / "scripts" / "retrieve.py"
    for words, code in ((["--text", "x", "--json", "-k", "1"], 0), (["--text", ""], 2)):
        command = [sys.executable, str(script), index, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert (done.stdout + done.stderr).count("\n") == 1


@pytest.mark.slow
def test_workers_are_forked_before_the_table_has_threads(trained: str) -> None:
    """LanceDB warns where it is forked: its locks may be held."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "sensorium", "embed", trained]
    command += ["--stream", "image", "--data", "photos", "--out", "forked", "--num-workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 rows embedded" in done.stdout


@pytest.mark.parametrize("library", ["lancedb", "faiss"])
def test_an_absent_library_names_its_extra(
    index: str, run: Run, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    real = registry.importlib.import_module

    def without(name: str, *more: Any) -> Any:
        if name == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *more)

    monkeypatch.setattr(registry.importlib, "import_module", without)
    code, _, err = run("retrieve", index, "--image", "photos/0.jpg", "--search", "ivf")
    assert code == 2
    assert err == f"error: {library} is not installed: pip install 'sensorium[retrieval]'\n"
