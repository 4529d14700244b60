"""Ways to write the location of a transformers checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOCAL, HUB = "local-dir:", "hf-hub:"


def parse_repo_id(name: str) -> dict[str, Any]:
    """Return the keyword arguments of `from_pretrained` for a folder, `local-dir:PATH`, a hub id or
    `hf-hub:org/name@revision`."""
    if name.startswith(LOCAL) or (not name.startswith(HUB) and Path(name).exists()):
        return {"pretrained_model_name_or_path": name.removeprefix(LOCAL)}
    path, _, revision = name.removeprefix(HUB).partition("@")
    return {"pretrained_model_name_or_path": path, **({"revision": revision} if revision else {})}
