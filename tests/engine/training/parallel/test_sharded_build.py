"""Processes that share a model: none of them holds, draws or reads all of its weights in memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_changes import train
from torch import nn

from sensorium.engine.checkpoint import read_tensors, write_tensors
from sensorium.engine.training.parallel import build as together

GPT2 = {"model_type": "gpt2", "n_embd": 256, "n_layer": 6, "n_head": 2, "n_positions": 64}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "vocab_size": 1100}

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from sensorium.engine.checkpoint import mapped
from sensorium.engine.recipe import load_recipe
from sensorium.engine.training import train
from sensorium.engine.training.parallel import shards, build

seen = {}
place = shards.Shards.place
normal = torch.Tensor.normal_

def noted(self, served):
    large = [p for p in self.model.parameters() if p.numel() * p.element_size() >= build.LARGE]
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [[int(x, 16) for x in m.split()[0].split("-")] for m in maps if "weights-" in m]
    inside = [any(a <= p.data_ptr() < b for a, b in spans) for p in large]
    seen.update(large=len(large), in_files=sum(inside))
    place(self, served)
    seen["held"] = sum(p.to_local().numel() for p in self.model.parameters())
    seen["all"] = sum(p.numel() for p in self.model.parameters())

shards.Shards.place = noted
train(load_recipe(sys.argv[1]), Path(sys.argv[2]), show=False, device="cpu")
Path(f"{sys.argv[2]}.{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(seen))
"""


def recipe(folder: Path, **backbone: Any) -> dict[str, Any]:
    rows = [{"text": f"line {i} of {'many ' * (i % 4)}lines"} for i in range(24)]
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    data = {"train": {"source": "json", "path": str(folder / "lines.jsonl")}}
    task = {"type": "language_modeling", "text": "{text}", "data": data}
    task["objectives"] = {"causal": 1, "fill_in_the_middle": 1}  # adds tokens
    settings = train(steps=3, log_every=1, optimizer={"type": "sgd", "lr": 0.3}, parallel="fsdp")
    return {"backbone": backbone, "tasks": {"lines": task}, **settings}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "pretrained"])
def test_no_process_holds_a_whole_decoder(runner: Any, kind: str) -> None:
    """Large weights lie in files until they are split; losses are those of one process."""
    from transformers import AutoConfig, AutoModelForCausalLM

    backbone: dict[str, Any] = {"type": "causal", "tokenizer": "bytes"}
    if kind == "pretrained":
        torch.manual_seed(1)
        config = AutoConfig.for_model(**GPT2)
        AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(runner.folder / "lm")
        backbone |= {"name": str(runner.folder / "lm"), "freeze": True, "lora": {"r": 4}}
    else:
        backbone |= {"config": GPT2, "weights": "none"}
    (runner.folder / "held.py").write_text(SCRIPT)
    for count in (1, 2):
        sized = runner.changed(recipe(runner.folder, **backbone), train(batch_size=4 // count))
        runner.write(sized, f"r{count}")
        start = [sys.executable]
        if count > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        done = runner.run([*start, "held.py", f"r{count}.yaml", f"run{count}"])
        assert done.returncode == 0, done.stderr
    first, second = (runner.losses(f"run{count}") for count in (1, 2))
    assert len(first) == 3
    assert [x for *_, x in first] == pytest.approx([x for *_, x in second], abs=1e-5)
    for rank in (0, 1):
        held = json.loads((runner.folder / f"run2.{rank}.json").read_text())
        assert held["large"] >= 12 and held["in_files"] == held["large"]
        assert 0.4 * held["all"] < held["held"] < 0.6 * held["all"]
    assert not list((runner.folder / "cache").glob("weights-*"))


def test_large_tensors_lie_in_files_and_hold_what_was_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(512, 600), nn.Embedding(700, 400))
    torch.manual_seed(0)
    with together.mapped_memory(tmp_path) as memory:
        module = nn.Sequential(nn.Linear(512, 600), nn.Embedding(700, 400))
        made = torch.randn(600, 512)
    assert len(memory.files) == 3  # two matrices and `made`
    for name, value in module.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
        assert (value.data_ptr() in memory.files) == (value.ndim > 1)
    made.add_(1)
    assert made.data_ptr() in memory.files


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_are_read_from_their_file_when_they_are_used(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """What is written to them stays in the process."""
    values = {"a": torch.randn(7, 5) > 0, "b": torch.randn(3), "none": torch.zeros(0, 4)}
    values = {name: value.to(dtype) for name, value in values.items()}
    values["again"] = values["a"]
    write_tensors(tmp_path / "x.safetensors", values)
    tensors = read_tensors(tmp_path / "x.safetensors")
    assert tensors.keys() == values.keys()
    for name, value in values.items():
        assert tensors[name].dtype == dtype and torch.equal(tensors[name], value)
    tensors["a"].zero_()
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")["a"], values["a"])


def test_a_decoder_whose_weights_are_loaded_draws_none(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from sensorium.engine.model import build
    from sensorium.engine.recipe import parse_recipe

    AutoModelForCausalLM.from_config(AutoConfig.for_model(**GPT2)).save_pretrained(tmp_path / "lm")
    backbone = {"type": "causal", "tokenizer": "bytes", "name": str(tmp_path / "lm")}
    drawn: list[tuple[int, ...]] = []
    normal = torch.Tensor.normal_

    def noted(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.is_meta:
            drawn.append(tuple(self.shape))
        return normal(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "normal_", noted)
        model = build(parse_recipe(recipe(tmp_path, **backbone)))
    assert (1100, 256) not in drawn  # the trial of a small copy draws others
    assert not any(p.is_meta for p in model.parameters())
