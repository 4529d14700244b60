"""Examples of single rows, and batches of them.

Legend: `B` rows of a batch, `L` elements of the longest label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..modalities.base import Features, RowErrors, Tokenizer
from ..modalities.groups import EncoderInputs, select_rows
from .uses import BACKBONE


@dataclass
class Example:
    """One row, prepared in a loader worker.

    labels: tensors for the loss; those with at least one axis may differ in length along it.
    reference: JSON values for metrics and reports.
    """

    labels: dict[str, Tensor] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tools:
    """Tools of `Task.prepare` beside the row: the tokenizers of the decoders, and of the encoders
    of text streams, by name; and the prompts before the texts of streams."""

    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)
    stream_tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)
    stream_prompts: Mapping[str, str] = field(default_factory=dict)

    def tokenizer(self, decoder: str = BACKBONE) -> Tokenizer:
        """Return the tokenizer of a decoder. Raise ValueError if the recipe has no such decoder."""
        if decoder not in self.tokenizers:
            raise ValueError(f"there is no decoder {decoder!r}; add a `{decoder}` section")
        return self.tokenizers[decoder]


@dataclass
class Batch:
    """Rows of one task on their way through the model.

    labels: the collated labels, `[B, ...]`; ragged ones are padded with zeros on the right.
    label_masks: `[B, L]` bool of each label with an axis, True = real. The masks stay on the
    CPU, where positions of real tokens are found without waiting for the device.
    references: the examples' JSON values, one dict a row. keys: names of the rows, for errors.
    streams: the encoders' keyword arguments, by stream and view; in groups of equal shapes if
    padding would change features; no view if no row has an item. features: the output of a frozen
    encoder computed before, by stream, if it came from the cache. items: `[B]` number of items of
    each row, for streams whose cells are lists (`StreamUse.many`); also on the CPU. Their streams
    and features hold the items of all rows, in order. bags: the same for streams whose connector
    reads the items of a row, so that a task sees rows. failed: key and reason of rows that could
    not be read. cut: keys of rows with a text that its processor cut. missing: labels that not
    every row has, with the key of the first row without.
    """

    task: str
    keys: list[str]
    references: list[dict[str, Any]]
    labels: dict[str, Tensor] = field(default_factory=dict)
    label_masks: dict[str, Tensor] = field(default_factory=dict)
    streams: dict[str, dict[str, EncoderInputs]] = field(default_factory=dict)
    features: dict[str, Features] = field(default_factory=dict)
    items: dict[str, Tensor] = field(default_factory=dict)
    bags: dict[str, Tensor] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, task: str, keys: Sequence[str], examples: Sequence[Example]) -> Self:
        """Collate examples, without their streams."""
        batch = cls(task, list(keys), [example.reference for example in examples])
        for name in dict.fromkeys(name for example in examples for name in example.labels):
            absent = [k for k, e in zip(keys, examples, strict=True) if name not in e.labels]
            if absent:
                batch.missing[name] = absent[0]
                continue
            batch.add_label(name, [example.labels[name] for example in examples])
        return batch

    def add_label(self, name: str, values: Sequence[Tensor]) -> None:
        """Collate one tensor a row: numbers are stacked, sequences padded."""
        if values[0].ndim == 0:
            self.labels[name] = torch.stack(list(values))
            return
        lengths = torch.tensor([len(value) for value in values])
        self.labels[name] = nn.utils.rnn.pad_sequence(list(values), batch_first=True)
        self.label_masks[name] = torch.arange(self.labels[name].shape[1]) < lengths[:, None]

    def label(self, name: str, cure: str) -> Tensor:
        """Return a collated label. Raise ValueError if a row has none; `cure` ends the message."""
        if name not in self.labels:
            key = self.missing.get(name, self.keys[0] if self.keys else "?")
            raise ValueError(f"row {key!r}: {cure}")
        return self.labels[name]

    def has(self, stream: str) -> bool:
        """Return whether the batch holds a stream; labels and teachers may be left out."""
        return stream in self.streams or stream in self.features

    def without(self, error: RowErrors) -> Self:
        """Return the batch without the rows that a part could not process; they join `failed`.
        Raise the error again if it is not about rows of this batch."""
        if error.count != len(self) or not error.reasons:
            raise error
        failed = [(self.keys[row], reason) for row, reason in sorted(error.reasons.items())]
        batch = self.select([row for row in range(len(self)) if row not in error.reasons])
        return replace(batch, failed=[*self.failed, *failed])

    def select(self, rows: Sequence[int]) -> Self:
        """Return the batch of some of its rows, in this order, without padding that none needs."""
        chosen = list(rows)
        items = {name: _places(counts, chosen) for name, counts in (self.items | self.bags).items()}
        masks = {name: mask[chosen] for name, mask in self.label_masks.items()}
        longest = {name: int(mask.sum(1).max()) if chosen else 0 for name, mask in masks.items()}
        labels = {name: value[chosen] for name, value in self.labels.items()}

        def of(name: str) -> Sequence[int]:
            return items.get(name, chosen)

        return replace(
            self,
            keys=[self.keys[row] for row in chosen],
            references=[self.references[row] for row in chosen],
            labels={
                n: value[:, : longest[n]] if n in masks else value for n, value in labels.items()
            },
            label_masks={name: mask[:, : longest[name]] for name, mask in masks.items()},
            streams={
                name: {view: select_rows(inputs, of(name)) for view, inputs in views.items()}
                for name, views in self.streams.items()
            },
            features={name: select_rows(f, of(name)) for name, f in self.features.items()},
            items={name: counts[chosen] for name, counts in self.items.items()},
            bags={name: counts[chosen] for name, counts in self.bags.items()},
        )

    def to(self, device: torch.device | str) -> Self:
        """Return the batch with its tensors on a device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return the same batch in page-locked memory, from which copies to an accelerator do not
        wait; a data loader calls it."""
        return self._map(lambda value: value.pin_memory())

    def _map(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function to everything that goes to the device."""

        def apply(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: apply(item) for key, item in value.items()}
            return function(value)

        fields = ("labels", "streams", "features")
        return replace(self, **{name: apply(getattr(self, name)) for name in fields})


def _places(items: Tensor, rows: Sequence[int]) -> list[int]:
    """Return the places of the items of some rows among those of all; items: their number in each
    row."""
    counts: list[int] = items.tolist()
    starts = [sum(counts[:row]) for row in range(len(counts))]
    return [index for row in rows for index in range(starts[row], starts[row] + counts[row])]
