"""Which rows a recogniser can learn: their texts as ids, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence

from ..modalities.base import Tokenizer
from ._ctc_decode import frames_needed
from .base import Batch


def spelled(
    tokenizer: Tokenizer, batch: Batch, frames: Sequence[int]
) -> tuple[list[int], list[list[int]], list[tuple[str, str]]]:
    """Places of the rows that can be learned, their ids, and the keys of the others with the
    reason. frames: those of each row. ValueError where a row has no text at all."""
    good: list[int] = []
    ids: list[list[int]] = []
    failed: list[tuple[str, str]] = []
    for place, (key, target) in enumerate(zip(batch.keys, batch.targets, strict=True)):
        if "text" not in target:
            raise ValueError(f"row {key!r}: has no text; add the columns of `text`")
        try:
            ids.append(_fitting(tokenizer, target["text"], frames[place]))
            good.append(place)
        except ValueError as error:
            failed.append((key, str(error)))
    return good, ids, failed


def _fitting(tokenizer: Tokenizer, text: str, frames: int) -> list[int]:
    """The ids of a text; ValueError where no path over the frames spells them."""
    ids = tokenizer.encode(text)
    needed = frames_needed(ids)
    if needed > frames:
        raise ValueError(
            f"text: longer than the frames allow; {text!r} needs {needed} ({len(ids)} tokens, "
            f"{needed - len(ids)} repeats), the signal has {frames}: is it the right text, or "
            "does the encoder shorten too much?"
        )
    return ids
