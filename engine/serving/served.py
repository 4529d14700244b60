"""The runs of a server by name, and their descriptions for clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...modalities.messages import did_you_mean
from ..inference import Pipeline, StepwisePipeline
from ..utils import ConfigError
from .errors import RequestError, bad_request
from .files import FileStore
from .payloads import Payloads
from .settings import ServeSettings
from .worker import ModelWorker


class ServedModel:
    """A run: its pipeline, the thread that owns it, and its name for clients."""

    def __init__(
        self,
        name: str,
        pipeline: Pipeline,
        files: FileStore,
        settings: ServeSettings,
        observe_batch: Callable[[int], None],
    ) -> None:
        self.name = name
        self.pipeline = StepwisePipeline(pipeline.model, memory_bytes=settings.memory_bytes)
        self.worker = ModelWorker(self.pipeline, settings, observe_batch)
        self.payloads = Payloads(self.pipeline, files, settings)

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The tasks by name."""
        return {name: each.task for name, each in self.pipeline.model.plan.tasks.items()}

    def modality(self, stream: str) -> str:
        """Return the name of a stream's modality."""
        return str(self.pipeline.model.plan.recipe.inputs[stream].modality)

    def task_that(self, ability: str, name: str) -> str:
        """Return a task by its name, or the only one that has an ability. Raise RequestError."""
        if name:
            if name not in self.tasks:
                near = did_you_mean(name, self.tasks)
                raise RequestError(404, f"model: {self.name} has no task {name[:60]!r}{near}")
            return name
        able = [key for key, task in self.tasks.items() if task.ability == ability]
        if len(able) != 1:
            listed = ", ".join(able) or "none"
            raise bad_request(
                f"model: {self.name} has these tasks that {ability}: {listed}; name one, as in "
                f"{self.name}/TASK"
            )
        return able[0]

    def stream_of(self, modality: str, name: str) -> str:
        """Return a stream by its name, or the only one of a modality. Raise RequestError."""
        streams = list(self.pipeline.model.plan.recipe.inputs)
        if name:
            if name not in streams:
                near = did_you_mean(name, streams)
                raise RequestError(404, f"model: {self.name} has no stream {name[:60]!r}{near}")
            return name
        fits = [stream for stream in streams if self.modality(stream) == modality]
        if len(fits) != 1:
            listed = ", ".join(fits) or "none"
            raise bad_request(
                f"model: {self.name} has these streams of {modality}: {listed}; name one, as in "
                f"{self.name}/STREAM"
            )
        return fits[0]

    def describe(self) -> dict[str, Any]:
        """Return what `/v1/models` lists: tasks with the JSON schema of their inputs, streams."""
        return {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "sensorium",
            "tasks": {name: self._describe_task(name) for name in self.tasks},
            "streams": {
                name: {"modality": self.modality(name)}
                for name in self.pipeline.model.plan.recipe.inputs
            },
        }

    def _describe_task(self, name: str) -> dict[str, Any]:
        task = self.tasks[name]
        properties: dict[str, Any] = {}
        for stream in task.inputs():
            item = self._schema(stream)
            many = self.pipeline.model.plan.streams[stream].many(task.streams[stream])
            properties[stream] = {"type": "array", "items": item} if many else item
        properties |= {column: {"title": column} for column in task.prompt_columns()}
        return {
            "ability": task.ability,
            "inputs": {
                "type": "object",
                "properties": properties,
                "required": [*task.inputs(), *task.prompt_columns()],
            },
        }

    def _schema(self, stream: str) -> dict[str, Any]:
        schema: dict[str, Any] = {"title": f"{stream} ({self.modality(stream)})"}
        if not self.pipeline.names_files(stream):
            kinds = [{"type": "string"}, {"type": "array"}]
            return {**schema, "anyOf": kinds}
        text = {"type": "string", "contentEncoding": "base64"}
        files = [
            {"type": "object", "properties": {key: {"type": "string"}}, "required": [key]}
            for key in ("data", "file")
        ]
        return {**schema, "anyOf": [text, *files]}


class ServedModels:
    """All runs of a server, by the names that clients use."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self.models = dict(models)

    def find(self, name: str | None) -> tuple[ServedModel, str]:
        """Return a run and the rest of the name (`run/task`). None: the only run. Raise
        RequestError, 404."""
        if name is None or not name:
            if len(self.models) == 1:
                return next(iter(self.models.values())), ""
            raise bad_request(f"model: name one of {', '.join(self.models)}")
        if name in self.models:
            return self.models[name], ""
        run, _, rest = name.rpartition("/")
        if run in self.models:
            return self.models[run], rest
        near = did_you_mean(name[:60], self.models)
        raise RequestError(404, f"model: there is no {name[:60]!r}{near}")

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        for model in self.models.values():
            model.worker.close()


def names_of_runs(runs: list[str]) -> dict[str, str]:
    """Return a short name for each run: the last parts of its path, as many as are needed to
    distinguish them. Raise ConfigError for a run that is named twice."""
    paths = {run: Path(run.removeprefix("hf-hub:")).absolute().parts for run in runs}
    if len(set(paths.values())) < len(runs):
        raise ConfigError("runs: one of them is named twice")
    for count in range(1, max(map(len, paths.values())) + 1):
        names = {"/".join(parts[-count:]): run for run, parts in paths.items()}
        if len(names) == len(runs):
            break
    return names
