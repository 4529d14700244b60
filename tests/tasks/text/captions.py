"""Rows of captions, and the task that learns them."""

from __future__ import annotations

from sensorium.tasks.text import Captioning

ROWS = [
    {"q": "what is it?", "caption": "a red circle"},
    {"q": "how many?", "caption": "two"},
    {"q": "", "caption": "a small blue square to the left"},
    {"q": "why not?", "caption": ""},
]


def make(prompt="<image> {q} Answer:", **options) -> Captioning:  # type: ignore[no-untyped-def]
    return Captioning(prompt=prompt, **options).eval()
