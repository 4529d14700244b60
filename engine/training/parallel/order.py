"""The order of the collectives of a sharded model, agreed by all processes.

A block of a sharded model is gathered before it runs, which takes every process; but processes need
not run the same blocks. One may have no row that could be read, no item of a stream, more groups of
equal shapes, a row that fails half-way, or a longer answer to generate. So each collective is
requested first: of all that are requested at a time, one is chosen, all processes take part in it,
and those that did not ask for it drop the result. A process that has come to its end waits in
`meet`, and takes part in the others' collectives until all have.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import torch
from torch import distributed

NOTHING = -1


class CollectiveOrder:
    """Requests of numbered collectives. timeout: after which a process gives up waiting."""

    def __init__(self, timeout: timedelta) -> None:
        self._group = distributed.new_group(backend="gloo", timeout=timeout)
        self._participants: list[Callable[[], None]] = []
        self._is_serving = False

    def register(self, participate: Callable[[], None]) -> int:
        """Return the number of a collective; all processes register the same in the same order.

        participate: take part in it without a need of one's own.
        """
        self._participants.append(participate)
        return len(self._participants) - 1

    def request(self, number: int) -> None:
        """Return when all processes are about to run a collective, which this one then runs."""
        if not self._is_serving:
            self._serve_until(number)

    def meet(self) -> None:
        """Wait until no process requests anything, and take part in what they request."""
        self._serve_until(NOTHING)

    def _serve_until(self, number: int) -> None:
        while (chosen := self._agree(number)) != number:
            self._is_serving = True
            try:
                self._participants[chosen]()
            finally:
                self._is_serving = False

    def _agree(self, number: int) -> int:
        chosen = torch.tensor(number)
        distributed.all_reduce(chosen, distributed.ReduceOp.MAX, group=self._group)
        return int(chosen)
