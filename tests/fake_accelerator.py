"""A device that no machine has: tensors that say they are on it and compute on the CPU.

An operation that mixes them with tensors of the CPU fails as it would on an accelerator, so that a
test finds what is made on the wrong device without any accelerator. The results are the CPU's own.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy", 0)
"""A kind that PyTorch knows and no build has, whose backward runs in the calling thread."""

CROSSING = {"copy_", "_to_copy"}
"""What reads from another device."""
ANYWHERE = {
    "_ctc_loss": (2, 3),
    "_ctc_loss_backward": (3, 4),
    "index": (1,),
    "index_put": (1,),
    "index_put_": (1,),
    "_index_put_impl_": (1,),
}
"""Arguments (indices, lengths) that may lie on the CPU on every accelerator."""


class DeviceTensor(Tensor):
    """elem: the tensor of the CPU that holds the values."""

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor) -> DeviceTensor:
        built: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            device=DEVICE,
        )
        built.elem = elem
        return built

    @classmethod
    def __torch_dispatch__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    def tolist(self) -> Any:
        return self.elem.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("the tensor is on an accelerator; use Tensor.cpu() first")

    __array__ = numpy


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What does not reach the dispatcher, or looks there for a kernel of the device."""

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_ours(kwargs.get("device")):
            del kwargs["device"]
            return func(*args, **kwargs).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], DeviceTensor):
            return func(args[0].elem, *args[1:], **kwargs).to(DEVICE)
        if func is Tensor.__getitem__ and isinstance(args[1], list):
            return args[0][torch.tensor(args[1])]
        if func is torch.nn.functional.scaled_dot_product_attention and _on(args, kwargs):
            return torch.ops.aten._scaled_dot_product_attention_math(*args, **kwargs)[0]
        return func(*args, **kwargs)


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _on(*values: Any) -> list[DeviceTensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, DeviceTensor)]


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, device = func.overloadpacket.__name__, kwargs.get("device")
    ours = {id(each.elem): each for each in _on(args, kwargs)}
    plain = {id(x): x for x in tree_leaves((args, kwargs)) if type(x) in (Tensor, nn.Parameter)}
    if ours and name not in CROSSING:
        free = tree_leaves([args[place] for place in ANYWHERE.get(name, ())])
        mixed = {i: x for i, x in plain.items() if x.ndim and not any(x is y for y in free)}
        assert not mixed, f"{func}: tensors on {DEVICE} and on {next(iter(mixed.values())).device}"
    on_accelerator = bool(ours) if device is None else _is_ours(device)
    whole = args, kwargs
    args, kwargs = tree_map(lambda x: x.elem if isinstance(x, DeviceTensor) else x, (args, kwargs))
    if on_accelerator and device is not None:
        kwargs["device"] = torch.device("cpu")

    def placed(value: Any) -> Any:
        if not (on_accelerator and isinstance(value, Tensor)) or id(value) in plain:
            return value
        return ours[id(value)] if id(value) in ours else DeviceTensor(value)

    built = tree_map(placed, func(*args, **kwargs))
    if ours and torch.Tag.inplace_view in func.tags:  # its shape has changed too
        return return_and_correct_aliasing(func, *whole, built)
    return built


@contextlib.contextmanager
def fake_accelerator() -> Iterator[torch.device]:
    """Let everything inside be moved to `DEVICE`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", _Autocast)
        generators = types.SimpleNamespace(
            get_rng_state=lambda _: torch.empty(0), set_rng_state=lambda *_: None
        )
        patch.setattr(torch, DEVICE.type, generators, raising=False)
        with _Functions(), _Dispatch():
            yield DEVICE
