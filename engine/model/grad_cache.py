"""Encoding in chunks of rows, for batches larger than memory, with the same gradients.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
2021: only the features are kept; a chunk's activations are recomputed when its gradient is known,
with the same random numbers.

Legend: `B` rows, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...modalities.base import Features
from ...modalities.groups import StreamInput, count_rows, merge, select_rows


def checkpointed_chunks(
    stream: nn.Module,
    run: Callable[[StreamInput, Mapping[str, Any]], Features],
    inputs: StreamInput,
    options: Mapping[str, Any],
    *,
    rows: int,
) -> Features:
    """Call `run(inputs, options)` on `rows` rows at a time. Raise ValueError if a batch norm
    trains: its statistics would be those of a chunk, and would be updated twice."""
    if torch.is_grad_enabled() and any(
        isinstance(m, _BatchNorm) and m.training for m in stream.modules()
    ):
        raise ValueError(
            "chunk: the stream has batch norms that train, whose statistics would be those of "
            "a chunk; take an encoder without, or leave chunk out"
        )
    try:
        total = count_rows(inputs)
    except ValueError as error:
        raise ValueError(f"chunk: {error}; leave chunk out") from error
    if total <= rows:
        return run(inputs, options)
    parts = [range(start, min(start + rows, total)) for start in range(0, total, rows)]
    return merge(
        [
            (part, checkpoint(run, select_rows(inputs, part), options, use_reentrant=False))
            for part in parts
        ]
    )
