"""The mapping of action tokens to ids of the decoder, fixed for a run.

`tail`: BEAST's (arXiv 2506.06072), token k is the id `V - 1 - k` of a vocabulary of `V`; nothing is
added. `added`: new rows after the vocabulary.

Legend: `K` action tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ....backbones.base import Backbone

Vocabulary = Literal["added", "tail"]


class ActionVocabulary(nn.Module):
    """`ids [K]`: the decoder's id of each token; a buffer, so that it is saved with the run."""

    ids: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.own: list[int] = []

    def build(self, backbone: Backbone, size: int) -> None:
        """Set the mapping of `size` tokens; `added` adds them to the decoder."""
        if self.vocabulary == "added":
            first = backbone.add_tokens(size)
            self.own = list(range(first, first + size))
        else:
            self.own = _tail(backbone, size)
        self.register_buffer("ids", torch.tensor(self.own))

    def check(self) -> None:
        """Raise ValueError if the loaded mapping is not this decoder's."""
        ids = self.ids.tolist()
        if ids != self.own:
            raise ValueError(
                f"vocabulary: the run was trained with actions at the ids {_span(ids)}, here "
                f"they are at {_span(self.own)}; load it with its own decoder, text tokenizer "
                "and order of tasks"
            )


def _tail(backbone: Backbone, size: int) -> list[int]:
    tokenizer = backbone.tokenizer
    ids = [tokenizer.size - 1 - token for token in range(size)]
    special = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.mask_id}
    special_ids = sorted(i for i in special if i is not None and i >= ids[-1])
    if 2 * size > tokenizer.size or special_ids:
        reason = f"among them the special id {special_ids[0]}" if special_ids else "more than half"
        raise ValueError(
            f"vocabulary: tail takes the last {size} of {tokenizer.size} ids, {reason}; "
            "set vocabulary: added"
        )
    return ids


def _span(ids: list[int]) -> str:
    return f"{ids[0]}..{ids[-1]}"
