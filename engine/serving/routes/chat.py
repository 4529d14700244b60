"""`/v1/chat/completions`: a user's message as the inputs of a task that writes text."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from ...inference import PreparedRequest
from ...utils import seeded
from ..errors import RequestError, bad_request
from ..served import ServedModel, ServedModels
from .completion import Completion, TokenQueue, cut_at, settled
from .schemas import AudioPart, ChatRequest, FilePart, ImagePart, Message, TextPart

TEXT_ABILITIES = ("caption", "transcribe")


def chat_router(models: ServedModels) -> APIRouter:
    """Return the route of chat completions."""
    router = APIRouter()

    @router.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest) -> dict[str, Any] | Response:
        """Answer one message of a user with a text, whole or as server-sent events."""
        model, rest = models.find(body.model)
        task = _text_task(model, rest)
        inputs = chat_inputs(model, task, body.messages) | body.columns
        row = await model.worker.prepare(lambda: model.payloads.row(task, inputs))
        options = generation_options(body)
        completion = Completion(body.model or model.name)
        if body.stream:
            stream = _stream(model, task, row, options, body, completion)
            first = await anext(stream)  # an error is an answer with its status, not a stream
            return StreamingResponse(_chain(first, stream), media_type="text/event-stream")
        text = await _text(model, task, row, options, body.seed)
        text, reason = _finished(model, cut_at(text, body.stop), text, options)
        return completion.whole(text, reason)

    return router


def _text_task(model: ServedModel, name: str) -> str:
    if name:
        return model.task_that("caption", name)
    able = [key for key, task in model.tasks.items() if task.ability in TEXT_ABILITIES]
    if len(able) != 1:
        listed = ", ".join(able) or "none"
        raise bad_request(
            f"model: {model.name} has these tasks that write text: {listed}; name one, as in "
            f"{model.name}/TASK"
        )
    return able[0]


def chat_inputs(model: ServedModel, task: str, messages: list[Message]) -> dict[str, Any]:
    """Return the values of a task's streams and columns from a conversation of one message."""
    if len(messages) != 1 or messages[0].role != "user":
        raise bad_request(
            "messages: found a conversation, expected one message of the user; a task has no "
            "system prompt but its recipe's, and no memory"
        )
    content = messages[0].content
    parts = [TextPart(type="text", text=content)] if isinstance(content, str) else content
    values: dict[str, list[Any]] = {}
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    for part in parts:
        if isinstance(part, ImagePart):
            values.setdefault(_stream_for(model, task, "image"), []).append(part.image_url.url)
        elif isinstance(part, AudioPart):
            stream = _stream_for(model, task, "audio")
            values.setdefault(stream, []).append({"data": part.input_audio.data})
        elif isinstance(part, FilePart):
            values.setdefault(_file_stream(model, task, values), []).append(_file_value(part))
    inputs: dict[str, Any] = {}
    for stream, items in values.items():
        many = _many(model, task, stream)
        if not many and len(items) > 1:
            raise bad_request(f"{stream}: found {len(items)} items, expected one")
        inputs[stream] = items if many else items[0]
    if texts:
        inputs[_text_input(model, task)] = "\n".join(texts)
    return inputs


def _many(model: ServedModel, task: str, stream: str) -> bool:
    return model.pipeline.model.plan.streams[stream].many(model.tasks[task].streams[stream])


def _stream_for(model: ServedModel, task: str, modality: str) -> str:
    streams = [s for s in model.tasks[task].inputs() if model.modality(s) == modality]
    if not streams:
        raise bad_request(f"{task}: takes no {modality}; leave it out")
    if len(streams) > 1:
        raise bad_request(f"{task}: has several streams of {modality}; use /v1/tasks/{task}")
    return streams[0]


def _file_stream(model: ServedModel, task: str, taken: dict[str, list[Any]]) -> str:
    streams = [s for s in model.tasks[task].inputs() if model.pipeline.names_files(s)]
    free = [s for s in streams if s not in taken or _many(model, task, s)]
    if len(free) != 1:
        raise bad_request(
            f"{task}: a file could be for {', '.join(free) or 'no stream'}; use /v1/tasks/{task}"
        )
    return free[0]


def _file_value(part: FilePart) -> Any:
    if part.file.file_id is not None:
        return {"file": part.file.file_id}
    if part.file.file_data is not None:
        return part.file.file_data
    raise bad_request("file: found neither file_id nor file_data")


