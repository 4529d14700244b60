"""The model of several processes that share it, of which none holds all of its weights in memory.

The main process builds it with large tensors in files: those that are drawn at random, and those
that are read. The others build its shape on the meta device and take the values out of these files,
of which the system reads the pages that a process uses. `Shards` then copies its share out of them.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import patch_environment
from torch import Tensor, nn
from torch.utils import swap_tensors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ....modalities.groups import try_encoders
from ....modalities.paths import cache_root
from ...checkpoint import MappedTensor, new_mapped
from ...model import Model, compose, validate_loaded
from ...recipe import ResolvedRecipe
from ...utils import RuntimeFailure, from_main, make_folder

LARGE = 2**20
"""Bytes from which a tensor lies in a file; the main process sends smaller ones to the others."""

FRESH = ("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided")
"""Operations whose results have no values yet."""

Fill = Callable[[Model], Any]


def compose_together(
    plan: ResolvedRecipe,
    accelerator: Accelerator,
    *,
    saved: Collection[str] = (),
    fill: Fill = lambda model: None,
) -> Model:
    """Return `compose`'s model, whose large tensors lie in files; every process calls it.

    fill: called with the model before the other processes take its values, and in those with their
    model on the meta device.
    """

    def make() -> Path:
        make_folder(cache_root())
        return Path(tempfile.mkdtemp(prefix="weights-", dir=cache_root()))

    folder = from_main(accelerator, make)
    built: list[Model] = []

    def build() -> dict[str, Any]:
        with mapped_memory(folder) as memory:
            model = compose(plan, saved=saved)
            fill(model)
        built.append(model)
        return memory.values(model)

    try:
        values = from_main(accelerator, build)
        if not built:
            with torch.device("meta"):
                built.append(compose(plan, weights=False))
            fill(built[0])
        _take(built[0], values)
        if not accelerator.is_main_process:
            for where, module, _ in built[0].components:
                validate_loaded(module, where)
            try_encoders(built[0])
        accelerator.wait_for_everyone()
    finally:
        if accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)  # what is mapped stays until it is dropped
    return built[0]


@contextlib.contextmanager
def mapped_memory(folder: Path) -> Iterator[MappedMemory]:
    """Put the large tensors that are made in the block into files of a folder."""
    memory = MappedMemory(folder)
    # Threads of transformers would read weights outside of the block.
    with patch_environment(hf_deactivate_async_load="1"), memory:
        yield memory


class MappedMemory(TorchDispatchMode):
    """Large tensors on the CPU lie in files of a folder as soon as they are made."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.files: dict[int, MappedTensor] = {}  # by the address of their values
        self._open: list[Tensor] = []  # kept, so that no address is used again

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name != "lift_fresh" and any(r.alias_info for r in function._schema.returns):
            return result  # a view, or a change in place
        return tree_map_only(Tensor, lambda tensor: self.moved(tensor, name not in FRESH), result)

    def moved(self, tensor: Tensor, has_values: bool = True) -> Tensor:
        """Return a tensor as it is if it is small or lies in a file, else one that does."""
        size = tensor.numel() * tensor.element_size()
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.device.type != "cpu":
            return tensor
        if tensor.layout != torch.strided or size < LARGE or tensor.data_ptr() in self.files:
            return tensor
        mapped, file = new_mapped(self.folder / str(len(self.files)), tensor)
        if has_values:
            mapped.copy_(tensor.detach())
        self.files[mapped.data_ptr()] = file
        self._open.append(mapped)
        return mapped

    def values(self, model: Model) -> dict[str, Any]:
        """Return the values of a model's tensors by name: small ones, the files of large ones, or
        the name of a tensor that is the same; and which parameters train."""
        names: dict[int, str] = {}
        values: dict[str, Any] = {}
        for name, tensor in _tensors(model):
            if id(tensor) in names:
                values[name] = names[id(tensor)]
                continue
            names[id(tensor)] = name
            whole = self.moved(tensor.detach())
            file = self.files.get(whole.data_ptr())
            shape, strides = whole.shape, whole.stride()
            is_all = file is not None and (file.shape, file.strides) == (shape, strides)
            values[name] = file if is_all else whole.clone()
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        return {"tensors": values, "trained": trained}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a model, and tensors that its modules keep beside."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
    for place, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{place}.{name}", value


@torch.no_grad()
def _take(model: Model, values: dict[str, Any]) -> None:
    """Fill a model by the values of the main process. Raise RuntimeFailure if it has others."""
    tensors = dict(_tensors(model))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    lacking = sorted(
        name
        for name in {*tensors} ^ {*values["tensors"]}
        if name not in values["tensors"] or tensors.get(name) is not None
    )
    if lacking or trained != values["trained"]:
        name = next(iter([*lacking, *sorted({*trained} ^ {*values["trained"]})]), "a parameter")
        raise RuntimeFailure(
            f"{name}: is built in one way on the meta device and in another with its weights, so "
            "that processes cannot share the model; set train.parallel: ddp"
        )
    for name, value in values["tensors"].items():
        if isinstance(value, str):
            if tensors[name] is not tensors[value]:
                raise RuntimeFailure(f"{name}: is {value} in the main process alone")
            continue
        tensor = tensors[name]
        new = value.open() if isinstance(value, MappedTensor) else value
        if isinstance(tensor, nn.Parameter):
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        swap_tensors(tensor, new)
