"""Tags of words, the entities that they mark, and their scores.

Entities are those of conlleval (Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003
Shared Task", 2003), as seqeval computes them by default: precision, recall and F1 count entities
whose type and ends are both right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .label_encoder import Label

OUTSIDE = "O"
PREFIXES = "BIES"
"""Begin, inside, end and single word of an entity; BIO has the first two of them."""


class Entity(NamedTuple):
    """type: of the entity. start, end: its first word, and the one behind its last."""

    type: str
    start: int
    end: int


def has_entities(classes: Iterable[Label]) -> bool:
    """Return whether tags mark entities: all are `O`, `B-x`, `I-x`, `E-x` or `S-x`."""
    return all(
        label == OUTSIDE or (isinstance(label, str) and label[:1] in PREFIXES and label[1:2] == "-")
        for label in classes
    )


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of a row's tags. An `I-x` that continues none begins one."""
    found: list[Entity] = []
    begin, last, kind = 0, OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, next_kind = tag[:1], tag[2:]
        ends = last in "ES" or prefix in "BSO" or next_kind != kind
        if last != OUTSIDE and ends:
            found.append(Entity(kind, begin, place))
        if prefix != OUTSIDE and (last == OUTSIDE or ends):
            begin = place
        last, kind = prefix, next_kind
    return found


class TagMetrics:
    """Of tags that mark entities `f1`, `precision`, `recall` of all entities, `macro_f1`, the mean
    over types, and the F1 of each type, `PER_f1`; of other tags `accuracy` and `f1`, the mean over
    tags. accuracy: fraction of units with the right tag. A unit without a prediction (of a text
    that was cut) is wrong, and outside of any entity.
    """

    def __init__(self, classes: Sequence[Label]) -> None:
        self.has_entities = has_entities(classes)
        self.correct = self.units = 0
        self.hits, self.predicted, self.true = Counter[str](), Counter[str](), Counter[str]()

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add predictions and references of the same rows. Raise ValueError for a row without
        tags, or with another number of them."""
        for prediction, reference in zip(predictions, references, strict=True):
            if "tags" not in reference:
                raise ValueError("tags: a row has none; evaluate on data that has them")
            predicted, true = prediction["tags"], reference["tags"]
            if len(predicted) != len(true):
                raise ValueError(f"tags: {len(predicted)} were predicted, the row has {len(true)}")
            self.correct += sum(p == t for p, t in zip(predicted, true, strict=True))
            self.units += len(true)
            if self.has_entities:
                predicted = [OUTSIDE if tag is None else tag for tag in predicted]
                self._count({*entities(predicted)}, {*entities(true)})
            else:
                self._count({*enumerate(predicted)}, {*enumerate(true)})

    def _count(self, predicted: set[Any], true: set[Any]) -> None:
        """Add the items of a row by their type: the first field of an entity, the last of a
        pair."""
        kind = 0 if self.has_entities else 1
        self.predicted.update(str(item[kind]) for item in predicted if item[kind] is not None)
        self.true.update(str(item[kind]) for item in true)
        self.hits.update(str(item[kind]) for item in predicted & true)

    def compute(self) -> dict[str, float]:
        if not self.units:
            raise ValueError("tags: no unit was accumulated; is the split empty?")
        types = sorted({*self.predicted, *self.true})
        each = {kind: self._scores([kind])["f1"] for kind in types}
        macro = sum(each.values()) / len(each) if each else 0.0
        accuracy = self.correct / self.units
        if not self.has_entities:
            return {"accuracy": accuracy, "f1": macro}
        return {
            **self._scores(types),
            "macro_f1": macro,
            "accuracy": accuracy,
            **{f"{kind}_f1": value for kind, value in each.items()},
        }

    def _scores(self, types: Sequence[str]) -> dict[str, float]:
        """Return the scores of some types together; 0 where there is nothing to divide by."""
        hits, predicted, true = (
            sum(counts[kind] for kind in types) for counts in (self.hits, self.predicted, self.true)
        )
        precision, recall = hits / max(1, predicted), hits / max(1, true)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        return {"f1": f1, "precision": precision, "recall": recall}
