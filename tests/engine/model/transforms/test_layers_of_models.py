"""`keep_layers` and `upscale_depth` on models of transformers, and on their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import CAUSAL, CONFIGS, SEQ2SEQ, logits, saved, tiny
from torch import nn
from transformers import AutoConfig

from sensorium.engine.model.transforms import apply_steps, convert
from sensorium.engine.model.transforms.context import TransformContext
from sensorium.engine.model.transforms.layers.structure import find_stack
from sensorium.engine.recipe import parse_transforms
from sensorium.engine.utils import ConfigError

CONTEXT = TransformContext()


def apply(model: Any, *steps: dict[str, Any]) -> Any:
    return apply_steps(model, parse_transforms(repr(list(steps)), "t"), "t", CONTEXT)


def stack_of(kind: str) -> dict[str, str]:
    return {"stack": "decoder"} if kind in SEQ2SEQ else {}


IDENTITIES = [
    {"type": "keep_layers", "layers": [0, 1, 2, 3]},
    {"type": "keep_layers", "every": 1},
    {"type": "upscale_depth", "drop": 2},
    {"type": "upscale_depth", "layers": [0, 1, 2, 3]},
]


@pytest.mark.quick_share(6)
@pytest.mark.parametrize("step", IDENTITIES, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("kind", CONFIGS)
def test_all_layers_in_their_order_change_nothing(kind: str, step: dict[str, Any]) -> None:
    model = tiny(kind)
    before = logits(model)
    assert apply(model, step | stack_of(kind)) is model
    assert torch.equal(logits(model), before)


class _Skipped(nn.Module):
    """A layer that does nothing."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(hidden_states, *args, **kwargs)
        return (hidden_states, *output[1:]) if isinstance(output, tuple) else hidden_states


def skip(model: Any, kind: str, layers: Sequence[int]) -> None:
    container: Any = find_stack(model, stack_of(kind).get("stack")).container
    for i in layers:
        container[i] = _Skipped(container[i])


@pytest.mark.parametrize("kind", CONFIGS)
def test_removed_layers_are_skipped_layers(kind: str) -> None:
    model, other = tiny(kind), tiny(kind)
    skip(other, kind, [1, 2])
    apply(model, {"type": "keep_layers", "layers": [0, 3], **stack_of(kind)})
    torch.testing.assert_close(logits(model), logits(other))
    assert len(find_stack(model, stack_of(kind).get("stack"))) == 2


@pytest.mark.quick_share(9)
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_deeper_folder_opens_and_generates(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "old")
    (folder / "tokenizer.json").write_text("{}")
    step = {"type": "upscale_depth", "drop": 1, **stack_of(kind)}
    model = convert(folder, parse_transforms(repr([step]), "t"), tmp_path / "new")
    again = type(model).from_pretrained(tmp_path / "new", attn_implementation="eager").eval()
    assert len(find_stack(again, step.get("stack"))) == 6
    reference = apply(tiny(kind), step)
    torch.testing.assert_close(logits(again), logits(reference))
    assert (tmp_path / "new" / "tokenizer.json").read_text() == "{}"
    assert type(AutoConfig.from_pretrained(tmp_path / "new")) is type(model.config)
    if kind in CAUSAL:
        ids = torch.tensor([[5, 9, 3]])
        assert torch.equal(
            again.generate(ids, max_new_tokens=4, do_sample=False, use_cache=True),
            again.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False),
        )


def test_copies_share_no_weights() -> None:
    model = tiny("llama")
    apply(model, {"type": "upscale_depth", "layers": [0, 1, 1, 2, 3]})
    first, second = find_stack(model).layers[1:3]
    assert {p.data_ptr() for p in first.parameters()}.isdisjoint(
        p.data_ptr() for p in second.parameters()
    )
    assert [layer.self_attn.layer_idx for layer in find_stack(model).layers] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("kind", "step", "message"),
    [
        ("t5", {"type": "keep_layers", "every": 2}, "has two stacks of layers; set stack"),
        ("t5", {"type": "keep_layers", "layers": [1], "stack": "encoder"}, "keep it first"),
        ("t5", {"type": "upscale_depth", "drop": 0, "stack": "encoder"}, "can only be first"),
        ("llama", {"type": "keep_layers", "layers": [0, 0]}, "upscale_depth repeats"),
        ("llama", {"type": "keep_layers", "layers": []}, "found none"),
        ("llama", {"type": "keep_layers", "every": 0}, "every: found 0"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        apply(tiny(kind), step)
    assert str(error.value).startswith("t[0]")


def test_a_folder_that_cannot_be_converted(tmp_path: Path) -> None:
    steps = parse_transforms("[{type: keep_layers, every: 2}]", "t")
    with pytest.raises(ConfigError, match="holds no config"):
        convert(tmp_path, steps, tmp_path / "new")
    folder = saved("llama", tmp_path / "old")
    with pytest.raises(ConfigError, match="is there already"):
        convert(folder, steps, folder)
    for text in ("keep_layers", "{}", "[3]", "[]"):
        with pytest.raises(ConfigError, match=r"^--transforms.*found"):
            parse_transforms(text, "--transforms")
    assert not list(tmp_path.glob(".*"))
