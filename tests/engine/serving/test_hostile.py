"""What strangers send: random bodies, the schema's corners, many at once, a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_runs import data_uri, png, wav

from sensorium.engine.inference import Pipeline
from sensorium.engine.serving import ServeSettings, create_app

WORDS = (
    "model", "input", "inputs", "messages", "role", "user", "content", "type", "text", "image_url",
    "url", "pictures", "pictures/describe", "speech", "image", "audio", "caption", "question",
    "options", "max_new_tokens", "temperature", "stream", "k", "value", "index", "where", "file",
    "data", "encoding_format", "base64", "dimensions", "file_id", "input_audio", "format", "n",
)  # fmt: skip
ROUTES = (
    "/v1/chat/completions", "/v1/embeddings", "/v1/tasks/digit", "/v1/tasks/ask", "/v1/search",
    "/v1/tasks/transcribe",
)  # fmt: skip


def value(rng: random.Random, depth: int = 0) -> Any:
    """A random JSON value, of words that routes know."""
    kind = rng.randrange(10 if depth < 4 else 6)
    if kind == 0:
        return rng.choice((None, True, False, 0, -1, 1e308, 10**30, 0.5, 3))
    if kind < 4:
        return rng.choice(WORDS)
    if kind == 4:
        return data_uri(png(rng.randrange(9))) if rng.random() < 0.7 else "data:x;base64,!!"
    if kind == 5:
        return "".join(chr(rng.choice((0, 10, 65, 0x661, 0xD800, 0x1F600))) for _ in range(5))
    if kind < 8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(WORDS): value(rng, depth + 1) for _ in range(rng.randrange(5))}


def mutated(rng: random.Random, body: Any) -> Any:
    """A valid body with one of its parts replaced."""
    if rng.random() < 0.3 or not body or not isinstance(body, (dict, list)):
        return value(rng)
    result = body.copy()
    key = rng.choice(list(body)) if isinstance(body, dict) else rng.randrange(len(body))
    result[key] = mutated(rng, body[key])
    return result


PICTURE = {"type": "image_url", "image_url": {"url": data_uri(png())}}
VALID = {
    "/v1/chat/completions": {
        "model": "pictures/describe",
        "messages": [{"role": "user", "content": [PICTURE]}],
        "max_tokens": 3,
        "temperature": 0.5,
        "seed": 1,
    },
    "/v1/embeddings": {"model": "pictures", "input": ["a", "b"], "dimensions": 4},
    "/v1/tasks/digit": {"model": "pictures", "inputs": {"image": data_uri(png())}, "options": {}},
    "/v1/tasks/ask": {
        "model": "pictures",
        "inputs": {"image": data_uri(png()), "question": "what?"},
        "options": {"max_new_tokens": 2, "num_beams": 2},
    },
    "/v1/search": {"stream": "caption", "value": "x", "k": 2},
    "/v1/tasks/transcribe": {
        "model": "speech",
        "inputs": {"audio": {"data": data_uri(wav(0.1))}},
        "options": {"times": True},
    },
}


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("route", ROUTES)
def test_no_body_is_an_error_of_the_server(client: Any, route: str) -> None:
    rng = random.Random(f"0 {route}")
    answers: dict[int, int] = {}
    for number in range(340):
        body = mutated(rng, VALID[route])
        content = json.dumps(body).encode()
        if number % 10 == 0:
            content = content[: rng.randrange(len(content) + 1)]
        headers = {"content-type": "application/json"}
        answer = client.post(route, content=content, headers=headers)
        answers[answer.status_code] = answers.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (body, answer.text)
        if answer.status_code >= 400:
            assert "\n" not in answer.json()["error"]["message"], answer.text
    assert answers.get(400, 0) > 30, answers


@pytest.mark.slow
def test_the_schema_describes_what_is_answered(pipelines: dict[str, Pipeline]) -> None:
    """Requests that schemathesis makes of the OpenAPI schema."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    app = create_app(pipelines, ServeSettings())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen = 0
    for operation in schema.get_all_operations():

        @settings(
            max_examples=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.ok().as_strategy())
        def send(case: Any) -> None:
            nonlocal seen
            answer = case.call()
            assert answer.status_code < 500, answer.text
            seen += 1

        send()
    assert seen > 100


@pytest.mark.slow
def test_many_clients_get_the_answers_of_direct_calls(pipelines: dict[str, Pipeline]) -> None:
    """32 clients at once: none is lost, and memory does not grow with requests."""
    from starlette.testclient import TestClient

    cells = [png(i) for i in range(8)]
    expected = [
        np.asarray(v) for v in pipelines["pictures"].embed(image=cells).float().cpu().numpy()
    ]
    app = create_app(pipelines, ServeSettings(memory_bytes=2**16))
    failures: list[str] = []
    with TestClient(app) as client:

        def ask(number: int) -> None:
            index = number % len(cells)
            body = {"model": "pictures/image", "input": data_uri(cells[index])}
            answer = client.post("/v1/embeddings", json=body)
            if answer.status_code != 200:
                failures.append(answer.text)
                return
            vector = np.asarray(answer.json()["data"][0]["embedding"])
            if not np.allclose(vector, expected[index], atol=1e-4):
                failures.append(f"{number}: another vector")

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, range(600)))
            before = resident()
            list(pool.map(ask, range(1200)))
            grown = resident() - before
    assert failures == []
    assert grown < 30e6, f"{grown / 1e6:.0f} MB more"


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_stops(runs: Path, tmp_path: Path, sent: signal.Signals) -> None:
    """SIGTERM answers what waits; a kill in the middle of uploads leaves no half file."""
    command = [sys.executable, "-m", "sensorium", "serve", str(runs / "pictures"), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--files", str(tmp_path / "files")], stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        if "running on" in line:
            address = line.split("running on ")[1].split()[0]
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    answers: list[int] = []

    def upload(number: int) -> None:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
            + b"y" * 200_000 + b"\r\n--x--\r\n"
        )  # fmt: skip
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{address}/v1/files", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answers.append(answer.status)
        except (urllib.error.URLError, OSError):
            answers.append(0)
        if number == 10:
            process.send_signal(sent)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, range(40)))
    assert process.wait(60) == -sent  # uvicorn stops, then ends by the signal that it got
    assert answers.count(200) >= 5
    from sensorium.engine.serving.files import FileStore

    files = FileStore(tmp_path / "files", 10**9).list()
    assert all(each.bytes == 200_000 and each.path.stat().st_size == 200_000 for each in files)
    assert len(files) >= answers.count(200)
