"""Where a checkpoint of transformers lies, by the ways to write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOCAL, HUB = "local-dir:", "hf-hub:"


def parse_repo_id(name: str) -> dict[str, Any]:
    """A folder, `local-dir:PATH`, a hub id or `hf-hub:org/name@revision`, as the keywords of
    `from_pretrained`."""
    if name.startswith(LOCAL) or (not name.startswith(HUB) and Path(name).exists()):
        return {"pretrained_model_name_or_path": name.removeprefix(LOCAL)}
    path, _, revision = name.removeprefix(HUB).partition("@")
    return {"pretrained_model_name_or_path": path, **({"revision": revision} if revision else {})}
