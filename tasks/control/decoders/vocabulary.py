"""Which ids of the decoder stand for action tokens: a mapping that is frozen with the run.

`tail`: BEAST's (arXiv 2506.06072), token k is the id `V - 1 - k` of a vocabulary of `V`, so that
nothing is added. `added`: rows of their own after the vocabulary.

Legend: `K` action tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ....backbones.base import Backbone

Vocabulary = Literal["added", "tail"]


class ActionVocabulary(nn.Module):
    """`ids [K]`: the decoder's id of each token; a buffer, so that a run keeps it."""

    ids: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.own: list[int] = []

    def build(self, backbone: Backbone, size: int) -> None:
        """Fix the mapping of `size` tokens; add them to the decoder with `added`."""
        if self.vocabulary == "added":
            first = backbone.add_tokens(size)
            self.own = list(range(first, first + size))
        else:
            self.own = _tail(backbone, size)
        self.register_buffer("ids", torch.tensor(self.own))

    def check(self) -> None:
        """ValueError where the mapping that was read is not this decoder's."""
        found = self.ids.tolist()
        if found != self.own:
            raise ValueError(
                f"vocabulary: the run was trained with actions at the ids {_span(found)}, here "
                f"they are at {_span(self.own)}; load it with its own decoder, text tokenizer "
                "and order of tasks"
            )


def _tail(backbone: Backbone, size: int) -> list[int]:
    tokenizer = backbone.tokenizer
    ids = [tokenizer.size - 1 - token for token in range(size)]
    special = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.mask_id}
    taken = sorted(i for i in special if i is not None and i >= ids[-1])
    if 2 * size > tokenizer.size or taken:
        why = f"among them the special id {taken[0]}" if taken else "more than half"
        raise ValueError(
            f"vocabulary: tail takes the last {size} of {tokenizer.size} ids, {why}; "
            "say vocabulary: added"
        )
    return ids


def _span(ids: list[int]) -> str:
    return f"{ids[0]}..{ids[-1]}"
