"""Which rows a CTC head can learn from: those with at least as many frames as their text needs."""

from __future__ import annotations

from collections.abc import Sequence

from ..batch import Batch
from .decoding import frames_needed


def fitting_rows(
    batch: Batch, frames: Sequence[int]
) -> tuple[list[int], list[list[int]], list[tuple[str, str]]]:
    """Return the rows whose text fits their frames, their ids, and of the others key and reason.

    frames: the number of frames of each row. The ids are the label `ids`. Raise ValueError if a
    row has no text.
    """
    labels = batch.label("ids", "has no text; add the columns of `target`")
    padded = [[0] * labels.shape[1]] * len(labels) if labels.is_meta else labels.tolist()
    lengths = batch.label_masks["ids"].sum(1).tolist()
    rows: list[int] = []
    kept: list[list[int]] = []
    failed: list[tuple[str, str]] = []
    for row, (ids, length, available) in enumerate(zip(padded, lengths, frames, strict=True)):
        ids = ids[:length]
        needed = frames_needed(ids)
        if needed <= available:
            rows.append(row)
            kept.append(ids)
            continue
        text = batch.references[row].get("text")
        reason = (
            f"target: longer than the frames allow; {text!r} needs {needed} ({length} tokens, "
            f"{needed - length} repeats), the signal has {available}: is it the right text, or "
            "does the encoder shorten too much?"
        )
        failed.append((batch.keys[row], reason))
    return rows, kept, failed
