"""The whole model in each process: one process, or several with DDP."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ...model import Model, move_to_device


class Replicas:
    """A model that each process holds in full; gradients are averaged by DDP."""

    def __init__(self, model: Model, accelerator: Accelerator) -> None:
        self.model, self.accelerator = model, accelerator
        self.net: Any = model

    def place(self, served: Collection[str]) -> None:
        """Move the model to the device. served: streams whose encoder is not run."""
        move_to_device(self.model, self.accelerator.device, set(served))

    def wrap(self, served: Collection[str]) -> None:
        """Make `net`, whose call is a task's loss of a batch, once the optimizer is built."""
        if self.accelerator.num_processes > 1:
            self._ignore(served)
            self.net = self.accelerator.prepare_model(self.model, device_placement=False)

    def _ignore(self, served: Collection[str]) -> None:
        """Leave encoders whose features are stored out of the gradients' reduction."""
        names = [f"streams.{s}.encoder." for s in served]
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        ignored = [n for n, _ in tensors if n.startswith(tuple(names))] if names else []
        torch.nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            self.model, ignored
        )

    def before_forward(self) -> None:
        """Called before each forward of `net`."""

    def grad_sync(self, last: bool) -> Any:
        """Return the context of a forward or backward. last: of its optimizer step, after which
        gradients are reduced over the processes."""
        if last or self.accelerator.num_processes == 1:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(self.net)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self.accelerator.backward(loss)

    def gradients(self) -> list[Tensor]:
        """Return the gradients of a step that this process holds, averaged over the processes."""
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def norm(self, grads: list[Tensor]) -> Tensor:
        """Return the norm of all gradients of the model."""
        return squared_norm(grads, self.accelerator.device).sqrt()

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which any method of the model may be called by every process."""
        return contextlib.nullcontext()


def squared_norm(grads: Iterable[Tensor], device: torch.device) -> Tensor:
    """Return the sum of all squares, in float64 where the device has it: the norm then is the same
    float32 however the gradients are split over processes."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    norms = [torch.linalg.vector_norm(grad, dtype=dtype).to(device) for grad in grads]
    return torch.stack([torch.zeros((), dtype=dtype, device=device), *norms]).square().sum()
