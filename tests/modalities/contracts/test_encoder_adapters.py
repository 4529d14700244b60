"""LoRA on every kind of encoder: each adapter trains, is saved, and can be merged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from encoder_cases import EACH, UNUSED, contract
from torch import nn

from sensorium.engine.model.parameters.adapters import add_adapter
from sensorium.engine.model.parameters.merge import adapters_to_merge
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Encoder
from sensorium.testing.common import check_state, gap, open_zero_branches, outputs
from sensorium.testing.encoders import EncoderContract

NOTHING_TO_ADAPT = {"bag_of_words", "mask", "pixels", "segments", "tokens", "tokens of one span"}


def updates(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The second factors of LoRA, which begin at zero."""
    for name, parameter in module.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            yield name, parameter


def lively(contract: EncoderContract) -> Encoder:
    """The encoder without branches that begin at almost nothing."""
    encoder = contract.make()
    open_zero_branches(encoder)
    for parameter in encoder.parameters():
        if parameter.detach().abs().max() < 1e-3:  # the scales of layers of ConvNeXt
            nn.init.ones_(parameter)
    return encoder


def adapted(contract: EncoderContract, seed: int) -> Encoder:
    """The encoder with adapters that change something."""
    encoder = lively(contract)
    add_adapter(encoder, {"r": 2}, "lora")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in updates(encoder):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder


@pytest.mark.quick_share(40)
@pytest.mark.parametrize(("modality", "name"), EACH)
def test_adapters_train_are_saved_and_merged(modality: str, name: str) -> None:
    built = contract(modality, name)
    built.samples = [built.encoder.processor.prepare(raw) for raw in built.raws]
    if name in NOTHING_TO_ADAPT:
        with pytest.raises(ConfigError, match="no linear map and no convolution"):
            add_adapter(built.make(), {"r": 2}, "lora")
        return

    def run(encoder: Encoder) -> torch.Tensor:
        built.encoder = encoder
        features = built.encode(built.samples)
        return torch.cat([value.flatten() for value in outputs(features)])

    plain = lively(built)
    before = run(plain)
    encoder = adapted(built, 1)
    with_graph = run(encoder)
    (with_graph * torch.linspace(-1, 1, len(with_graph))).sum().backward()
    dead = [
        n
        for n, p in encoder.named_parameters()
        if p.requires_grad
        and (p.grad is None or not p.grad.any())
        and not n.startswith(UNUSED.get(name, ()))
    ]
    assert not dead, dead
    with torch.no_grad():
        assert torch.allclose(run(encoder), with_graph, rtol=1e-4, atol=1e-4), "eval differs"
        assert not torch.allclose(before, with_graph, rtol=1e-3, atol=1e-3), "adapters do nothing"
        other = adapted(built, 2)
        check_state(encoder, other)
        assert torch.equal(run(other), run(encoder))
        merged = lively(built)
        with adapters_to_merge(merged, [("run", merged, {"r": 2})]):
            check_state(encoder, merged)
        trains = [{n: p.requires_grad for n, p in e.named_parameters()} for e in (merged, plain)]
        assert trains[0] == trains[1]
        assert torch.allclose(run(merged), with_graph, rtol=1e-3, atol=1e-3), gap(
            run(merged), with_graph
        )