def _text_input(model: ServedModel, task: str) -> str:
    """Return the stream or column that the text of a message is for."""
    built = model.tasks[task]
    texts = [s for s in built.inputs() if model.modality(s) == "text"]
    names = [*texts, *built.prompt_columns()]
    if not names:
        raise bad_request(
            f"{task}: takes no text, its prompt is that of the recipe; send the other parts alone"
        )
    return names[0]


def generation_options(body: ChatRequest) -> dict[str, Any]:
    """Return the options of a prediction. Without a temperature the most likely token is taken."""
    options: dict[str, Any] = {}
    length = body.max_completion_tokens or body.max_tokens
    if length is not None:
        options["max_new_tokens"] = length
    if body.temperature:
        options |= {"do_sample": True, "temperature": body.temperature}
    if body.top_p is not None:
        if not body.temperature:
            raise bad_request("top_p: has no effect without a temperature above 0; set one")
        options["top_p"] = body.top_p
    if body.seed is not None and not body.temperature:
        raise bad_request("seed: has no effect without a temperature above 0; set one")
    return options


async def _text(
    model: ServedModel, task: str, row: dict[str, Any], options: dict[str, Any], seed: int | None
) -> str:
    if seed is None:
        prediction = await model.worker.predict(task, row, options)
    else:
        request = await model.worker.prepare(lambda: model.pipeline.prepare_row(task, row))
        prediction = await model.worker.run(lambda: _alone(model, task, request, options, seed))
    return _text_of(task, prediction)


def _alone(
    model: ServedModel,
    task: str,
    request: PreparedRequest,
    options: dict[str, Any],
    seed: int | None,
) -> Any:
    """Return the prediction of one request, drawn with its own seed. Raise RequestError."""
    with seeded(secrets.randbits(62) if seed is None else seed, "chat"):
        ((prediction, failure),) = model.pipeline.answer(task, [request], options)
    if failure is not None:
        raise bad_request(failure)
    return prediction


def _text_of(task: str, prediction: Any) -> str:
    if not (isinstance(prediction, dict) and isinstance(prediction.get("text"), str)):
        raise bad_request(f"{task}: writes no text; use /v1/tasks/{task}")
    return str(prediction["text"])


def _finished(
    model: ServedModel, text: str, whole: str, options: dict[str, Any]
) -> tuple[str, str]:
    """Return the text and why it ends: `length` if all tokens that were allowed are used."""
    backbone = model.pipeline.model.backbone
    limit = options.get("max_new_tokens")
    if backbone is None or limit is None or text != whole:
        return text, "stop"
    return text, "length" if len(backbone.tokenizer.encode(text)) >= limit else "stop"


async def _stream(
    model: ServedModel,
    task: str,
    row: dict[str, Any],
    options: dict[str, Any],
    body: ChatRequest,
    completion: Completion,
) -> AsyncIterator[str]:
    """Yield the events of a completion, each as soon as its text is known. Raise RequestError
    before the first one if there is no answer."""
    request = await model.worker.prepare(lambda: model.pipeline.prepare_row(task, row))
    tokens = TokenQueue()
    by_token = model.tasks[task].ability == "caption"  # through a decoder's own loop
    generate_options = {**options, "streamer": tokens} if by_token else options

    def run() -> Any:
        try:
            return _alone(model, task, request, generate_options, body.seed)
        finally:
            tokens.end()

    answer = asyncio.ensure_future(model.worker.run(run))
    sent, ids, begun = "", list[int](), False
    try:
        while (new := await tokens.queue.get()) is not None:
            if not begun:
                begun = True
                yield completion.event({"role": "assistant", "content": ""})
            ids += new
            text = settled(_decoded(model, ids), body.stop)
            if text.startswith(sent) and text != sent:
                yield completion.event({"content": text[len(sent) :]})
                sent = text
        whole = _text_of(task, await answer)
        text, reason = _finished(model, cut_at(whole, body.stop), whole, options)
        if text.startswith(sent) and text != sent:
            yield completion.event({"content": text[len(sent) :]})
        yield completion.event({}, reason)
    except RequestError as error:
        if not begun:
            raise
        yield f"data: {json.dumps({'error': {'message': error.message}})}\n\n"
    finally:
        tokens.left = True
    yield "data: [DONE]\n\n"


def _decoded(model: ServedModel, ids: list[int]) -> str:
    """Return the text of the ids before the end, without the spaces around it."""
    backbone = model.pipeline.model.backbone
    if backbone is None:
        return ""
    tokenizer = backbone.tokenizer
    if tokenizer.eos_id in ids:
        ids = ids[: ids.index(tokenizer.eos_id)]
    return tokenizer.decode(ids).lstrip()


async def _chain(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for each in rest:
        yield each
