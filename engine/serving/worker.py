"""One thread that owns a model. Requests of one kind that wait together are one batch."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..inference import PreparedRequest, StepwisePipeline
from ..utils import log_cause
from .errors import RequestError, bad_request
from .settings import ServeSettings

logger = logging.getLogger(__name__)


@dataclass
class _Job:
    """What waits for the model's thread. kind: jobs of one kind are answered together; None: this
    one is run alone, by `run`."""

    future: Future[Any]
    kind: Hashable = None
    request: PreparedRequest | None = None
    run: Callable[[], Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


class ModelWorker:
    """Answers requests of a pipeline. observe_batch: called with the size of each batch."""

    def __init__(
        self,
        pipeline: StepwisePipeline,
        settings: ServeSettings,
        observe_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.pipeline, self.settings, self.observe_batch = pipeline, settings, observe_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._unfinished, self._closing = 0, False
        self._preparing = ThreadPoolExecutor(settings.threads, thread_name_prefix="prepare")
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of requests that are not answered yet."""
        return self._unfinished

    async def predict(
        self, task: str, row: Mapping[str, Any], options: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the prediction of a task for one row, or the vector of a stream for `embed`. Raise
        RequestError: 400 for what cannot be used, 429 if too many wait."""
        options = dict(options or {})
        with _Place(self):
            prepared = await self._prepare(task, row)
            kind = (task, tuple(sorted(row)), json.dumps(options, sort_keys=True, default=repr))
            job = _Job(Future(), kind, prepared, options=options)
            value, failure = await self._finish(job)
            if failure is not None:
                raise bad_request(failure)
            return value

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return the result of a function called on the model's thread, alone."""
        with _Place(self):
            return await self._finish(_Job(Future(), run=function))

    async def prepare(self, function: Callable[[], Any]) -> Any:
        """Return the result of a function called on a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, function)

    async def _prepare(self, task: str, row: Mapping[str, Any]) -> PreparedRequest:
        prepared: PreparedRequest = await self.prepare(lambda: self.pipeline.prepare_row(task, row))
        return prepared

    async def _finish(self, job: _Job) -> Any:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return await asyncio.wrap_future(job.future)

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._preparing.shutdown()

    def _work(self) -> None:
        while jobs := self._next_jobs():
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if not jobs:
                continue
            try:
                results = self._results(jobs)
            except Exception as error:
                for job in jobs:
                    job.future.set_exception(error)
            else:
                for job, result in zip(jobs, results, strict=True):
                    job.future.set_result(result)

    def _results(self, jobs: list[_Job]) -> list[Any]:
        first = jobs[0]
        if first.run is not None:
            return [first.run()]
        self.observe_batch(len(jobs))
        task = first.kind[0] if isinstance(first.kind, tuple) else ""
        requests = [job.request for job in jobs if job.request is not None]
        return self.pipeline.answer(task, requests, first.options)

    def _next_jobs(self) -> list[_Job]:
        """Wait for a job, and for others of its kind up to the time of the settings; empty at the
        end."""
        with self._changed:
            while not self._jobs:
                if self._closing:
                    return []
                self._changed.wait()
            first = self._jobs.popleft()
            if first.run is not None:
                return [first]
            jobs = [first]
            deadline = first.since + self.settings.wait_ms / 1000
            while True:
                same = [job for job in self._jobs if job.kind == first.kind]
                for job in same[: self.settings.batch - len(jobs)]:
                    self._jobs.remove(job)
                    jobs.append(job)
                left = deadline - time.monotonic()
                full = len(jobs) >= self.settings.batch or len(jobs) >= self._unfinished
                if full or left <= 0 or self._closing:
                    return jobs
                self._changed.wait(left)


class _Place:
    """A place among the requests of a worker; refused if all are taken."""

    def __init__(self, worker: ModelWorker) -> None:
        self.worker = worker

    def __enter__(self) -> None:
        worker = self.worker
        with worker._changed:
            if worker._closing:
                raise RequestError(503, "the server is stopping")
            if worker._unfinished >= worker.settings.max_waiting:
                waiting = worker._unfinished
                raise RequestError(429, f"{waiting} requests are waiting; try again later", 1)
            worker._unfinished += 1

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with self.worker._changed:
            self.worker._unfinished -= 1
            self.worker._changed.notify()
        if isinstance(error, Exception) and not isinstance(error, RequestError):
            log_cause(logger, error)
