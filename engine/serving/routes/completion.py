"""The answer of a chat: its JSON forms, and its tokens on their way from the model's thread."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import torch


class Completion:
    """The JSON forms of one answer."""

    def __init__(self, model: str) -> None:
        self.common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, reason: str) -> dict[str, Any]:
        """Return the answer in one piece. reason: `stop` or `length`."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        return {**self.common, "object": "chat.completion", "choices": [choice]}

    def event(self, delta: dict[str, str], reason: str | None = None) -> str:
        """Return a server-sent event with the new part of the message."""
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {**self.common, "object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n"


class _Left(Exception):
    """The client of a stream has gone."""


class TokenQueue:
    """What `generate` puts its new ids into, one after the other (transformers' streamer), for the
    event loop to take out."""

    def __init__(self) -> None:
        self.loop, self.left = asyncio.get_running_loop(), False
        self.queue: asyncio.Queue[list[int] | None] = asyncio.Queue()

    def put(self, value: torch.Tensor) -> None:
        """Take new ids, on the model's thread. Raise to end a generation that nobody reads."""
        if self.left:
            raise _Left
        self._add(value.flatten().tolist())

    def end(self) -> None:
        """Mark the end."""
        self._add(None)

    def _add(self, ids: list[int] | None) -> None:
        self.loop.call_soon_threadsafe(self.queue.put_nowait, ids)


def cut_at(text: str, stop: str | list[str] | None) -> str:
    """Return a text up to the first of the stop words."""
    for word in [stop] if isinstance(stop, str) else stop or ():
        text = text.partition(word)[0] if word else text
    return text


def settled(text: str, stop: str | list[str] | None) -> str:
    """Return the part of an unfinished text that no later token changes: whole characters, and
    none that may belong to a stop word."""
    text = text.rstrip("\ufffd").rstrip()
    words = [word for word in ([stop] if isinstance(stop, str) else stop or ()) if word]
    cut = cut_at(text, words)
    held = max((len(word) - 1 for word in words), default=0)
    return cut if cut != text else text[: len(text) - held]
