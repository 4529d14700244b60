"""Sensorium's own routes: any task, search in an index, a policy that acts."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from ....modalities.messages import did_you_mean, short_repr
from ....tasks.base import ExportsMaps
from ...embedding import Query, Retriever
from ...inference import write_maps
from ...recipe import Env
from ...rollout import make_policy
from ...utils import ConfigError, RuntimeFailure
from ..access import is_authorized
from ..errors import RequestError, bad_request
from ..files import FileStore
from ..payloads import decode_base64
from ..served import ServedModel, ServedModels
from .schemas import SearchRequest, TaskRequest


def native_router(
    models: ServedModels, files: FileStore, indexes: Mapping[str, Retriever], api_key: str | None
) -> APIRouter:
    """Return the routes. indexes: by name."""
    router = APIRouter()
    searching = asyncio.Lock()

    @router.post("/v1/tasks/{task}")
    async def run_task(task: str, body: TaskRequest) -> dict[str, Any]:
        """Return the prediction of a task; its maps are files of the server."""
        model, rest = models.find(body.model)
        if rest:
            raise bad_request(f"model: found {body.model!r}, expected a run; the path has the task")
        name = model.task_that("", task)
        row = await model.worker.prepare(lambda: model.payloads.row(name, body.inputs))
        prediction = await model.worker.predict(name, row, body.options)
        stored = await model.worker.prepare(
            lambda: _store_maps(model, files, name, row, prediction)
        )
        return {"model": model.name, "task": name, "prediction": as_json(stored)}

    @router.get("/v1/search")
    async def list_indexes() -> dict[str, Any]:
        """List the indexes, and the streams by which each can be searched."""
        data = [
            {
                "id": name,
                "object": "index",
                "streams": {
                    stream: section.modality
                    for stream, section in retriever.model.plan.recipe.inputs.items()
                },
            }
            for name, retriever in indexes.items()
        ]
        return {"object": "list", "data": data}

    @router.post("/v1/search")
    async def search(body: SearchRequest) -> dict[str, Any]:
        """Return the nearest rows of an index, best first."""
        if not body.index and len(indexes) != 1:
            raise bad_request(f"index: name one of {', '.join(indexes) or 'none'}")
        name = body.index or next(iter(indexes))
        if name not in indexes:
            raise RequestError(
                404, f"index: there is no {name[:60]!r}{did_you_mean(name[:60], indexes)}"
            )
        if not isinstance(body.value, str):
            raise bad_request(f"value: found {short_repr(body.value)}, expected a text")
        retriever = indexes[name]
        async with searching:
            hits = await asyncio.to_thread(_search, retriever, body, files)
        rows = [as_json({"score": hit.score, **hit.columns()}) for hit in hits]
        return {"index": name, "rows": rows}

    @router.websocket("/v1/act")
    async def act(socket: WebSocket) -> None:
        """A policy: each message is an observation, each answer the next action. `{"reset":
        {column: text}}` begins an episode."""
        if not is_authorized(socket.headers.get("authorization", ""), api_key):
            await socket.close(code=1008, reason="the API key is missing or wrong")
            return
        await socket.accept()
        try:
            model, _ = models.find(socket.query_params.get("model"))
            session = _PolicySession(model)
            while True:
                try:
                    await socket.send_json(await session.answer(await socket.receive_json()))
                except (RequestError, ConfigError, RuntimeFailure, ValueError) as error:
                    await socket.send_json({"error": {"message": str(error)}})
        except (RequestError, ConfigError) as error:
            await socket.send_json({"error": {"message": str(error)}})
            await socket.close(code=1008)
        except WebSocketDisconnect:
            pass

    return router


def _search(retriever: Retriever, body: SearchRequest, files: FileStore) -> list[Any]:
    """Return the hits of a query. A content is written to a file, which the modality reads."""
    recipe = retriever.model.plan.recipe
    if body.stream not in recipe.inputs:
        near = did_you_mean(body.stream[:60], recipe.inputs)
        raise bad_request(f"stream: there is no {body.stream[:60]!r}{near}")
    value = body.value
    if recipe.inputs[body.stream].modality != "text":
        stored = (
            files.get(value)
            if value.startswith("file-")
            else files.add("query", decode_base64(value, body.stream), "query")
        )
        value = str(stored.path)
    query = Query(body.stream, value, "value")
    return retriever.find(query, body.k, where=body.where, kind=body.kind)


def _store_maps(
    model: ServedModel, files: FileStore, task: str, row: Mapping[str, Any], prediction: Any
) -> Any:
    """Return a prediction whose maps are stored files, `{"file": id}`, where their signal has a
    format for them."""
    streams, first = model.pipeline.model.plan.streams, model.tasks[task].inputs()[0]
    if not isinstance(model.tasks[task], ExportsMaps) or streams[first].modality.save is None:
        return prediction
    with tempfile.TemporaryDirectory() as folder:
        written = write_maps(model.pipeline, task, row, prediction, Path(folder, "map"))
        for name, value in written.items():
            if isinstance(value, str) and Path(value).parent == Path(folder):
                content = Path(value).read_bytes()
                written[name] = {"file": files.add(Path(value).name, content, "map").id}
    return written


class _PolicySession:
    """The state of one connection: the policy's history and its chunk."""

    def __init__(self, model: ServedModel) -> None:
        section = model.pipeline.model.plan.recipe.env or Env(name="served")
        self.model, self.policy = model, make_policy(model.pipeline, section)

    async def answer(self, message: Any) -> dict[str, Any]:
        """Return the next action for an observation, or begin an episode. Raise RequestError."""
        if not isinstance(message, dict) or len(message) != 1:
            raise bad_request('expected {"observation": {...}} or {"reset": {...}}')
        ((kind, content),) = message.items()
        if kind not in ("observation", "reset") or not isinstance(content, dict):
            raise bad_request('expected {"observation": {...}} or {"reset": {...}}')
        if kind == "reset":
            self.policy.reset([content])
            return {"reset": True}
        observation = {key: _observed(key, value) for key, value in content.items()}
        action = await self.model.worker.run(lambda: self.policy.step(observation))
        return {"action": as_json(action)}


def _observed(key: str, value: Any) -> Any:
    """Return a part of an observation: numbers, or the pixels of a picture."""
    if isinstance(value, str) and value.startswith("data:"):
        from PIL import Image

        with Image.open(io.BytesIO(decode_base64(value, key))) as image:
            return np.asarray(image.convert("RGB"))
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise bad_request(f"{key}: found {short_repr(value)}, expected numbers") from error
    return array


def as_json(value: Any) -> Any:
    """Return a value made of what JSON has; arrays as lists, numbers that are not finite as
    null."""
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value) if isinstance(value, Path) else short_repr(value)
