"""Changes to a recipe that many tests of training make."""

from __future__ import annotations

from typing import Any


def train(**settings: Any) -> dict[str, Any]:
    """Return a recipe with a section `train` alone."""
    return {"train": settings}
