"""The place of a part in a recipe, and the source of its weights: a file, a run, the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...modalities.paths import address_of
from ..utils import ConfigError, local_folder
from .yaml_io import parse_file

WEIGHTS = "model.safetensors"
HUB = "hf-hub:"


def is_remote(source: str) -> bool:
    """Return whether a run or weights are of the hub or of object storage, and are downloaded."""
    return source.startswith(HUB) or address_of(source) is not None


STATES = {"inputs": "streams", "decoders": "decoders", "tasks": "tasks"}
"""Section of a recipe -> the attribute of the model that holds its modules."""

BACKBONE = "backbone"
"""Short for `decoders.backbone`."""


class ComponentPath(str):
    """The keys of a part, joined by dots: `inputs.image.encoder`, `tasks.ctc.head`, `backbone`.

    section: `inputs`, `decoders` or `tasks`. name: the name of the stream, decoder or task.
    inside: the keys within it, `encoder` or `head.inner`; empty for a decoder or task itself.
    """

    __slots__ = ()

    def __truediv__(self, key: str) -> ComponentPath:
        """Return the path of a key within: `path / "tokenizer"`."""
        return ComponentPath(f"{self}.{key}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The full keys, `("decoders", "backbone", ...)` for a path in short form."""
        keys = tuple(self.split("."))
        return ("decoders", *keys) if keys[0] == BACKBONE else keys

    @property
    def section(self) -> str:
        return self.keys[0]

    @property
    def name(self) -> str:
        return self.keys[1]

    @property
    def inside(self) -> str:
        return ".".join(self.keys[2:])

    def renamed(self, name: str) -> ComponentPath:
        """Return the same part of another stream, decoder or task: `image`; of a task and a head of
        it, `ctc.head`."""
        section, *rest = self.keys
        parts = name.split(".")
        return joined(section, *parts, *rest[len(parts) :])

    def state_prefixes(self) -> tuple[str, ...]:
        """Return possible prefixes of its tensors' names. A section within a task is a head or an
        inner part."""
        section, *rest = self.keys
        prefix = ".".join([STATES[section], *rest, ""])
        if section != "tasks" or len(rest) == 1:
            return (prefix,)
        return ".".join([section, rest[0], "heads", *rest[1:], ""]), prefix


def joined(*keys: str) -> ComponentPath:
    """Return the path of keys, in short form if possible."""
    short = keys[1:] if keys[:2] == ("decoders", BACKBONE) else keys
    return ComponentPath(".".join(short))


def validate_source(weights: str, where: str) -> None:
    """Raise ConfigError for a source that cannot hold weights, before anything is built."""
    if weights in ("pretrained", "none") or is_remote(weights):
        return
    path = split_source(weights)[0]
    if path.is_file() and path.suffix == ".safetensors":
        return
    if (path / WEIGHTS).is_file():
        return
    if path.is_dir():
        raise ConfigError(f"{where}: {path} holds no {WEIGHTS}; is it the folder of a run?")
    cure = "use pretrained, none, a run's folder, a .safetensors file or hf-hub:org/name"
    if weights.count("/") == 1 and path.suffix != ".safetensors":
        cure = f"for the hub use {HUB}{weights}, for a folder make sure that ./{weights} is there"
    raise ConfigError(f"{where}: found {weights!r}, which is no file or folder here; {cure}")


def split_source(weights: str) -> tuple[Path, str | None]:
    """Split `runs/x:image` into the folder and the name of a stream or task."""
    if Path(weights).exists():
        return Path(weights), None
    path, colon, stream = weights.rpartition(":")
    return (Path(path), stream) if colon else (Path(weights), None)


def source_run(weights: str, where: ComponentPath) -> tuple[Path, ComponentPath] | None:
    """Return the run that weights name, and the place in it of the part at `where`; None if they
    are none, the library's, or a file (may download)."""
    if weights in ("pretrained", "none"):
        return None
    path, name = (download(weights), None) if is_remote(weights) else split_source(weights)
    if not (path / "recipe.yaml").is_file():
        return None
    return path, unshared(path, where.renamed(name) if name else where)


def unshared(run: Path, path: ComponentPath) -> ComponentPath:
    """Return the path of a part in a run: that of another stream if it shares that stream's."""
    recipe = parse_file(run / "recipe.yaml")
    inputs = recipe.get("inputs", {}) if isinstance(recipe, dict) else {}
    if path.section != "inputs" or path.name not in inputs:
        return path
    section = inputs[path.name].get(path.keys[2])
    source = section.get("share") if isinstance(section, Mapping) else None
    return joined("inputs", str(source), *path.keys[2:]) if source in inputs else path


def download(weights: str) -> Path:
    """Return the local folder of `hf-hub:org/name@revision`, or the copy of a run or file on object
    storage (may download)."""
    if address_of(weights):
        return local_folder(weights, lambda name: name.startswith(("checkpoints/", "stages/")))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = weights.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{weights}: cannot be had from the hub: {text}") from error


def missing_folder(name: object) -> Path | None:
    """Return the path that a name is, if it is that of a folder which does not exist."""
    if not isinstance(name, str):
        return None
    path = Path(name.removeprefix("local-dir:")).expanduser()
    return path if _is_path(name) and not path.exists() else None


def names_folder(name: object) -> bool:
    """Return whether a name is that of a folder of this machine, there or not."""
    return isinstance(name, str) and (_is_path(name) or Path(name).is_dir())


def _is_path(name: str) -> bool:
    path = Path(name.removeprefix("local-dir:")).expanduser()
    return name.startswith(("local-dir:", "~", ".")) or path.is_absolute()


def absolute_folder(name: object) -> object:
    """Return a name that is a folder's path as an absolute one, so that a run finds it from
    anywhere; any other unchanged."""
    prefix = "local-dir:" if isinstance(name, str) and name.startswith("local-dir:") else ""
    if not isinstance(name, str) or not Path(path := name.removeprefix(prefix)).is_dir():
        return name
    return f"{prefix}{Path(path).absolute()}"
