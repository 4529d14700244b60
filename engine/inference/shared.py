"""The encoder outputs of one call that several tasks read, computed once and held in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...modalities.groups import groups_of
from ..cache import Record, to_records
from ..data import Collator, PreparedRow, StreamDataset
from ..model import Model, encode


class SharedFeatures:
    """Records of one stream by the key of the item, looked up as in a store."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def __contains__(self, key: object) -> bool:
        return key in self.records

    def get(self, keys: Sequence[str]) -> list[Record]:
        """Return the records of keys that are in it."""
        return [self.records[key] for key in keys]


def shared_streams(model: Model, tasks: Sequence[str], users: int = 2) -> list[str]:
    """Return the streams that at least `users` of the tasks read and whose encoder's output is all
    that they need of it."""
    uses: dict[str, list[frozenset[str]]] = {}
    for task in tasks:
        for name, use in model.plan.tasks[task].task.streams.items():
            if use.role != "teacher":
                uses.setdefault(name, []).append(use.inner)
    return [name for name, needs in uses.items() if len(needs) >= users and not any(needs)]


def encode_shared(
    model: Model, stream: str, dataset: StreamDataset, rows: Sequence[int], collate: Collator
) -> SharedFeatures:
    """Return the features of a stream's items of some rows. A row that cannot be read has none.

    dataset: with a reader of the stream alone. collate: rows -> batch.
    """
    memory = SharedFeatures()
    prepared = [(i, dataset.prepare(i)) for i in rows]
    whole: list[tuple[int, PreparedRow]] = [(i, row) for i, row in prepared if row.failure is None]
    keys = [key for i, _ in whole for key in dataset.item_keys(stream, i)]
    memory.records |= encode_items(model, stream, [row for _, row in whole], keys, collate)
    return memory


def encode_items(
    model: Model, stream: str, rows: Sequence[PreparedRow], keys: Sequence[str], collate: Collator
) -> dict[str, Record]:
    """Return the features of the items of one stream, by the keys of the items, in their order.

    rows: with samples of the stream alone.
    """
    if not keys:
        return {}
    part, records = model.stream(stream), dict[str, Record]()
    batch = collate("", rows).to(model.device)
    options = {"hidden_states": part.layers} if part.layers else {}
    for members, tensors in groups_of(batch.streams[stream]["main"]):
        features = encode(part.encoder, tensors, options).to(torch.device("cpu"))
        places = range(len(keys)) if members is None else members
        for place, record in zip(places, to_records(features), strict=True):
            records[keys[place]] = record
    return records
