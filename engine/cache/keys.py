"""What decides the records of a store.

An identity is content: a changed weight, setting, source file, layer or precision is
another identity, so another store; nothing has to be invalidated.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...modalities.base import Component, Encoder, Fittable, Processor, Sample
from ..utils import RuntimeFailure
from .records import to_array
from .shard import Record
from .source_files import CONTRACTS, file_digest, source_digests
from .store import CONTENT


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers."""
    return _tensors_hash({**dict(module.named_parameters()), **dict(module.named_buffers())})


def content_hash(sample: Sample) -> str:
    """SHA-256 of a sample, from which a record of features is computed."""
    return _tensors_hash(sample)


def add_content_hash(record: Record, sample: Sample) -> Record:
    """Return the record, with the hash of its sample, for `Store.verify(content)`."""
    return {**record, CONTENT: np.frombuffer(bytes.fromhex(content_hash(sample)), np.uint8)}


def processor_identity(processor: Processor) -> dict[str, Any]:
    """Return what decides a sample: the class, its source, its settings and fitted states."""
    return {**_class_identity(type(processor)), "settings": _to_json(processor.settings())}


def processor_settings(processor: Processor) -> dict[str, Any]:
    """Return the class and the settings of a processor without the hashes of source files: for
    values that have to last longer than a cache, which may be made again after every change of a
    comment.
    """
    settings: dict[str, Any] = without_sources(processor_identity(processor))
    return {"class": settings["class"], **settings["settings"]}


def without_sources(value: Any) -> Any:
    """Return an identity without the hashes of source files."""
    if isinstance(value, Mapping):
        return {
            k: without_sources(v)
            for k, v in value.items()
            if not (k == "source" and ("class" in value or "function" in value))
        }
    return [without_sources(v) for v in value] if isinstance(value, list) else value


def read_identity(read: str, prompt: str = "") -> dict[str, Any]:
    """Return what decides a raw value: a modality's `read`, `module:name`, its source, and the
    prompt before it."""
    source = list(source_digests(read.partition(":")[0]))
    return {"function": read, "source": source, **({"prompt": prompt} if prompt else {})}


def encoder_identity(
    encoder: Encoder,
    *,
    read: str,
    prompt: str = "",
    layers: Sequence[int] = (),
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what decides an encoder's features.

    read: the function of the modality, `module:name`. prompt: of the stream. options:
    the recipe's resolved section; it holds settings that no weight shows (a number of heads, which
    layer is read).
    """
    inner = {
        name: _class_identity(type(module))
        for name, module in encoder.named_modules()
        if name and isinstance(module, Component)
    }
    return {
        **_class_identity(type(encoder)),
        **({"inner": inner} if inner else {}),
        "options": _to_json(options or {}),
        "read": read_identity(read, prompt),
        "processor": processor_identity(encoder.processor),
        "weights": weights_hash(encoder),
        "layers": list(layers),
        "precision": precision,
    }


def _tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        if tensor.is_meta:
            raise RuntimeFailure(f"cache: {name} is on the meta device and has no values to hash")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(to_array(tensor.contiguous().view(-1).view(torch.uint8)).data)
    return digest.hexdigest()


def _class_identity(kind: type) -> dict[str, Any]:
    """Return the class, and the files that decide its values: those that it and its parents
    are written in and, of parts and processors, those that they import of their project.

    Left out are Python, torch and the contracts, which decide no values.
    """
    foreign = {*sys.stdlib_module_names, "torch"}
    digests: set[str] = set()
    for each in kind.__mro__:
        module = each.__module__
        if module not in CONTRACTS and module.partition(".")[0] not in foreign:
            ours = issubclass(each, (Component, Processor, Fittable))
            digests.update(source_digests(module) if ours else file_digest(module))
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "source": sorted(digests)}


def _to_json(value: Any) -> Any:
    """Return the value as JSON; arrays and fitted states by their hash. Raise TypeError."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_to_json(v) for v in value), key=repr)
    if isinstance(value, (np.ndarray, np.generic)):
        return {"array": _tensors_hash({"": torch.from_numpy(np.array(value))})}
    if isinstance(value, Tensor):
        return {"array": _tensors_hash({"": value})}
    if isinstance(value, (Path, torch.dtype)):
        return str(value)
    if isinstance(value, Fittable):
        return {**_class_identity(type(value)), "state": _to_json(value.state())}
    if isinstance(value, Processor):
        return processor_identity(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return {**_class_identity(type(value)), "name": value.name}
    if isinstance(value, type):
        return _class_identity(value)
    if inspect.isfunction(value) and value.__closure__ is None and "<" not in value.__qualname__:
        source = list(source_digests(value.__module__))
        return {"function": f"{value.__module__}:{value.__qualname__}", "source": source}
    if (settings := _attributes(value)) is not None:
        return {**_class_identity(type(value)), "settings": _to_json(settings)}
    raise TypeError(
        f"{type(value).__name__} has no settings that could be a key of the cache; define "
        "settings() in the processor, which returns everything that decides a sample as JSON"
    )


def _attributes(value: Any) -> dict[str, Any] | None:
    """Return the settings of an object of a library, such as a transform of torchvision or
    a Compose of them; None if its attributes do not define it."""
    if isinstance(value, nn.Module):
        attributes = {k: v for k, v in vars(value).items() if k not in vars(_EMPTY)}
        children = dict(value.named_children())
        tensors = {**dict(value.named_parameters(recurse=False)), **dict(value.named_buffers())}
        return {**attributes, **children, **tensors}
    builtin = type(value).__module__ in sys.stdlib_module_names
    if builtin or not hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
        return None
    return dict(vars(value))


_EMPTY = nn.Module()
