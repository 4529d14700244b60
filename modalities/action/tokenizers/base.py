"""Action tokenizers: chunks of actions <-> ids of a small vocabulary, fitted on the training split.

Legend: `B` chunks, `steps` samples of a chunk, `dof` numbers of an action, `L` tokens of a chunk.
A chunk is `[steps, dof]` in the robot's own units; its padding is `[steps]` bool, True where a
sample lies outside the episode.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes
from torch import Tensor

from ...base import Fittable
from .. import ACTION

SETTINGS, ARRAYS = "action_tokenizer.json", "action_tokenizer.safetensors"


class ActionTokenizer(Fittable):
    """The interface of action tokenizers.

    dof: numbers of an action; None until `fit`, unless it is an option. size: ids lie in `[0,
    size)`. fixed_start: sample 0 of a chunk is the action executed last, which has no token:
    `decode` needs it as `start`, and execution begins at sample 1. A constructor keeps its
    arguments as attributes of the same names.
    """

    kind = "action_tokenizer"

    dof: int | None
    size: int
    fixed_start: bool = False

    @abstractmethod
    def length(self, steps: int) -> int | None:
        """Return the tokens of a chunk of `steps` samples; None if it varies between chunks.

        Raise ValueError if `steps` cannot be encoded, or before `dof` is known.
        """

    @abstractmethod
    def fit(self, rows: Iterable[Any]) -> None:
        """Fit chunks: an array `[B, steps, dof]`, or an iterable, read once, of chunks `[steps,
        dof]` or pairs `(chunk, padding)`. Raise ValueError for a value that is not finite."""

    @abstractmethod
    def encode(
        self, chunks: Tensor, *, padding: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Return ids `[B, L]` long of chunks `[B, steps, dof]`; a list of `[L_i]` if `length` is
        None.

        start: `[B, dof]` the action executed last, with `fixed_start`; by default the chunks'
        first. Raise ValueError for values that are not finite, and for another dof than fitted.
        """

    @abstractmethod
    def decode(
        self, ids: Tensor | list[Tensor], *, steps: int, start: Tensor | None = None
    ) -> Tensor:
        """Return `[B, steps, dof]` float32 of ids. Raise ValueError for ids out of range."""

    def outlines(self, actions: np.ndarray) -> Sequence[Outline | None]:
        """Return the curve, knots and control points of each joint of a decoded `[steps, dof]`,
        None if unknown; empty for a tokenizer without curves."""
        return ()

    def save(self, folder: str | Path) -> None:
        """Write the options and the fitted state: JSON, and safetensors for arrays. Each file is
        written beside and moved into place; of two that do not belong together none is loaded."""
        path, state = Path(folder), self.state()
        path.mkdir(parents=True, exist_ok=True)
        arrays = {k: np.ascontiguousarray(v) for k, v in state.items() if isinstance(v, np.ndarray)}
        saved = {
            "type": type(self).__name__,
            "options": {name: getattr(self, name) for name in _options(type(self))},
            "state": {key: value for key, value in state.items() if key not in arrays},
        }
        content = to_bytes(arrays)
        saved["arrays"] = hashlib.sha256(content).hexdigest()
        _replace(path / ARRAYS, content)
        _replace(path / SETTINGS, json.dumps(saved, indent=1).encode())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a saved tokenizer. Raise ValueError for a folder without one, or of another kind."""
        path = Path(folder)
        try:
            saved = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
            content = (path / ARRAYS).read_bytes()
            if saved["arrays"] != hashlib.sha256(content).hexdigest():
                raise OSError("its two files are of two tokenizers")
            arrays = from_bytes(content)
            tokenizer = cls._class_of(saved["type"])(**saved["options"])
            tokenizer.load_state({**saved["state"], **arrays})
        except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(
                f"{path}: holds no whole action tokenizer ({error}); expected {SETTINGS} and "
                f"{ARRAYS}, as `save` writes them"
            ) from error
        return tokenizer

    @classmethod
    def _class_of(cls, name: str) -> type[Self]:
        """Return the class that a file names: this one, or one of the registry."""
        classes: dict[str, Any] = {cls.__name__: cls}
        for path in ACTION.tokenizers.values():
            module, _, class_name = path.partition(":")
            if class_name == name:
                classes[class_name] = getattr(import_module(module), class_name)
        if name not in classes or not issubclass(classes[name], cls):
            raise ValueError(
                f"{SETTINGS} was saved by {name}, which is no {cls.__name__}; load it with "
                f"{name}.load"
            )
        found_class: type[Self] = classes[name]
        return found_class


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o666 & ~_umask())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _options(kind: type) -> list[str]:
    return list(inspect.signature(kind).parameters)


class Outline(NamedTuple):
    """Phases in [0, 1] and values: of the curve `[F, 2]`, of its knots `[K, 2]`, and of the
    control points `[N, 2]` at their Greville abscissae (none of a joint that switches)."""

    curve: np.ndarray
    knots: np.ndarray
    points: np.ndarray
