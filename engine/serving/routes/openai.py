"""OpenAI's routes but chat: models, embeddings, transcriptions, files."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.responses import Response
from torch.nn import functional as F

from ...inference import EMBED
from ..errors import bad_request
from ..files import FileStore
from ..served import ServedModel, ServedModels
from .captions import as_srt, as_vtt, segments
from .schemas import EmbeddingsRequest

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")


def openai_router(models: ServedModels, files: FileStore) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """List the runs, their tasks with the schemas of their inputs, and their streams."""
        return {"object": "list", "data": [each.describe() for each in models.models.values()]}

    @router.get("/v1/models/{model:path}")
    async def get_model(model: str) -> dict[str, Any]:
        """Describe one run."""
        return models.find(model)[0].describe()

    @router.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsRequest) -> dict[str, Any]:
        """Return unit vectors of texts, or of contents of any stream (`model: run/stream`)."""
        model, rest = models.find(body.model)
        inputs = body.input if isinstance(body.input, list) else [body.input]
        stream = model.stream_of(_modality_of(inputs[0]), rest)
        vectors = await _vectors(model, stream, inputs)
        if body.dimensions is not None:
            width = vectors.shape[1]
            if body.dimensions > width:
                raise bad_request(f"dimensions: found {body.dimensions}, the vectors have {width}")
            vectors = F.normalize(vectors[:, : body.dimensions], dim=-1)
        data = [
            {"object": "embedding", "index": i, "embedding": _encoded(v, body.encoding_format)}
            for i, v in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return {"object": "list", "model": body.model or model.name, "data": data, "usage": usage}

    @router.post("/v1/audio/transcriptions", response_model=None)
    async def transcriptions(
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()] = "",
        response_format: Annotated[str, Form()] = "json",
        language: Annotated[str, Form()] = "",
    ) -> dict[str, Any] | Response:
        """Transcribe a sound; `verbose_json`, `srt` and `vtt` have times of words."""
        if response_format not in FORMATS:
            raise bad_request(
                f"response_format: found {response_format[:40]!r}, expected one of "
                f"{', '.join(FORMATS)}"
            )
        served, rest = models.find(model)
        task = served.task_that("transcribe", rest)
        inputs: dict[str, Any] = {served.tasks[task].inputs()[0]: await file.read()}
        if language:
            inputs["language"] = language
        return await _transcript(served, task, inputs, response_format)

    @router.post("/v1/files")
    async def upload(
        file: Annotated[UploadFile, File()], purpose: Annotated[str, Form()] = "user_data"
    ) -> dict[str, Any]:
        """Store a file; inputs name it as `{"file": id}`."""
        content, name = await file.read(), file.filename or "file"
        stored = await asyncio.to_thread(files.add, name, content, purpose[:60])
        return stored.as_json()

    @router.get("/v1/files")
    async def list_files() -> dict[str, Any]:
        """List the stored files."""
        return {"object": "list", "data": [each.as_json() for each in files.list()]}

    @router.get("/v1/files/{key}")
    async def get_file(key: str) -> dict[str, Any]:
        """Describe a stored file."""
        return files.get(key).as_json()

    @router.get("/v1/files/{key}/content", response_model=None)
    async def content(key: str) -> Response:
        """Return the content of a stored file."""
        stored = files.get(key)
        return FileResponse(
            stored.path, media_type="application/octet-stream", filename=stored.filename
        )

    @router.delete("/v1/files/{key}")
    async def remove(key: str) -> dict[str, Any]:
        """Remove a stored file."""
        files.remove(key)
        return {"id": key, "object": "file", "deleted": True}

    return router


def _modality_of(value: Any) -> str:
    """Return the modality whose only stream an input is for, where the request names none."""
    if isinstance(value, str) and value.startswith("data:"):
        return value[len("data:") :].partition("/")[0]
    return "text"


async def _vectors(model: ServedModel, stream: str, inputs: list[Any]) -> torch.Tensor:
    """Return `[N, D]` of the inputs, which join the batches of other requests."""

    async def one(value: Any) -> torch.Tensor:
        cell = await model.worker.prepare(lambda: model.payloads.value(stream, value))
        vector: torch.Tensor = await model.worker.predict(EMBED, {stream: cell})
        return vector

    chunk = max(1, min(model.worker.settings.batch, model.worker.settings.max_waiting))
    vectors: list[torch.Tensor] = []
    for start in range(0, len(inputs), chunk):
        vectors += await asyncio.gather(*map(one, inputs[start : start + chunk]))
    return torch.stack(vectors)


def _encoded(vector: torch.Tensor, form: str) -> Any:
    values = vector.numpy().astype(np.float32)
    return base64.b64encode(values.tobytes()).decode() if form == "base64" else values.tolist()


async def _transcript(
    model: ServedModel, task: str, inputs: Mapping[str, Any], form: str
) -> dict[str, Any] | Response:
    row = await model.worker.prepare(lambda: model.payloads.row(task, inputs))
    timed = form in ("verbose_json", "srt", "vtt")
    has_times = "times" in model.tasks[task].eval_options
    if timed and not has_times:
        raise bad_request(f"response_format: {task} has no times of words; take json or text")
    prediction = await model.worker.predict(task, row, {"times": True} if timed else {})
    text, words = prediction["text"], prediction.get("words", [])
    if form == "text":
        return PlainTextResponse(text)
    if form == "srt":
        return PlainTextResponse(as_srt(words), media_type="application/x-subrip")
    if form == "vtt":
        return PlainTextResponse(as_vtt(words), media_type="text/vtt")
    if form == "json":
        return {"text": text}
    return {
        "task": "transcribe",
        "language": inputs.get("language", ""),
        "duration": words[-1][2] if words else 0.0,
        "text": text,
        "words": [{"word": word, "start": start, "end": end} for word, start, end in words],
        "segments": segments(words),
    }
