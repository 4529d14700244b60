"""Ids of text streams, and encoders on ids that a task made of them.

Legend: `B` rows, `L` tokens of the longest text, `D` width of a state.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...modalities.base import Features, Tokenizer
from ...modalities.groups import EncoderInputs, groups_of, merge
from ..uses import VocabularyEncoder


def merged_ids(
    inputs: EncoderInputs, tokenizer: Tokenizer, languages: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the ids and mask `[B, L]` of a batch's samples, padded if they were kept apart by
    shape.

    languages: the caller passes those of the texts on; otherwise texts that have one are refused
    by ValueError, since the encoder would take its default.
    """
    if not languages and any("languages" in tensors for _, tensors in groups_of(inputs)):
        raise ValueError(
            "the encoder has parameters of each language, and this task reads ids without their "
            "languages; take an encoder of one language"
        )
    parts = [(rows, Features(t["ids"][..., None], t["mask"])) for rows, t in groups_of(inputs)]
    first, *more = parts
    whole = merge([(rows or [], f) for rows, f in parts]) if more else first[1]
    ids, mask = whole.tokens[..., 0], whole.mask
    return ids.masked_fill(~mask, tokenizer.pad_id) if more else ids, mask


def encode_ids(encoder: VocabularyEncoder, ids: Tensor, mask: Tensor, **options: Any) -> Features:
    """Return the states of texts `[B, L, D]`. The rows of an encoder whose features padding changes
    are encoded by length.

    options: of the encoder; a tensor is cut as the ids are.
    """
    if encoder.batch_invariant or ids.is_meta:
        return encoder(ids=ids, mask=mask, **options)
    lengths = mask.sum(1).tolist()
    groups = {n: [i for i, length in enumerate(lengths) if length == n] for n in set(lengths)}

    def encode(rows: list[int], length: int) -> Features:
        cut: dict[str, Any] = {
            n: v[rows, :length] if isinstance(v, Tensor) else v for n, v in options.items()
        }
        return encoder(ids=ids[rows, :length], mask=mask[rows, :length], **cut)

    parts = [(rows, encode(rows, n)) for n, rows in groups.items()]
    return merge(parts) if len(parts) > 1 else parts[0][1]
