"""Recipes with and without the cache, and the stores of a folder."""

from __future__ import annotations

from typing import Any

FROZEN = {"inputs": {"image": {"encoder": {"freeze": True}, "connector": "mlp"}}}
PLAIN = {"cache": {"features": False}}


def stores(runner: Any, level: str = "features") -> set[str]:
    return {path.name for path in (runner.folder / "cache").glob(f"{level}/*")}


def tiny() -> Any:
    import tiny_parts

    return tiny_parts.Tiny
