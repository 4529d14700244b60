"""`prune_heads` and `slice_width`: what is cut computes what the whole does with zeros there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import CONFIGS, SEQ2SEQ, logits, saved, tiny

from sensorium.engine.model.transforms import apply_steps, convert
from sensorium.engine.model.transforms.context import TransformContext
from sensorium.engine.model.transforms.layers.heads import OUTPUT
from sensorium.engine.model.transforms.layers.maps import is_attention, linear_maps
from sensorium.engine.model.transforms.layers.structure import find_stack
from sensorium.engine.model.transforms.layers.width import feed_forward
from sensorium.engine.recipe import parse_transforms
from sensorium.engine.utils import ConfigError

CONTEXT = TransformContext()
NO_HEADS = {"t5": "biases of positions", "gpt_neox": "no attention with separate maps"}
"""What is refused, and why."""


def apply(model: Any, **step: Any) -> Any:
    return apply_steps(model, parse_transforms(repr([step]), "t"), "t", CONTEXT)


def stack_of(kind: str) -> dict[str, str]:
    return {"stack": "decoder"} if kind in SEQ2SEQ else {}


def layers_of(model: Any, kind: str) -> list[Any]:
    return find_stack(model, stack_of(kind).get("stack")).layers


def zero_inputs(linear: Any, columns: list[int]) -> None:
    def hook(module: Any, args: Any) -> Any:
        hidden = args[0].clone()
        hidden[..., columns] = 0
        return (hidden, *args[1:])

    linear.register_forward_pre_hook(hook)


def output_map(layer: Any) -> Any:
    """The output map of the self-attention of a layer."""
    maps = {n: m for n, m in linear_maps(layer).items() if is_attention(n)}
    cross = ("encoder_attn", "crossattention", "encdec")
    names = [n for n in maps if not any(word in n.lower() for word in cross)]
    return maps[next(n for n in names if n.rpartition(".")[2] in OUTPUT)]


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in NO_HEADS])
def test_a_pruned_head_is_a_head_of_zeros(kind: str) -> None:
    """Heads 1 and 3 of four, of width four; where two share keys, one of each pair."""
    model, other = tiny(kind), tiny(kind)
    for layer in layers_of(other, kind):
        zero_inputs(output_map(layer), [*range(4, 8), *range(12, 16)])
    before = sum(p.numel() for p in model.parameters())
    apply(
        model,
        type="prune_heads",
        heads=[[i, head] for i in range(4) for head in (1, 3)],
        **stack_of(kind),
    )
    torch.testing.assert_close(logits(model), logits(other))
    assert sum(p.numel() for p in model.parameters()) < before


@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2", "opt"])
def test_layers_may_differ_and_a_whole_group_may_go(kind: str) -> None:
    model, other = tiny(kind), tiny(kind)
    zero_inputs(output_map(layers_of(other, kind)[2]), list(range(8, 16)))
    apply(model, type="prune_heads", heads=[[2, 2], [2, 3]])
    torch.testing.assert_close(logits(model), logits(other))


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in NO_HEADS])
def test_no_head_removed_changes_nothing(kind: str) -> None:
    model = tiny(kind)
    before = logits(model)
    apply(model, type="prune_heads", keep=4, **stack_of(kind))
    apply(model, type="prune_heads", heads=[], **stack_of(kind))
    assert torch.equal(logits(model), before)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("by", ["first", "norm"])
def test_a_sliced_unit_is_a_unit_of_zeros(kind: str, by: str) -> None:
    model, other, whole = tiny(kind), tiny(kind), tiny(kind)
    apply(model, type="slice_width", intermediate=10, by=by, **stack_of(kind))
    for layer, old in zip(layers_of(model, kind), layers_of(other, kind), strict=True):
        new_down, old_down = feed_forward(layer, "").down, feed_forward(old, "").down
        old_rows = old_down.weight if isinstance(old_down, torch.nn.Linear) else old_down.weight.T
        new_rows = new_down.weight if isinstance(new_down, torch.nn.Linear) else new_down.weight.T
        remaining = [int((row == old_rows.T).all(1).nonzero()) for row in new_rows.T]
        assert len(remaining) == 10 and (by == "norm" or remaining == list(range(10)))
        zero_inputs(old_down, [i for i in range(old_rows.shape[1]) if i not in remaining])
    torch.testing.assert_close(logits(model), logits(other))
    before = logits(whole)
    width = {"gpt2": 64, "gpt_bigcode": 64}.get(kind, 24)
    apply(whole, type="slice_width", intermediate=width, by=by, **stack_of(kind))
    assert torch.equal(logits(whole), before)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "bart", "bert", "modernbert"])
def test_a_narrow_folder_opens(kind: str, tmp_path: Path) -> None:
    steps = [{"type": "slice_width", "intermediate": 12, **stack_of(kind)}]
    if kind in ("llama", "qwen3", "gemma2"):
        steps.append({"type": "prune_heads", "keep": 2})
    folder = saved(kind, tmp_path / "old")
    model = convert(folder, parse_transforms(repr(steps), "t"), tmp_path / "new")
    again = type(model).from_pretrained(tmp_path / "new", attn_implementation="eager").eval()
    reference = apply_steps(tiny(kind), parse_transforms(repr(steps), "t"), "t", CONTEXT)
    torch.testing.assert_close(logits(again), logits(reference))


def test_a_folder_that_no_class_opens_is_not_written(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "old")
    steps = parse_transforms("[{type: prune_heads, heads: [[0, 1], [0, 3]]}]", "t")
    with pytest.raises(ConfigError, match="name the transform in a recipe") as error:
        convert(folder, steps, tmp_path / "new")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


@pytest.mark.parametrize(
    ("kind", "step", "message"),
    [
        *((k, {"type": "prune_heads", "keep": 2}, m) for k, m in NO_HEADS.items() if k != "t5"),
        ("t5", {"type": "prune_heads", "keep": 2, "stack": "decoder"}, NO_HEADS["t5"]),
        ("llama", {"type": "prune_heads", "heads": [[0, 1]]}, "as many of every group"),
        ("llama", {"type": "prune_heads", "heads": [[0, 0], [0, 1], [0, 2], [0, 3]]}, "leave some"),
        ("llama", {"type": "prune_heads", "heads": [[9, 0]]}, "found layer 9"),
        ("llama", {"type": "prune_heads", "heads": [[0, 7]]}, "found 7; layer 0 has 4 heads"),
        ("llama", {"type": "prune_heads", "keep": 3}, "a multiple of its 2 groups"),
        ("llama", {"type": "slice_width", "intermediate": 99}, "expected one of 1 to 24"),
        ("phi3", {"type": "prune_heads", "heads": [[0, 1], [0, 3]]}, "as many of every layer"),
        ("llama", {"type": "slice_width"}, "set intermediate, hidden, or both"),
        ("llama", {"type": "slice_width", "hidden": 17}, "expected one of 1 to 16"),
        ("gpt2", {"type": "slice_width", "hidden": 8}, "derives the width of its heads"),
        (
            "llama",
            {"type": "slice_width", "hidden": 10},
            "not a multiple of the number",
        ),
        ("bart", {"type": "slice_width", "hidden": 8, "stack": "decoder"}, "two stacks"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply(tiny(kind), **step)


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("by", ["first", "norm"])
def test_narrow_hidden_states_are_those_of_zeros(kind: str, by: str, tmp_path: Path) -> None:
    """With nothing written to the places that go, a norm over all of them is one over the others
    times a factor of their numbers; the folder opens."""
    steps = parse_transforms(f"[{{type: slice_width, hidden: 8, by: {by}}}]", "t")
    model = convert(saved(kind, tmp_path / "old"), steps, tmp_path / "new")
    other, whole = tiny(kind), tiny(kind)
    table, narrow = other.get_input_embeddings().weight, model.get_input_embeddings().weight
    places = [i for i in range(16) if any(torch.equal(table[:, i], n) for n in narrow.T)]
    assert len(places) == 8 and (by == "norm" or places == list(range(8)))
    gone = [i for i in range(16) if i not in places]
    with torch.no_grad():
        table[:, gone] = 0
        for name, parameter in other.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter[gone] = 0
            elif "norm" in name and "q_norm" not in name and "k_norm" not in name:
                parameter *= (8 / 16) ** 0.5
    torch.testing.assert_close(logits(model), logits(other), rtol=1e-3, atol=1e-3)
    before = logits(whole)
    apply(whole, type="slice_width", hidden=16, by=by)
    assert torch.equal(logits(whole), before)
