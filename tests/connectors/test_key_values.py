"""The discrete key-value bottleneck: only values that were met change, old classes stay."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from sensorium.connectors.base import Connector
from sensorium.connectors.heads import KeyValues, LinearHead
from sensorium.engine.training.optimizers import leave_untouched_rows
from sensorium.modalities.base import Features

OPTIMIZERS = {
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}),
}


def features_of(vectors: Tensor) -> Features:
    return Features.dense(vectors[:, None], pooled=vectors)


def train(head: Connector, data: tuple[Tensor, Tensor], steps: int, optimizer: object) -> None:
    vectors, labels = data
    generator = torch.Generator().manual_seed(0)
    head.train()
    for _ in range(steps):
        rows = torch.randint(len(labels), (64,), generator=generator)
        optimizer.zero_grad()  # type: ignore[attr-defined]
        F.cross_entropy(head(features_of(vectors[rows])).pooled, labels[rows]).backward()
        optimizer.step()  # type: ignore[attr-defined]
    head.eval()


def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(labels)


def accuracy(head: Connector, data: tuple[Tensor, Tensor]) -> float:
    return float((head(features_of(data[0])).pooled.argmax(1) == data[1]).float().mean())


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_new_classes_leave_other_values_and_old_classes(name: str) -> None:
    """Classes 0 to 4, then 5 to 9. Without the hooks, as a control, momentum and decay move values
    that no row met; a linear head forgets."""
    torch.manual_seed(0)
    images, labels = digits()
    old, new = ((images[rows], labels[rows]) for rows in (labels < 5, labels >= 5))
    kind, options = OPTIMIZERS[name]
    head = KeyValues(64, 10, heads=32, keys=64, key_dim=8, key_steps=20)
    train(head, (images, labels), 20, kind(head.parameters(), lr=0.0))  # keys alone
    keys = head.keys.clone()
    assert not head.values.any()
    linear, kept = LinearHead(64, 10), []
    for part in (head, linear):
        optimizer = kind(part.parameters(), **options)
        if part is head:
            leave_untouched_rows(optimizer, [head.values])
        train(part, old, 60, optimizer)
        before = accuracy(part, old)
        assert before > 0.9
        values = head.values.detach().clone()
        train(part, new, 60, optimizer)
        kept.append(accuracy(part, old) / before)
        assert accuracy(part, new) > 0.9
        if part is head:
            met = met_by(head, new[0])
            assert 0.1 < met.float().mean() < 0.95
            assert torch.equal(head.values[~met], values[~met])
            assert not torch.equal(head.values[met], values[met])
    assert kept[0] > kept[1] + 0.2, kept
    assert torch.equal(head.keys, keys)
    control = kind(head.parameters(), **options)
    values = head.values.detach().clone()
    train(head, new, 5, control)
    assert not torch.equal(head.values[~met], values[~met])


def met_by(head: KeyValues, vectors: Tensor) -> Tensor:
    """Return the keys `[H, M]` that are nearest to some vector."""
    parts = torch.einsum("bd,hdk->hbk", vectors, head.projection)
    nearest = torch.cdist(parts, head.keys).argmin(-1)
    return torch.zeros(head.keys.shape[:2]).scatter(1, nearest, 1.0).bool()


def test_an_encoder_that_trains_is_refused() -> None:
    head = KeyValues(4, 2, heads=2, keys=3)
    with pytest.raises(ValueError, match="the encoder trains; set freeze: true in it"):
        head(features_of(torch.randn(2, 4, requires_grad=True)))


def test_the_key_of_a_vector_is_the_nearest() -> None:
    torch.manual_seed(0)
    head = KeyValues(6, 3, heads=2, keys=5, key_dim=4).eval()
    torch.nn.init.normal_(head.values)
    vectors = torch.randn(7, 6)
    for row, output in zip(vectors, head(features_of(vectors)).pooled, strict=True):
        chosen = []
        for h in range(2):
            distances = [(row @ head.projection[h] - key).norm() for key in head.keys[h]]
            chosen.append(head.values[h, min(range(5), key=distances.__getitem__)])
        torch.testing.assert_close(output, torch.stack(chosen).mean(0))
