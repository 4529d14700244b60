"""Contrastive batches in chunks: the gradients of the whole batch, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.engine.data import Collator, task_dataset
from sensorium.engine.model import Model
from sensorium.modalities.image.datasets.digits import Digits
from sensorium.tasks.batch import Batch
from sensorium.tests.engine.training.recipes.contrastive_recipes import LOSSES, asked, composed


class Misnamed(Digits):
    """Digits with a text that is not theirs."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        return {**row, "wrong": row["parity"]}


def batch_of(model: Model, rows: int) -> Batch:
    encoders = model.encoders()
    streams = model.plan.tasks["match"].task.streams
    dataset = task_dataset(model.plan, encoders, "match", Misnamed(split="train"), streams=streams)
    return Collator(encoders)("match", [dataset.load(i) for i in range(rows)])


def gradients(model: Model, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    loss = model(batch)
    (loss.total / loss.count).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_hard_negatives_share_a_tower_and_its_chunks(runner: Any) -> None:
    """Their gradient reaches the shared weights, and chunks leave it as it is."""
    hard = LOSSES["hard negatives"]
    whole, chunks = (composed(runner, hard, asked(gradcache_chunk_size=rows)) for rows in (None, 3))
    batch = batch_of(whole, 8)
    expected, result = gradients(whole, batch), gradients(chunks, batch)
    plain = gradients(composed(runner, asked(matryoshka=[4])), batch)
    assert expected.keys() == result.keys() == plain.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(result[name], grad, rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(grad, plain[name]) for name, grad in expected.items())


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_chunks_give_the_gradients_of_the_whole_batch(runner: Any, rows: int) -> None:
    """Dropout included: what is computed again has the random numbers of the first time."""
    noisy = {"inputs": {"image": {"encoder": {"dropout": 0.3}}}}
    model = composed(runner, noisy, asked(gradcache_chunk_size=rows))
    batch = batch_of(model, 8)
    drawn: list[Tensor] = []
    handle = (
        model.stream("image")
        .encoder.layers[0]
        .dropout.register_forward_hook(lambda module, args, out: drawn.append(out != 0))
    )
    first = gradients(model, batch)
    handle.remove()
    remaining, count = [mask.flatten().tolist() for mask in drawn], -(-8 // rows)
    if count > 1:  # each chunk ran twice, and dropped the same
        assert len(remaining) == 2 * count
        assert sorted(remaining[count:]) == sorted(remaining[:count])
    second = gradients(model, batch)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_chunks_without_dropout_change_nothing(runner: Any, rows: int) -> None:
    chunked, whole = composed(runner, asked(gradcache_chunk_size=rows)), composed(runner)
    batch = batch_of(whole, 8)
    result, expected = gradients(chunked, batch), gradients(whole, batch)
    assert result.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(result[name], expected[name], rtol=0, atol=1e-5, msg=name)


def test_chunks_keep_less_for_the_backward(runner: Any) -> None:
    """The bytes that autograd holds at the end of the forward."""

    def held(model: Model, batch: Batch) -> int:
        parameters = {p.data_ptr() for p in model.parameters()}
        remaining: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in parameters:
                remaining[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(batch)
        return sum(remaining.values())

    whole, chunked = composed(runner), composed(runner, asked(gradcache_chunk_size=4))
    batch = batch_of(whole, 32)
    assert held(chunked, batch) < held(whole, batch) / 5


def test_chunks_and_batch_norms_do_not_go_together(runner: Any) -> None:
    model = composed(
        runner, asked(gradcache_chunk_size=2), {"inputs": {"image": {"encoder": {"norm": True}}}}
    )
    with pytest.raises(ValueError, match="chunk: the stream has batch norms that train"):
        model(batch_of(model, 4))
