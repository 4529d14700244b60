"""Batches, memory of features, limits, keys, metrics: what keeps a server alive."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_runs import data_uri, png, wav

from sensorium.engine.inference import EMBED, Pipeline, StepwisePipeline
from sensorium.engine.serving import ServeSettings, create_app, names_of_runs
from sensorium.engine.serving.errors import RequestError
from sensorium.engine.serving.files import FileStore
from sensorium.engine.serving.routes.captions import as_srt, as_vtt
from sensorium.engine.serving.worker import ModelWorker
from sensorium.engine.utils import ConfigError


def test_three_tasks_of_one_picture_cost_one_encoder_pass(
    pipelines: dict[str, Pipeline],
) -> None:
    stepwise = StepwisePipeline(pipelines["pictures"].model)
    content = png(10)
    for task in ("describe", "digit", "parity", EMBED, "digit"):
        request = stepwise.prepare_row(task, {"image": content})
        ((_, failure),) = stepwise.answer(task, [request])
        assert failure is None
    assert stepwise.encoded == 1
    request = stepwise.prepare_row("digit", {"image": png(11)})
    stepwise.answer("digit", [request])
    assert stepwise.encoded == 2


def test_answers_in_steps_equal_direct_ones(pipelines: dict[str, Pipeline]) -> None:
    for name, task, stream, cells in (
        ("pictures", "digit", "image", [png(i) for i in range(5)]),
        ("pictures", "describe", "image", [png(i) for i in range(5)]),
        ("speech", "transcribe", "audio", [wav(0.2 + 0.1 * i, i) for i in range(4)]),
    ):
        stepwise = StepwisePipeline(pipelines[name].model)
        requests = [stepwise.prepare_row(task, {stream: cell}) for cell in cells]
        answers = [value for value, _ in stepwise.answer(task, requests)]
        expected = pipelines[name].generate(task, {stream: cells})
        for ours, theirs in zip(answers, expected, strict=True):
            assert ours.get("text") == theirs.get("text")
            assert ours.get("label") == theirs.get("label")


def test_the_memory_of_features_has_a_size(pipelines: dict[str, Pipeline]) -> None:
    stepwise = StepwisePipeline(pipelines["pictures"].model, memory_bytes=1)
    for _ in range(2):
        stepwise.answer("digit", [stepwise.prepare_row("digit", {"image": png(1)})])
    assert stepwise.encoded == 2 and stepwise.memory.size == 0


def test_requests_that_wait_together_are_one_batch(pipelines: dict[str, Pipeline]) -> None:
    sizes: list[int] = []
    stepwise = StepwisePipeline(pipelines["pictures"].model)
    worker = ModelWorker(stepwise, ServeSettings(batch=4, wait_ms=10_000), sizes.append)
    cells = [png(i) for i in range(8)]

    async def all_of_them() -> list[Any]:
        rows = [worker.predict("digit", {"image": cell}) for cell in cells]
        bad = worker.predict("digit", {"image": b"no picture"})
        return await asyncio.gather(*rows, bad, return_exceptions=True)

    *answers, failure = asyncio.run(all_of_them())
    worker.close()
    expected = pipelines["pictures"].generate("digit", image=cells)
    assert [each["label"] for each in answers] == [each["label"] for each in expected]
    assert sum(sizes) == 8 and max(sizes) == 4
    assert isinstance(failure, (RequestError, ConfigError))


def test_one_that_fails_in_a_batch_fails_alone(
    pipelines: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    stepwise = StepwisePipeline(pipelines["pictures"].model)
    whole = stepwise._run_encoder

    def fragile(stream: str, samples: Any) -> Any:
        if any(float(v["main"]["pixel_values"].sum()) == bad for v in samples.values()):
            raise RuntimeError("bad one")
        return whole(stream, samples)

    requests = [stepwise.prepare_row("digit", {"image": png(i)}) for i in range(3)]
    bad = float(requests[1].row.samples["image"][0]["main"]["pixel_values"].sum())
    monkeypatch.setattr(stepwise, "_run_encoder", fragile)
    answers = stepwise.answer("digit", requests)
    assert [failure is None for _, failure in answers] == [True, False, True]


def test_too_many_are_refused(pipelines: dict[str, Pipeline]) -> None:
    stepwise = StepwisePipeline(pipelines["pictures"].model)
    worker = ModelWorker(stepwise, ServeSettings(max_waiting=2, wait_ms=0))

    async def all_of_them() -> list[Any]:
        rows = [worker.predict("digit", {"image": png(i)}) for i in range(5)]
        return await asyncio.gather(*rows, return_exceptions=True)

    answers = asyncio.run(all_of_them())
    refused = [each for each in answers if isinstance(each, RequestError)]
    worker.close()
    assert len(refused) == 3 and {each.status for each in refused} == {429}
    assert sum(isinstance(each, dict) for each in answers) == 2

    with pytest.raises(RequestError, match="stopping"):
        asyncio.run(worker.predict("digit", {"image": png()}))


def test_health_metrics_and_the_page(client: Any) -> None:
    client.post("/v1/tasks/digit", json={"model": "pictures", "inputs": {"image": data_uri(png())}})
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    text = client.get("/metrics").text
    assert 'sensorium_requests_total{route="/v1/tasks/{task}",status="200"}' in text
    assert 'sensorium_encoded_items{model="pictures"}' in text
    assert "<title>" in client.get("/").text


def test_the_key_opens_all_routes_but_health(pipelines: dict[str, Pipeline]) -> None:
    from starlette.testclient import TestClient

    app = create_app(pipelines, ServeSettings(api_key="secret", max_bytes=2000))
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer no"}).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert client.get("/v1/models", headers=headers).status_code == 200
        answer = client.post("/v1/files", headers=headers, files={"file": b"x" * 5000})
        assert answer.status_code == 413 and "2,000 bytes" in answer.json()["error"]["message"]
        chunks = (b"x" * 500 for _ in range(10))  # of a length that is not announced
        answer = client.post("/v1/embeddings", headers=headers, content=chunks)
        assert answer.status_code == 413


@pytest.mark.parametrize(
    ("inputs", "status", "words"),
    [
        ({"image": data_uri(png(size=128))}, 413, "image: has 16,384 pixels, more than the 10,000"),
        ({"image": data_uri(b"no picture")}, 400, "digit: "),
        ({"image": "x"}, 400, "image: found no base64"),
        ({"image": {"file": "file-1"}}, 404, "there is no file 'file-1'"),
        ({"image": {"path": "/etc/passwd"}}, 400, "image: found"),
        ({"image": [1, 2]}, 400, "image: found"),
        ({"picture": "x"}, 400, "digit: takes no 'picture'; it takes: image"),
        ({}, 400, "digit: needs image among its inputs"),
    ],
)
def test_inputs_that_do_not_fit(client: Any, inputs: Any, status: int, words: str) -> None:
    answer = client.post("/v1/tasks/digit", json={"model": "pictures", "inputs": inputs})
    assert answer.status_code == status, answer.text
    message = answer.json()["error"]["message"]
    assert words in message and "\n" not in message


def test_runs_have_short_names() -> None:
    assert names_of_runs(["runs/a", "runs/b"]) == {"a": "runs/a", "b": "runs/b"}
    assert set(names_of_runs(["x/a", "y/a"])) == {"x/a", "y/a"}
    with pytest.raises(ConfigError, match="named twice"):
        names_of_runs(["runs/a", "runs/a"])


def test_a_killed_upload_leaves_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 100)
    with pytest.raises(ZeroDivisionError), store.new("a.txt", "test") as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError
    (tmp_path / ".file-0.part").mkdir()  # of a process that was killed
    assert FileStore(tmp_path, 100).list() == [] and not list(tmp_path.iterdir())
    stored = store.add("b.txt", b"whole")
    with pytest.raises(RequestError) as error:
        store.add("c.txt", b"x" * 200)
    assert error.value.status == 413
    assert [file.id for file in FileStore(tmp_path, 100).list()] == [stored.id]


def test_subtitles() -> None:
    words = [("a", 0.0, 0.5), ("b", 0.6, 1.0), ("c <", 3.0, 3661.5)]
    srt = as_srt(words)
    assert srt.startswith(
        "1\n00:00:00,000 --> 00:00:01,000\na b\n\n2\n00:00:03,000 --> 01:01:01,500"
    )
    assert as_vtt(words).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na b\n")
    assert "c &lt;" in as_vtt(words)
    assert as_srt([]) == ""


def test_numbers_that_are_not_finite_are_null() -> None:
    from sensorium.engine.serving.routes.native import as_json

    value = {"a": np.float32("nan"), "b": [np.int64(1), np.arange(2)], "c": None, "d": True}
    assert as_json(value) == {"a": None, "b": [1, [0, 1]], "c": None, "d": True}
