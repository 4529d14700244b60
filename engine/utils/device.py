"""Where a model runs, in which precision and from which seeds: one choice for every verb."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch

from ...modalities.messages import did_you_mean
from .errors import ConfigError

KINDS = ("cuda", "xpu", "mps", "cpu")
"""Kinds of device in the order in which they are preferred. ROCm is `cuda` to PyTorch."""

Precision = Literal["fp32", "bf16", "fp16"]
"""What products are computed in; weights are float32."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device_count(kind: str) -> int:
    """Return the number of devices of a kind that this process can use."""
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind)
    return int(module.device_count()) if module.is_available() else 0


def available() -> list[str]:
    """Return the kinds of device that this process can use, the preferred one first."""
    return [kind for kind in KINDS if device_count(kind)]


def pick(device: str | torch.device | None = None) -> torch.device:
    """Return the device to run on: the named one, or by default the first of CUDA, XPU, MPS, CPU.

    Raise ConfigError if there is no such kind of device, or none on this machine.
    """
    kinds = available()
    if device is None:
        return torch.device(kinds[0])
    kind, _, index = (name := str(device)).partition(":")
    if kind not in KINDS or ((index or name[-1:] == ":") and not index.isdecimal()):
        raise ConfigError(
            f"device: {name!r} is no kind of device, nor one with a number as in cuda:1"
            f"{did_you_mean(kind, KINDS)}"
        )
    count = device_count(kind)
    if not count:
        raise ConfigError(
            f"device: {kind} is not available here; take one of {', '.join(kinds)}, or leave the "
            "device out"
        )
    if index and int(index) >= count:
        raise ConfigError(f"device: found {name}, but {kind} has {count} here, numbered from 0")
    return torch.device(kind, int(index)) if index and kind != "cpu" else torch.device(kind)


def check_precision(precision: str | None) -> None:
    """Raise ConfigError for a name that is no precision; None is no name."""
    names = get_args(Precision)
    if precision is not None and precision not in names:
        raise ConfigError(f"precision: there is no {precision!r}{did_you_mean(precision, names)}")


def check_training_precision(precision: str, device: torch.device | None = None) -> None:
    """Raise ConfigError if nothing trains in a precision on a device, by default that of `pick`."""
    if precision == "fp16" and (device or pick()).type == "cpu":
        raise ConfigError(
            "train.precision: fp16 trains on an accelerator alone, where gradients are scaled, and "
            "the device is cpu; take bf16 or fp32"
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which products are computed in a precision; fp32 changes nothing."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@contextlib.contextmanager
def fork_rng() -> Iterator[None]:
    """Restore PyTorch's generators on exit, those of the CPU and of every accelerator."""
    with contextlib.ExitStack() as stack:
        for kind in available():
            if kind == "mps":  # its one generator takes no number, which fork_rng passes
                stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
            elif kind != "cpu":
                devices = range(device_count(kind))
                stack.enter_context(torch.random.fork_rng(devices, device_type=kind))
        stack.enter_context(torch.random.fork_rng(devices=()))
        yield


def manual_seed(seed: int) -> None:
    """Seed PyTorch's generators, those of the CPU and of every accelerator.

    On a machine without accelerators `torch.manual_seed` stores the formatted call stack for each
    kind of them, which takes about half a millisecond.
    """
    if available() == ["cpu"]:
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed the generators of Python, numpy and PyTorch; seed: below 2 to the 32."""
    random.seed(seed)
    np.random.seed(seed)
    manual_seed(seed)


def derive_seed(seed: int, *names: object) -> int:
    """Return a seed of 63 bits from a seed and names; the same in every process and version."""
    text = "\0".join(str(n) for n in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@contextlib.contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Torch's generator at a derived seed inside, as it was outside."""
    with fork_rng():
        manual_seed(derive_seed(seed, *names))
        yield
