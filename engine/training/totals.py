"""Losses and counts of training steps: tensors on the device until they are logged; and the bytes
of the tensors kept for the backward."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from ...tasks.base import Loss
from ...tasks.batch import Batch
from ..data import SkippedRows
from ..utils import RuntimeFailure


class StepTotals:
    """Sums over the batches of one optimizer step.

    task: the step's. keys: names of this process's rows. num_items: the number of items if the host
    has it of without asking the device, 0 if no row could be read. parts: False leaves all but the
    loss and its count out.
    """

    def __init__(self, device: torch.device, parts: bool = True) -> None:
        self.task, self.keys, self.num_items = "", list[str](), 0
        self._device, self._parts = device, parts
        self._sums: dict[str, Tensor] = {}

    def add(self, batch: Batch, loss: Loss) -> None:
        """Add the loss of one batch."""
        self.task = batch.task
        self.keys += batch.keys
        count, on_host = loss.count, True
        if isinstance(count, Tensor):
            on_host = count.device.type == "cpu"
            count = count.to(self._device, torch.float32)
        else:
            count = torch.full((), count, device=self._device, dtype=torch.float32)
        self.num_items += int(loss.count) if on_host else len(batch)
        self._add("loss", loss.total)
        self._add("count", count)
        if self._parts:
            for name, value in loss.parts.items():
                self._add(name, value)

    def _add(self, name: str, value: Tensor) -> None:
        value = _exact(value.detach())  # so that the order of adding does not matter
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    @property
    def loss(self) -> Tensor:
        """This process's sum of losses."""
        return self._sums["loss"]

    def count(self, accelerator: Accelerator) -> Tensor:
        """Return the number of items of all processes, on the device."""
        count: Tensor = accelerator.reduce(self._sums["count"], "sum")
        return count

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over the items of all processes: a synchronization with the device.

        A process whose rows could not be read has no parts of a loss.
        """
        values = torch.stack([*self._sums.values()]).tolist()
        sums = dict(zip(self._sums, values, strict=True))
        if accelerator.num_processes > 1:
            gathered = gather_object([sums])
            names = dict.fromkeys(name for each in gathered for name in each)
            sums = {name: sum(each.get(name, 0.0) for each in gathered) for name in names}
        count = max(sums.pop("count"), 1.0)
        return {name: value / count for name, value in sums.items()}


def _exact(value: Tensor) -> Tensor:
    return value if value.device.type == "mps" else value.to(torch.float64)  # MPS has no float64


MAX_SKIPPED = 10
"""Steps in a row without finite gradients after which training ends."""


class FiniteCheck:
    """Remember losses and gradients that are not finite, on the device until they are read.

    A step with such gradients is skipped: nothing of it reaches the weights.
    """

    def __init__(self, accelerator: Accelerator, steps: int) -> None:
        self._accelerator, device = accelerator, accelerator.device
        # In float16 the first steps find the scale of the loss, and are skipped for that.
        self._limit = min(MAX_SKIPPED * (1 if accelerator.scaler is None else 3), max(steps, 1))
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._skipped = torch.zeros(3, dtype=torch.int64, device=device)
        self._keys: dict[int, Sequence[str]] = {}

    def add(self, step: int, totals: StepTotals) -> None:
        """Look at a step's loss."""
        loss = totals.loss.to(self._loss.dtype)
        first = (self._step == 0) & ~torch.isfinite(loss)
        self._step = torch.where(first, step, self._step)
        self._loss = torch.where(first, loss, self._loss)
        self._keys[step] = totals.keys

    def add_norm(self, step: int, norm: Tensor, grads: Sequence[Tensor]) -> bool:
        """Look at the norm of a step's gradients; return whether the optimizer may take the step.

        On an accelerator, for which nothing waits, it always may: gradients that are not finite
        are zero then.
        """
        finite = torch.isfinite(norm)
        bad = (~finite).to(self._skipped)
        count, in_row, first = self._skipped.unbind()
        first = torch.where((first == 0) & ~finite, step, first)
        self._skipped = torch.stack([count + bad, (in_row + bad) * bad, first])
        if norm.device.type == "cpu":
            return math.isfinite(norm.numpy())
        for grad in grads:
            grad.copy_(torch.where(finite, grad, 0))
        return True

    def state(self) -> list[int]:
        """Return the state of the skipped steps for a checkpoint."""
        values: list[int] = self._skipped.tolist()
        return values

    def load_state(self, state: Sequence[int]) -> None:
        """Take back what `state` returned."""
        self._skipped = torch.tensor(state, device=self._skipped.device)

    def raise_if_not(self) -> None:
        """Raise RuntimeFailure with the step and its rows if a loss was not finite, or the
        gradients of too many steps in a row: a synchronization. Every process has to call it."""
        steps = torch.atleast_1d(self._accelerator.gather(self._step)).tolist()
        own_step, keys = int(self._step), self._keys
        bad = min((step for step in steps if step), default=0)
        if bad:
            value, rows = math.nan, "rows of another process"
            if own_step == bad:
                value, rows = float(self._loss), _rows(keys[bad])
            raise RuntimeFailure(
                f"step {bad}: the loss is {value}; {rows}; lower train.optimizer.lr, or look at "
                "these rows"
            )
        if self.state()[1] >= self._limit:
            raise RuntimeFailure(
                f"the gradients of {self.state()[1]} steps in a row are not finite; lower "
                "train.optimizer.lr, or look at the rows and at parts of your own"
            )

    def report(self) -> tuple[int, str]:
        """Return how many steps were skipped since the last report, and a line about them."""
        count, in_row, first = self.state()
        rows = f"; {_rows(self._keys[first])}" if first in self._keys else ""
        self._keys = {}
        self._skipped = torch.tensor([0, in_row, 0], device=self._skipped.device)
        text = f"step {first}: the gradients are not finite, the step is skipped"
        return count, f"{text} ({count} since the last line){rows}"


def _rows(keys: Sequence[str]) -> str:
    return f"rows {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}"


class LearnedCheck:
    """Whether any row was learned from, in any process; a run that read none has failed."""

    def __init__(self) -> None:
        self.learned = False

    def add(self, counts: Iterable[float]) -> bool:
        """Take the items of a step's losses; return whether there are any."""
        any_found = any(counts)
        self.learned = self.learned or any_found
        return any_found

    def raise_if_nothing(self, skipped: SkippedRows) -> None:
        """Raise RuntimeFailure if rows were skipped and none was learned from."""
        if not self.learned and len(skipped):
            raise RuntimeFailure(f"no row could be learned from: {skipped.summary()}")


class SavedTensors:
    """Bytes of the tensors that a backward keeps, and of the largest, parameters left out."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes, self.largest = 0, 0
        # Kept alive while they are counted: an id is used again once its object is gone.
        self.seen: dict[int, Tensor] = {id(p): p for p in model.parameters()}

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count the tensors kept within the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t):
            yield

    def _pack(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self.seen:
            self.seen[id(tensor)] = tensor
            size = tensor.numel() * tensor.element_size()
            self.bytes, self.largest = self.bytes + size, max(self.largest, size)
        return tensor
