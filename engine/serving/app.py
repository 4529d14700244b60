"""The server's application: all routes, the page, health, metrics, errors as one line."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from ...modalities.base import ReadError
from ...modalities.messages import describe_error, shorten
from ..embedding import Retriever
from ..inference import Pipeline
from ..utils import ConfigError, RuntimeFailure, log_cause
from .access import Access, Counters, error_body
from .errors import RequestError
from .files import FileStore
from .routes import chat_router, native_router, openai_router
from .served import ServedModel, ServedModels
from .settings import ServeSettings

logger = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"


def create_app(
    pipelines: Mapping[str, Pipeline],
    settings: ServeSettings | None = None,
    indexes: Mapping[str, Retriever] | None = None,
) -> FastAPI:
    """Return an ASGI application that serves loaded runs, and indexes, by their names.

    Its shutdown answers what waits and ends the threads of the models.
    """
    settings, counters = settings or ServeSettings(), Counters()
    files = FileStore(settings.files, settings.max_files_bytes)
    models = ServedModels(
        {
            name: ServedModel(name, pipeline, files, settings, counters.batches.observe)
            for name, pipeline in pipelines.items()
        }
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            models.close()
            files.close()

    app = FastAPI(title="Sensorium", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.models = models
    app.add_middleware(Access, settings=settings, counters=counters)
    for router in (
        openai_router(models, files),
        chat_router(models),
        native_router(models, files, indexes or {}, settings.api_key),
    ):
        app.include_router(router)
    _add_status(app, models, counters)
    _add_errors(app)
    return app


def _add_status(app: FastAPI, models: ServedModels, counters: Counters) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        """The page."""
        return HTMLResponse((PAGE / "index.html").read_text("utf-8"))

    app.mount("/page", StaticFiles(directory=PAGE), name="page")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Whether it answers: all models are loaded before the port is opened."""
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Figures in Prometheus' format."""
        for name, model in models.models.items():
            counters.waiting.labels(name).set(model.worker.waiting)
            counters.encoded.labels(name).set(model.pipeline.encoded)
        return PlainTextResponse(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI) -> None:
    """Answer every error with its status and one line, as OpenAI's clients read it."""

    def answer(status: int, message: str, retry_after: int | None = None) -> JSONResponse:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return JSONResponse(error_body(status, message), status, headers)

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        return answer(error.status, error.message, error.retry_after)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(400, _first_problem(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, f"{request.url.path}: {error.detail}")

    async def mistake(request: Request, error: Exception) -> JSONResponse:
        return answer(400, shorten(str(error)))

    for kind in (ConfigError, ReadError):
        app.add_exception_handler(kind, mistake)

    @app.exception_handler(RuntimeFailure)
    async def failed(request: Request, error: RuntimeFailure) -> JSONResponse:
        return answer(503, shorten(str(error)))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log_cause(logger, error)
        return answer(500, describe_error(error))


def _first_problem(problems: Sequence[Any]) -> str:
    """Return the first mistake that pydantic found: its place, and the value expected."""
    first = problems[0]
    words = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    where = ".".join(words) or "the body"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return shorten(f"{where}: {first['msg']}{more}")
