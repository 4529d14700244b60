"""LoRA on every connector and head: each adapter trains, is saved, and can be merged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sensorium.connectors.base import Connector
from sensorium.engine.model.parameters.adapters import add_adapter
from sensorium.engine.model.parameters.merge import adapters_to_merge
from sensorium.engine.recipe import find
from sensorium.engine.utils import ConfigError
from sensorium.testing import connectors
from sensorium.testing.common import check_state, gap, open_zero_branches, outputs
from sensorium.tests.connectors.test_connectors_contract import ALL, GRIDS, OPTIONS, POOLED

LORA = {"r": 2}
WITHOUT_MAPS = {("head", "key_values")}


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_adapters_train_are_saved_and_merged(kind: str, name: str) -> None:
    contract = connectors.ConnectorContract(find(kind, name, "here"), (kind, name) in POOLED)
    contract.build(OPTIONS.get((kind, name), {}))
    grids = GRIDS.get((kind, name), connectors.GRIDS)
    features = contract.features(next(grid for grid in grids if grid is not None))

    def made(seed: int | None = None) -> Connector:
        part = contract.make()
        open_zero_branches(part)
        if seed is not None:
            add_adapter(part, LORA, "lora")
            torch.manual_seed(seed)
            for parameter in (p for n, p in part.named_parameters() if "lora_" in n):
                nn.init.normal_(parameter, std=0.3)
        return part

    def run(part: Connector) -> Tensor:
        values = [v for v in outputs(part(features)) if v.is_floating_point()]
        return torch.cat([value.flatten() for value in values])

    if (kind, name) in WITHOUT_MAPS:
        with pytest.raises(ConfigError, match="has no linear map and no convolution"):
            made(1)
        return
    part, other, merged = made(1), made(2), made()
    if not any(True for _ in merged.parameters()):
        pytest.skip("it has no parameters")
    output = run(part)
    (output * torch.linspace(-1, 1, len(output))).sum().backward()
    trained = [(n, p) for n, p in part.named_parameters() if p.requires_grad]
    assert not [n for n, p in trained if p.grad is None or not p.grad.any()]
    with torch.no_grad():
        assert not torch.allclose(run(made()), output, rtol=1e-3, atol=1e-3)
        check_state(part, other)
        assert torch.equal(run(other), run(part))
        with adapters_to_merge(merged, [("run", merged, LORA)]):
            check_state(part, merged)
        assert torch.allclose(run(merged), output, rtol=1e-3, atol=1e-3), gap(run(merged), output)
