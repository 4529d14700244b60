"""`quantize: int8 | int4`: frozen linear maps in few bits, as torchao rounds them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from recipe_changes import train
from torch import nn

from sensorium.engine.inference import load
from sensorium.engine.model.parameters.quantized import QuantizedLinear, dequantize, quantize
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError

pytest.importorskip("torchao")
KINDS = ("int8", "int4")
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
LORA = {"freeze": True, "lora": {"r": 2}}


def library(kind: str) -> Any:
    """What torchao has of that name."""
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    if kind == "int8":
        return Int8WeightOnlyConfig()
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))


def size(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_it_computes_what_torchao_computes(kind: str, bias: bool) -> None:
    from torchao.quantization import quantize_

    torch.manual_seed(0)
    plain = nn.Linear(96, 40, bias)
    theirs, ours = copy.deepcopy(plain), QuantizedLinear(plain.weight, plain.bias, kind)
    quantize_(theirs, library(kind))
    x = torch.randn(3, 5, 96, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(ours(x), ours(x.detach()))  # with and without a graph
    (gradient,) = torch.autograd.grad(ours(x).square().sum(), x)
    (expected,) = torch.autograd.grad(
        nn.functional.linear(x, ours.weight, ours.bias).square().sum(), x
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
    bits = {"int8": 8, "int4": 4 + 32 / 32}[kind]
    assert size(ours) <= 40 * 96 * bits / 8 + 40 * 4 * (1 + bias)
    assert {p.requires_grad for p in ours.parameters()} == {False}


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_transformers_gpt2_and_of_torch(kind: str) -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    shared = nn.Linear(32, 32)
    model = nn.Sequential(Conv1D(32, 64), shared, shared, nn.MultiheadAttention(32, 2))
    plain, x = copy.deepcopy(model), torch.randn(4, 64)
    quantize(model, kind, "backbone.quantize")
    assert [type(m) for m in model[:3]] == [QuantizedLinear] * 3 and model[1] is model[2]
    assert not isinstance(model[3].out_proj, QuantizedLinear)  # attention reads its weight
    difference = (model[:3](x) - plain[:3](x)).std() / plain[:3](x).std()
    assert 0 < difference < {"int8": 0.02, "int4": 0.25}[kind]
    values = model[:3](x)
    dequantize(model)
    assert not any(isinstance(m, QuantizedLinear) for m in model.modules())
    torch.testing.assert_close(model[:3](x), values)


def decoder(runner: Any, kind: str, **section: Any) -> dict[str, Any]:
    """A recipe whose decoder is quantized."""
    backbone = {"options": WIDE, "quantize": kind, **section}
    return dict(runner.both(train(steps=4), {"backbone": backbone}))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_beside_it_and_the_run_opens_and_goes_on(runner: Any, kind: str) -> None:
    recipe = decoder(runner, kind, **LORA)
    whole = runner.values(runner.changed(recipe, train(checkpoint={"every": 2})), "whole")
    runner.cut(runner.changed(recipe, train(checkpoint={"every": 2})), "run", 3)
    model = runner.train(runner.changed(recipe, train(checkpoint={"every": 2})), "run", resume=True)
    assert [loss for *_, loss in runner.losses("run")] == whole
    maps = [m for m in model.backbone.modules() if isinstance(m, QuantizedLinear)]
    assert len(maps) == 14
    opened = load(runner.folder / "run", device="cpu").model
    for (name, first), second in zip(
        model.state_dict().items(), opened.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), name
    plain = runner.train(runner.changed(recipe, {"backbone": {"quantize": None}}), "plain")
    assert size(model.backbone) < size(plain.backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freeze": False}, r"backbone.quantize: weights in int4 cannot train; set freeze: true"),
        ({"freeze": {"last": 1}}, r"backbone.quantize: weights in int4 cannot train"),
        (
            {"freeze": True, "options": {"hidden_size": 40}},
            r"backbone.quantize: .*q_proj has 40 inputs, and int4 takes groups of 32; set quantize",
        ),
        ({"freeze": True, "quantize": "int3"}, r"backbone.quantize: found 'int3'"),
    ],
)
def test_what_is_refused(runner: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(parse_recipe(runner.changed(decoder(runner, "int4"), {"backbone": change})))


def test_it_is_not_sharded(runner: Any) -> None:
    recipe = runner.changed(decoder(runner, "int8", freeze=True), train(parallel="fsdp"))
    with pytest.raises(ConfigError, match=r"backbone.quantize: weights in int8 cannot be sharded"):
        check(parse_recipe(recipe))
    recipe = runner.both(train(parallel="fsdp", optimizer={"type": "adamw8bit"}))
    with pytest.raises(ConfigError, match=r"train.optimizer.type: the states of adamw8bit"):
        check(parse_recipe(recipe))


def test_part_without_linear_maps() -> None:
    with pytest.raises(ConfigError, match="x: Conv2d has no linear map"):
        quantize(nn.Conv2d(3, 3, 3), "int8", "x")
