"""Words of a text that a decoder wrote, and the log-probability of each.

Legend: `B` rows, `L` ids of the text, `U` words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.visibility import Attention
from ...modalities.base import Features, Tokenizer
from ..base import Unit

REPLACEMENT = "\ufffd"
"""What stands for bytes that are no letter yet."""


def text_units(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Unit]:
    """Return the words of a text. target: all ids of the text, and the places of the word's."""
    whole = tuple(ids)
    units: list[tuple[str, list[int]]] = []
    before, waiting = "", list[int]()
    for place in range(len(whole)):
        text = tokenizer.decode(whole[: place + 1])
        waiting.append(place)
        if text.endswith(REPLACEMENT) and place + 1 < len(whole):
            continue  # bytes that are no letter yet
        added = text[len(before) :] if text.startswith(before) else text
        begins = not units or added[:1].isspace() or before[-1:].isspace()
        if begins and (added.strip() or not units):
            units.append(("", []))
        units[-1] = (units[-1][0] + added, [*units[-1][1], *waiting])
        before, waiting = text, []
    return [Unit(text.strip(), (whole, tuple(places))) for text, places in units if text.strip()]


def text_unit_scores(
    decoder: Backbone, context: Features, units: Sequence[Unit], attention: Attention = "causal"
) -> Tensor:
    """Return `[B, U]` the log-probability of each word after the context and the words before it;
    every row is scored on the same text."""
    rows, device = len(context.tokens), context.tokens.device
    ids = torch.tensor(units[0].target[0], device=device).expand(rows, -1)  # [B, L]
    mask = torch.ones_like(ids, dtype=torch.bool)
    hidden = decoder.teacher_force(context, ids, mask, attention)
    log_probs = decoder.logits(hidden).float().log_softmax(-1)
    chosen = log_probs.gather(-1, ids[..., None]).squeeze(-1)  # [B, L]
    return torch.stack([chosen[:, list(unit.target[1])].sum(1) for unit in units], 1)
