"""`attention_to_state_space`: seeded from attention, constant memory, falling layerwise losses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import tiny

from sensorium.backbones.stack import StateSpaceMixer
from sensorium.backbones.stack.state_space import CHUNK, scan
from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.model.transforms import apply_steps, convert
from sensorium.engine.model.transforms.context import TransformContext
from sensorium.engine.recipe import parse_recipe, parse_transforms
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features
from sensorium.tests.engine.model.transforms.transform_recipes import recipe

KINDS = ["llama", "qwen2", "gemma", "opt"]


def apply(model: Any, **options: Any) -> Any:
    step = {"type": "attention_to_state_space", **options}
    return apply_steps(model, parse_transforms(repr([step]), "t"), "t", TransformContext())


def mixers(model: Any) -> list[StateSpaceMixer]:
    return [m for m in model.modules() if isinstance(m, StateSpaceMixer)]


@pytest.mark.parametrize("kind", KINDS)
def test_without_gate_it_begins_as_linear_attention(kind: str) -> None:
    """With the decay at one: the sum over what came before of (q k) v, by the attention's maps."""
    model, source = apply(tiny(kind), gate=False), tiny(kind)
    attention = next(m for m in source.modules() if hasattr(m, "q_proj"))
    mixer = mixers(model)[0]
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, 16)
    with torch.no_grad():
        result, _ = mixer(hidden)
        query, key, value = (
            m(hidden).unflatten(-1, (-1, 4)).transpose(1, 2)
            for m in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        mixed = (query @ key.transpose(-1, -2) / 2).tril() @ value
        output = getattr(attention, "o_proj", None) or attention.out_proj
        torch.testing.assert_close(result, output(mixed.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("length", [1, 5, CHUNK, CHUNK + 3])
def test_chunks_are_the_recurrence(length: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, length, 4, dtype=torch.float64)
    decay = -torch.rand(1, 2, length, dtype=torch.float64)
    start = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    result, after = scan(query, key, value, decay, start)
    state, outputs = start, []
    for t in range(length):
        state = state * decay[:, :, t, None, None].exp()
        state = state + key[:, :, t, :, None] * value[:, :, t, None]
        outputs.append(torch.einsum("bhk,bhkv->bhv", query[:, :, t], state))
    torch.testing.assert_close(result, torch.stack(outputs, 2))
    torch.testing.assert_close(after, state)


def trained_at_random(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for mixer in mixers(model):
            for parameter in mixer.new_parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def cache_size(cache: Any) -> int:
    tensors = [t for layer in cache.layers for t in vars(layer).values()]
    return sum(t.numel() for t in tensors if isinstance(t, torch.Tensor))


@pytest.mark.parametrize("keep_every", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_goes_on_from_the_state(kind: str, keep_every: int | None) -> None:
    options = {} if keep_every is None else {"keep_every": keep_every}
    model = trained_at_random(apply(tiny(kind), **options))
    assert len(mixers(model)) == (4 if keep_every is None else 2)
    ids = torch.arange(1, 21)[None]
    with torch.no_grad():
        whole = model(ids).logits
        cache, sizes, parts = None, [], []
        for part in ids.split([7, 1, 1, 11], 1):
            out = model(part, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            parts.append(out.logits)
            sizes.append(cache_size(cache))
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)
    if keep_every is None:
        assert len(set(sizes)) == 1  # constant in length
    else:
        assert sizes[0] < sizes[1] < sizes[-1]
    start = {"max_new_tokens": 5, "do_sample": False}
    tokens = [model.generate(ids[:, :6], use_cache=use, **start) for use in (True, False)]
    assert torch.equal(*tokens)


def test_no_position_sees_a_later_one_or_padding() -> None:
    model = trained_at_random(apply(tiny("llama")))
    with torch.no_grad():
        first = model(torch.tensor([[5, 9, 3, 17]])).logits
        second = model(torch.tensor([[5, 9, 3, 2]])).logits
    assert torch.equal(first[:, :3], second[:, :3])


@pytest.mark.slow
def test_layerwise_losses_fall() -> None:
    """Stage 1, the new parameters; stage 2, the whole layer: each against the layer's attention."""
    teacher = tiny("llama").requires_grad_(False)
    student = apply(copy.deepcopy(teacher))
    torch.manual_seed(0)
    ids = torch.randint(3, 24, (8, 12))
    with torch.no_grad():
        states = teacher(ids, output_hidden_states=True).hidden_states
        embeds = teacher.model.rotary_emb(states[0], torch.arange(12)[None])
    norms = [layer.input_layernorm for layer in teacher.model.layers]
    attentions = [layer.self_attn for layer in teacher.model.layers]
    mask = torch.full((12, 12), torch.finfo(torch.float32).min).triu(1)[None, None]

    def losses() -> list[torch.Tensor]:
        result = []
        for mixer, attention, norm, state in zip(
            mixers(student), attentions, norms, states[:-1], strict=True
        ):
            with torch.no_grad():
                hidden = norm(state)
                target, _ = attention(
                    hidden_states=hidden, position_embeddings=embeds, attention_mask=mask
                )
            result.append((mixer(hidden)[0] - target).square().mean())
        return result

    before = [float(loss) for loss in losses()]
    history = [before]
    student.requires_grad_(False)
    for parameters in (
        [p for m in mixers(student) for p in m.new_parameters()],
        [p for m in mixers(student) for p in m.parameters()],
    ):
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, 3e-2)
        for _ in range(30):
            optimizer.zero_grad()
            total: Any = sum(losses())
            total.backward()
            optimizer.step()
        history.append([float(loss) for loss in losses()])
    for first, second, third in zip(*history, strict=True):
        assert third < second < first


def test_a_recipe_trains_saves_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"text": "a cat", "answer": "the cat"}\n' * 4)
    part = {"transforms": [{"type": "attention_to_state_space", "keep_every": 4}]}
    model = compose(resolve_and_fit(parse_recipe(recipe(part))))
    backbone: Any = trained_at_random(model).eval().backbone
    assert len(mixers(model)) == 3 and "prefix" not in backbone.supports
    save_run(model, tmp_path / "run")
    loaded: Any = load_model(tmp_path / "run").backbone
    context = Features.dense(torch.randn(2, 5, 16))
    rows = context.replace(mask=torch.arange(5) < torch.tensor([[5], [3]]), grid=None)
    tokens = backbone.generate(rows, max_new_tokens=4, do_sample=False)
    assert torch.equal(loaded.generate(rows, max_new_tokens=4, do_sample=False), tokens)
    alone = rows.replace(tokens=rows.tokens[1:, :3], mask=rows.mask[1:, :3])
    assert torch.equal(backbone.generate(alone, max_new_tokens=4, do_sample=False)[0],
                       tokens[1, : backbone.generate(alone, max_new_tokens=4,
                                                     do_sample=False).shape[1]])  # fmt: skip


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    for kind, message in (("bert", "no causal attention"), ("gpt2", "no causal attention"),
                          ("t5", "two stacks")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            apply(tiny(kind))
    with pytest.raises(ConfigError, match="keep_every: found 1"):
        apply(tiny("llama"), keep_every=1)
    tiny("llama").save_pretrained(tmp_path / "old")
    steps = parse_transforms("[{type: attention_to_state_space}]", "t")
    with pytest.raises(ConfigError, match="name the transform in a recipe"):
        convert(tmp_path / "old", steps, tmp_path / "new")
