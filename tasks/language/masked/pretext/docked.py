"""Terms on what is docked in front of a text.

`objects` and `matching`: Li et al. 2019 (Unicoder-VL). `ctc` and `frames`: Bapna et al. 2022
(mSLAM): the frames of a sound alone spell the text by its own vocabulary; masked frames are told
from others.

Legend: `B` rows, `P` docked positions, `D` width, `E` width of an embedding, `V` vocabulary, `N`
predictions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .....modalities.base import PositiveFloat, Probability
from .....modalities.messages import did_you_mean
from ....base import Row, Tools
from ..docking import Docked
from ..text import encode_docked, encode_text, positions_of, vector_of
from .base import Encoded, Losses, Pretext


class DockedTerm(Pretext):
    """Base class of terms that read what stands before the text."""

    needs_docked: ClassVar[bool] = True

    def docked(self, encoded: Encoded) -> Docked:
        assert encoded.docked is not None
        return encoded.docked

    def alone(self, encoded: Encoded, docked: Docked) -> Tensor:
        """Return the states `[B, P, D]` of what is docked without the text."""
        text = encoded.text
        hidden = text.hiding(torch.ones_like(text.mask))
        embeds = encoded.encoder.embed(text.ids)
        return encode_docked(encoded.encoder, hidden, docked, embeds)[0].tokens

    def chosen(self, encoded: Encoded, prob: float) -> Tensor:
        """Return bool `[B, P]`: real positions drawn with `prob`, one of a row at least."""
        mask = self.docked(encoded).mask
        draws = torch.rand(mask.shape, generator=encoded.generator).to(mask.device)
        draws = draws.masked_fill(~mask, 2.0)
        first = torch.arange(mask.shape[1], device=mask.device) == draws.argmin(1, keepdim=True)
        return ((draws < prob) | first) & mask


class Objects(DockedTerm):
    """The classes of regions whose features are hidden, from the text, the other regions and their
    own box. column: the class of each box of the row. prob: of a region to be hidden."""

    def __init__(
        self, *, classes: list[str], column: str = "objects", prob: Probability = 0.15
    ) -> None:
        super().__init__()
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(f"classes: found {', '.join(classes)}, expected two different or more")
        self.classes, self.column, self.prob = list(classes), column, prob

    def build(self, dim: int) -> None:
        self.head = nn.Linear(dim, len(self.classes))

    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def example(self) -> dict[str, Any]:
        return {self.column: self.classes[:1]}

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        for name in row[self.column]:
            if name not in self.classes:
                raise ValueError(
                    f"{self.column}: found {name!r}, which classes does not list"
                    f"{did_you_mean(str(name), self.classes)}"
                )
        numbers = [self.classes.index(name) for name in row[self.column]]
        return {"classes": torch.tensor(numbers, dtype=torch.long)}

    def losses(self, encoded: Encoded) -> Losses:
        docked = self.docked(encoded)
        labels, mask = encoded.labels[f"{self.name}.classes"]
        same = labels.shape == docked.mask.shape
        if not same or not (mask.is_meta or torch.equal(mask, docked.mask)):
            raise ValueError(
                f"{self.column}: has {labels.shape[1]} classes for {docked.mask.shape[1]} docked "
                "positions; give each box its class, and dock the regions alone"
            )
        chosen = self.chosen(encoded, self.prob)
        text, encoder = encoded.text.with_ids(encoded.corrupted), encoded.encoder
        embeds = encoder.embed(text.ids)
        states = encode_docked(encoder, text, docked.hiding(chosen), embeds)[0].tokens
        positions = positions_of(chosen)
        logits = self.head(states.flatten(0, 1)[positions]).float()
        values = F.cross_entropy(logits, labels.flatten()[positions], reduction="none")
        return Losses(values, positions // labels.shape[1])


class Matching(DockedTerm):
    """Whether the text belongs to what stands before it, from its vector; each text also stands
    behind what belongs to the next row of the batch."""

    def __init__(self) -> None:
        super().__init__()

    def build(self, dim: int) -> None:
        self.head = nn.Linear(dim, 1)

    def score(self, encoded: Encoded, docked: Docked) -> Tensor:
        """Return the logits `[B]` that the texts belong to what is docked."""
        features = encode_text(encoded.encoder, encoded.text, docked=docked)
        return torch.as_tensor(self.head(vector_of(features))[:, 0].float())

    def scores(self, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        docked = self.docked(encoded)
        right, count = self.score(encoded, docked), len(docked.mask)
        if count < 2:
            return right, None
        return right, self.score(encoded, docked.select(torch.arange(count).roll(-1)))

    def losses(self, encoded: Encoded) -> Losses:
        right, wrong = self.scores(encoded)
        rows = torch.arange(len(right), device=right.device)
        if wrong is None:
            return Losses(F.softplus(-right), rows)
        return Losses(torch.cat([F.softplus(-right), F.softplus(wrong)]), rows.repeat(2))

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        right, wrong = self.scores(encoded)
        hits = (right > 0).float()
        return {"matching_accuracy": hits if wrong is None else (hits + (wrong <= 0).float()) / 2}


class FramesCTC(DockedTerm):
    """The text spelt by the frames that stand before it, which are encoded without it; the classes
    are the vocabulary's, the blank is its padding. A text longer than its frames has no loss."""

    def __init__(self) -> None:
        super().__init__()

    def build(self, dim: int) -> None:
        """There are no parameters: the logits are the encoder's."""

    def losses(self, encoded: Encoded) -> Losses:
        docked, text = self.docked(encoded), encoded.text
        states = self.alone(encoded, docked)
        logits = encoded.encoder.logits(states).float().log_softmax(-1)
        ordinary = ~text.special
        blank = encoded.encoder.processor.tokenizer.pad_id
        if logits.is_meta:
            values = logits.sum((1, 2))
        else:
            values = F.ctc_loss(
                logits.transpose(0, 1),
                text.ids[ordinary],
                docked.mask.sum(1),
                ordinary.sum(1),
                blank=blank,
                reduction="none",
                zero_infinity=True,
            )
        values = values / ordinary.sum(1).clamp(min=1)  # nats a token
        rows = torch.arange(len(values), device=values.device)
        if values.is_meta:
            return Losses(values, rows)
        fits = values.detach() > 0
        return Losses(values[fits], rows[fits])


class Frames(DockedTerm):
    """Which embedding stood at each hidden position, out of all hidden ones of the batch: the
    cross-entropy over cosines divided by `temperature`. prob: of a position to be hidden. The text
    is not seen, so that rows with an empty one learn as well."""

    def __init__(self, *, prob: Probability = 0.4, temperature: PositiveFloat = 0.1) -> None:
        super().__init__()
        self.prob, self.temperature = prob, temperature

    def build(self, dim: int) -> None:
        self.head = nn.Linear(dim, dim)

    def losses(self, encoded: Encoded) -> Losses:
        docked, chosen = self.docked(encoded), self.chosen(encoded, self.prob)
        states = self.alone(encoded, docked.hiding(chosen))
        positions = positions_of(chosen)
        predicted = F.normalize(self.head(states.flatten(0, 1)[positions]).float(), dim=-1)
        targets = docked.embeds.detach().flatten(0, 1)[positions].float()
        logits = predicted @ F.normalize(targets, dim=-1).T / self.temperature
        labels = torch.arange(len(logits), device=logits.device)
        values = F.cross_entropy(logits, labels, reduction="none")
        return Losses(values, positions // chosen.shape[1])
