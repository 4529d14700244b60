"""`--decoder URL`: prompts go to a vLLM server as embeddings, and new ids come back. The server is
a stub that speaks vLLM's protocol."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from served_runs import png

from sensorium.engine.inference import Pipeline
from sensorium.engine.serving import RemoteDecoder
from sensorium.engine.serving.remote_decoder import request_options, unsupported_reason
from sensorium.engine.utils import ConfigError, RuntimeFailure


class Stub:
    """A server of a causal model: `prompt_embeds` as vLLM reads them, answers in any order."""

    def __init__(self, model: Any) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.token_ids = True
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, {"data": [{"id": "the-decoder"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.bodies.append(body)
                if self.path != "/v1/completions" or body["model"] != "the-decoder":
                    self.answer(404, {"error": "no such model"})
                    return
                self.answer(200, {"choices": stub.choices(model, body)})

            def answer(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def choices(self, model: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
        choices = []
        for index, text in enumerate(body["prompt_embeds"]):
            raw = io.BytesIO(base64.b64decode(text, validate=True))
            embeds = torch.load(raw, weights_only=True)
            assert embeds.ndim == 2 and embeds.is_floating_point()
            (ids,) = model.generate(
                inputs_embeds=embeds[None],
                max_new_tokens=body["max_tokens"],
                do_sample=body["temperature"] > 0,
                eos_token_id=body["stop_token_ids"],
                pad_token_id=0,
            ).tolist()
            choice = {"index": index, "text": "", "finish_reason": "stop"}
            choices.append(choice | ({"token_ids": ids} if self.token_ids else {}))
        return choices[::-1]


@pytest.fixture
def stub(pipelines: dict[str, Pipeline]) -> Iterator[Stub]:
    backbone: Any = pipelines["pictures"].model.backbone
    stub = Stub(backbone.model)
    yield stub
    stub.server.shutdown()
    stub.server.server_close()
    vars(backbone).pop("generate", None)


def answers(pipeline: Pipeline) -> list[Any]:
    task = "ask"
    questions = ("what is it?", "what?")
    return [
        pipeline.generate(task, image=png(seed), question=text, options={"max_new_tokens": 6})
        for seed, text in enumerate(questions)
    ]


def test_a_server_of_vllm_answers_as_the_decoder_here(
    pipelines: dict[str, Pipeline], stub: Stub
) -> None:
    pipeline = pipelines["pictures"]
    expected = answers(pipeline)
    RemoteDecoder(stub.url).attach({"pictures": pipeline})
    assert answers(pipeline) == expected
    assert len(stub.bodies) == 2
    assert all(body["temperature"] == 0 and body["max_tokens"] == 6 for body in stub.bodies)


def test_a_batch_is_one_request_and_padding_is_not_sent(
    pipelines: dict[str, Pipeline], stub: Stub
) -> None:
    from sensorium.modalities.base import Features

    backbone: Any = pipelines["pictures"].model.backbone
    torch.manual_seed(0)
    mask = torch.arange(5) < torch.tensor([[5], [2], [3]])
    condition = Features(torch.randn(3, 5, backbone.dim), mask)
    expected = backbone.generate(condition, max_new_tokens=4, do_sample=False)
    remote = RemoteDecoder(f"{stub.url}/v1/")
    ids = remote.generate(condition, backbone, {"max_new_tokens": 4})
    assert ids.tolist() == expected.tolist()
    lengths = []
    for text in stub.bodies[0]["prompt_embeds"]:
        raw = io.BytesIO(base64.b64decode(text))
        lengths.append(len(torch.load(raw, weights_only=True)))
    assert lengths == [5, 2, 3]
    stub.token_ids = False
    with pytest.raises(RuntimeFailure, match="has no token_ids; update vLLM"):
        remote.generate(condition, backbone, {"max_new_tokens": 4})
    remote.model = "another"
    with pytest.raises(RuntimeFailure, match=r"404: .*no such model"):
        remote.generate(condition, backbone, {"max_new_tokens": 4})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("none", "has no backbone; vLLM runs causal ones"),
        ("rows", "has 2 added rows, which vLLM does not know"),
        ("lora", "has adapters; merge them"),
        ("prefix", r"attention: is prefix, and vLLM attends causally"),
    ],
)
def test_what_vllm_cannot_run_is_refused_by_name(change: str, reason: str) -> None:
    from served_runs import PICTURES

    from sensorium.engine.model import build
    from sensorium.engine.recipe import parse_recipe
    from sensorium.tests.engine.conftest import merged

    tasks = {n: t for n, t in PICTURES["tasks"].items() if t["type"] == "captioning"}
    over: dict[str, Any] = {}
    if change == "lora":
        over = {"backbone": {"lora": {"r": 2}}}
    if change == "prefix":
        over = {"tasks": {name: {"attention": "prefix"} for name in tasks}}
    model = build(parse_recipe(merged(PICTURES, over)))
    if change == "rows":
        model.backbone.add_tokens(2)  # type: ignore[union-attr]
    if change == "none":
        del model.decoders["backbone"]
    assert re.search(reason, unsupported_reason(model) or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 3}, "num_beams: --decoder hands requests to vLLM"),
        ({"logits_processor": [1]}, "logits_processor: --decoder hands requests"),
        ({"layer_hooks": {0: 1}}, "layer_hooks: --decoder hands requests"),
    ],
)
def test_options_that_vllm_lacks_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request_options(options, 2)


def test_options_have_vllms_names() -> None:
    greedy = request_options({"max_new_tokens": 3, "temperature": 0.7}, None)
    assert greedy == {"max_tokens": 3, "temperature": 0.0}
    sampled = request_options({"do_sample": True, "temperature": 0.7, "top_p": 0.9}, 1)
    assert sampled == {"max_tokens": 20, "temperature": 0.7, "top_p": 0.9, "stop_token_ids": [1]}


def test_an_address_is_checked() -> None:
    with pytest.raises(ConfigError, match="--decoder: found 'gpu:1', expected an address"):
        RemoteDecoder("gpu:1")
    with pytest.raises(RuntimeFailure, match="/v1/models: "):
        RemoteDecoder("http://127.0.0.1:9")
