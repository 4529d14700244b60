"""The forms in which a recipe names weights: a file, a run folder or a hub id."""

from __future__ import annotations

from pathlib import Path

from ..utils import ConfigError
from .component_path import ComponentPath

WEIGHTS = "model.safetensors"
HUB = "hf-hub:"


def validate_source(weights: str, where: str) -> None:
    """Refuse what cannot be weights, before anything is built."""
    if weights in ("pretrained", "none") or weights.startswith(HUB):
        return
    path = split_source(weights)[0]
    if path.is_file() and path.suffix == ".safetensors":
        return
    if (path / WEIGHTS).is_file():
        return
    if path.is_dir():
        raise ConfigError(f"{where}: {path} holds no {WEIGHTS}; is it the folder of a run?")
    cure = "say pretrained, none, a run's folder, a .safetensors file or hf-hub:org/name"
    if weights.count("/") == 1 and path.suffix != ".safetensors":
        cure = f"for the hub say {HUB}{weights}, for a folder make sure that ./{weights} is there"
    raise ConfigError(f"{where}: found {weights!r}, which is no file or folder here; {cure}")


def split_source(weights: str) -> tuple[Path, str | None]:
    """`runs/x:image` -> the folder, and the stream or task that it names."""
    if Path(weights).exists():
        return Path(weights), None
    path, colon, stream = weights.rpartition(":")
    return (Path(path), stream) if colon else (Path(weights), None)


def source_run(weights: str, where: ComponentPath) -> tuple[Path, ComponentPath] | None:
    """The run that weights name, and the place of the part at `where` in it; None where they are
    none, the library's, or a mere file (may download)."""
    if weights in ("pretrained", "none"):
        return None
    path, name = (download(weights), None) if weights.startswith(HUB) else split_source(weights)
    there = where.renamed(name) if name else where
    return (path, there) if (path / "recipe.yaml").is_file() else None


def download(weights: str) -> Path:
    """`hf-hub:org/name@revision` -> its folder on this machine (may download)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = weights.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{weights}: cannot be had from the hub: {text}") from error
