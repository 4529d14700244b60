"""OpenAI's client against the server, and answers that equal direct calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from served_runs import data_uri, png, wav

from sensorium.engine.inference import Pipeline


@pytest.fixture(scope="module")
def openai(client: Any) -> OpenAI:
    return OpenAI(api_key="none", base_url="http://testserver/v1", http_client=client)


def picture(content: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri(content)}}


def test_models_are_listed_with_the_schemas_of_their_tasks(openai: OpenAI) -> None:
    models = {model.id: model for model in openai.models.list()}
    assert set(models) == {"pictures", "speech"}
    tasks = openai.models.retrieve("pictures").model_dump()["tasks"]
    assert tasks["ask"]["inputs"]["required"] == ["image", "question"]
    assert tasks["digit"]["ability"] == "classify"


@pytest.mark.parametrize("stream", [False, True])
def test_chat_with_a_picture(openai: OpenAI, pipelines: dict[str, Pipeline], stream: bool) -> None:
    content = png(1)
    expected = pipelines["pictures"].generate("describe", image=content)["text"]
    message: Any = {"role": "user", "content": [picture(content)]}
    answer = openai.chat.completions.create(
        model="pictures/describe", messages=[message], stream=stream
    )
    if stream:
        chunks = list(answer)  # type: ignore[arg-type]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        text = answer.choices[0].message.content or ""
    assert text.strip() == expected


def test_the_text_of_a_message_is_the_column_of_the_prompt(
    openai: OpenAI, pipelines: dict[str, Pipeline]
) -> None:
    content = png(2)
    message: Any = {
        "role": "user",
        "content": [{"type": "text", "text": "what is it?"}, picture(content)],
    }
    answer = openai.chat.completions.create(model="pictures/ask", messages=[message])
    expected = pipelines["pictures"].generate("ask", image=content, question="what is it?")
    assert answer.choices[0].message.content == expected["text"]


def test_a_seed_draws_the_same_text_twice(openai: OpenAI) -> None:
    message: Any = {"role": "user", "content": [picture(png(3))]}
    texts = {
        seed: [
            openai.chat.completions.create(
                model="pictures/describe", messages=[message], temperature=2.0, seed=seed,
                max_tokens=12,
            ).choices[0].message.content
            for _ in range(2)
        ]
        for seed in range(4)
    }  # fmt: skip
    assert all(first == second for first, second in texts.values())
    assert len({first for first, _ in texts.values()}) > 1


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_are_those_of_a_direct_call(
    openai: OpenAI, pipelines: dict[str, Pipeline], form: Any
) -> None:
    texts = ["a red circle", "two squares", "ü"]
    answer = openai.embeddings.create(model="pictures", input=texts, encoding_format=form)
    vectors = [each.embedding for each in answer.data]
    if form == "base64":
        vectors = [np.frombuffer(_decoded(vector), np.float32) for vector in vectors]
    expected = pipelines["pictures"].embed(caption=texts)
    np.testing.assert_allclose(np.asarray(vectors), expected, atol=1e-5)


def _decoded(text: Any) -> bytes:
    import base64

    return base64.b64decode(text)


def test_embeddings_of_pictures_and_fewer_dimensions(
    openai: OpenAI, pipelines: dict[str, Pipeline]
) -> None:
    contents = [png(4), png(5)]
    answer = openai.embeddings.create(
        model="pictures/image", input=[data_uri(c) for c in contents], dimensions=4
    )
    full = pipelines["pictures"].embed(image=contents)[:, :4]
    expected = full / full.norm(dim=1, keepdim=True)
    vectors = np.asarray([each.embedding for each in answer.data])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("form", ["json", "text", "verbose_json", "srt", "vtt"])
def test_transcriptions(openai: OpenAI, pipelines: dict[str, Pipeline], form: Any) -> None:
    content = wav(seed=7)
    answer: Any = openai.audio.transcriptions.create(
        file=("a.wav", content), model="speech", response_format=form
    )
    expected = pipelines["speech"].generate("transcribe", audio=content, options={"times": True})
    if form in ("json", "verbose_json"):
        assert answer.text == expected["text"]
    if form == "verbose_json":
        assert [[w.word, w.start, w.end] for w in answer.words] == expected["words"]
    if form in ("srt", "vtt"):
        assert answer.count("-->") >= bool(expected["words"])
        assert all(word in answer for word, _, _ in expected["words"])
    if form == "text":
        assert answer.strip() == expected["text"]


def test_files_are_inputs(openai: OpenAI, client: Any, pipelines: dict[str, Pipeline]) -> None:
    content = png(6)
    stored = openai.files.create(file=("../../six.png", content), purpose="user_data")
    assert (stored.filename, stored.bytes) == ("six.png", len(content))
    assert openai.files.content(stored.id).read() == content
    answer = client.post("/v1/tasks/digit", json={
        "model": "pictures", "inputs": {"image": {"file": stored.id}},
    })  # fmt: skip
    expected = pipelines["pictures"].generate("digit", image=content)
    assert answer.json()["prediction"]["label"] == expected["label"]
    message: Any = {"role": "user", "content": [{"type": "file", "file": {"file_id": stored.id}}]}
    chat = openai.chat.completions.create(model="pictures/describe", messages=[message])
    assert chat.choices[0].message.content is not None
    openai.files.delete(stored.id)
    with pytest.raises(NotFoundError, match="there is no file"):
        openai.files.retrieve(stored.id)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "pictures"}, "name one, as in pictures/TASK"),
        ({"model": "pictures/describe", "messages": "x"}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "one message of the user"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "takes no text"),
        ({"temperature": 9}, "temperature: Input should be less than or equal to 2"),
        ({"top_p": 0.5}, "top_p: has no effect"),
        ({"n": 2}, "n: "),
        ({"logprobs": True}, "logprobs: Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_one_line(client: Any, body: dict[str, Any], words: str) -> None:
    full = {
        "model": "pictures/describe",
        "messages": [{"role": "user", "content": [picture(png())]}],
        **body,
    }
    answer = client.post("/v1/chat/completions", json=full)
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert words in message and "\n" not in message


def test_addresses_and_paths_are_not_read(openai: OpenAI, tmp_path: Any) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(png())
    for url in ("http://127.0.0.1/x.png", "https://x.org/a.png", str(path), f"file://{path}"):
        part = {"type": "image_url", "image_url": {"url": url}}
        message: Any = {"role": "user", "content": [part]}
        with pytest.raises(BadRequestError, match=r"image: (addresses are not|found no base64)"):
            openai.chat.completions.create(model="pictures/describe", messages=[message])
