"""The memory of a step by arithmetic, against the tensors that a training makes."""

from __future__ import annotations

import json
import weakref
from typing import Any

import pytest
import torch
from recipe_changes import train
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training.parallel import memory_plans, memory_table
from sensorium.engine.utils import ConfigError

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}
ONE = "one device, or ddp"


class Peak(TorchDispatchMode):
    """Follows the bytes of all tensors that live at a time. peak: the most since `reset`."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, set[int]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.seen.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


def recipe(runner: Any, rows: int, **settings: Any) -> dict[str, Any]:
    """A decoder of GPT-2's shape on texts of one length."""
    lines = [{"text": f"{i:032d}"} for i in range(64)]
    (runner.folder / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    data = {"train": {"source": "json", "path": str(runner.folder / "lines.jsonl")}}
    task = {"type": "language_modeling", "text": "{text}", "data": data}
    backbone = {"type": "causal", "config": GPT2, "tokenizer": "bytes", "weights": "none"}
    base = {"backbone": backbone, "tasks": {"lines": task}}
    return dict(runner.changed(base, train(steps=3, batch_size=rows, **settings)))


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_step_needs_what_is_foretold(runner: Any, rows: int, recomputed: bool) -> None:
    """Few rows: gradients outweigh the activations; many: the other way round."""
    values = recipe(runner, rows, activation_checkpointing=recomputed)
    plans = memory_plans(parse_recipe(values))
    end = ", activation_checkpointing" if recomputed else ""
    with Peak() as measured:
        runner.train(values, "run")
    assert plans[ONE + end]["lines"] == pytest.approx(measured.peak, rel=0.15)


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("frozen", [False, True])
def test_weights_in_bfloat16_need_what_is_foretold(runner: Any, frozen: bool) -> None:
    """The plan of a float32 recipe, and that of the recipe itself. Where few weights train, the
    activations are the peak; they are counted in float32, so that the plan is a bound."""
    lowered = train(precision="bf16", weights_precision="bf16")
    values = recipe(runner, 1)
    if frozen:
        values = runner.changed(values, {"backbone": {"freeze": True, "lora": {"r": 2}}})
    foretold = memory_plans(parse_recipe(values))[f"{ONE}, weights_precision: bf16"]
    values = runner.changed(values, lowered)
    assert memory_plans(parse_recipe(values))[ONE] == foretold
    with Peak() as measured:
        runner.train(values, "run")
    if frozen:
        assert 0.85 * measured.peak < foretold["lines"] < 1.5 * measured.peak
    else:
        assert foretold["lines"] == pytest.approx(measured.peak, rel=0.15)


def test_shards_need_less_on_more_devices(runner: Any) -> None:
    plans = memory_plans(parse_recipe(recipe(runner, 1)))
    one, eight, many = (plans[p]["lines"] for p in (ONE, "fsdp on 8 devices", "fsdp on 64 devices"))
    assert one > eight > many > 0
    assert memory_table(plans).splitlines()[0].split() == ["GB", "of", "each", "device", "lines"]


@pytest.mark.slow
def test_compiled_blocks_learn_the_same_and_a_step_is_profiled(runner: Any) -> None:
    values = recipe(runner, 2, log_every=1)
    expected = runner.values(values, "eager")
    compiled = runner.changed(values, train(compile="eager", profile=2))
    assert runner.values(compiled, "compiled") == pytest.approx(expected, abs=1e-5)
    (trace,) = (runner.folder / "compiled" / "profile").iterdir()
    assert trace.name == "step-2-rank-0.json" and json.loads(trace.read_text())["traceEvents"]


def test_an_unknown_backend_is_refused(runner: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.compile: there is no backend 'inductr'"):
        runner.train(recipe(runner, 2, compile="inductr"), "run")
