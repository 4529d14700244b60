"""Bodies of requests. Keys that no route reads are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Body(BaseModel):
    """A JSON body without unknown keys."""

    model_config = ConfigDict(extra="forbid")


class ImageURL(Body):
    """A picture as a data URI. detail: read by no model here."""

    url: str
    detail: str | None = None


class InputAudio(Body):
    """A sound as base64."""

    data: str
    format: str = "wav"


class FileReference(Body):
    """An upload by its id, or a content as a data URI."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageURL


class AudioPart(Body):
    type: Literal["input_audio"]
    input_audio: InputAudio


class FilePart(Body):
    type: Literal["file"]
    file: FileReference


Part = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]


class Message(Body):
    role: Literal["user", "system", "developer", "assistant"]
    content: str | list[Part]
    name: str | None = None


class StreamOptions(Body):
    include_usage: bool = False


class ChatRequest(Body):
    """The part of OpenAI's chat completions that a task answers. columns: further columns of the
    prompt by name."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=64)]
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    columns: dict[str, Any] = {}
    user: str | None = None


class EmbeddingsRequest(Body):
    """input: texts, or contents of the stream that `model` names (`run/stream`)."""

    model: str | None = None
    input: str | dict[str, Any] | Annotated[list[Any], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


class TaskRequest(Body):
    """inputs: values by stream and column. options: of the task's prediction."""

    model: str | None = None
    inputs: dict[str, Any] = {}
    options: dict[str, Any] = {}


class SearchRequest(Body):
    """index: its name; the only one by default. stream, value: the query. where: SQL."""

    index: str | None = None
    stream: str
    value: Any
    k: Annotated[int, Field(ge=1, le=10_000)] = 5
    where: str | None = None
    kind: Literal["exact", "hnsw", "ivf", "ivf_pq"] = "exact"
