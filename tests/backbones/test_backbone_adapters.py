"""LoRA on every family of decoders: each adapter trains, is saved, and can be merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sensorium.engine.model.parameters.adapters import add_adapter
from sensorium.engine.model.parameters.merge import adapters_to_merge
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features
from sensorium.testing.common import check_state, gap

EAGER = ("gemma2", "t5gemma", "bloom", "mamba2")
KINDS = (
    *("llama", "qwen3", "mistral", "gemma2", "gemma3", "cohere", "gpt2", "opt", "phi", "gpt_neox"),
    *("mixtral", "gpt_bigcode", "modernbert-decoder", "bloom", "mamba2", "t5", "bart", "t5gemma"),
)


def test_every_family_is_tried(configs: dict[str, Any]) -> None:
    assert set(KINDS) == {kind for kind in configs if not kind.endswith("-short")}


@pytest.fixture
def make(build: Callable[..., Any]) -> Callable[..., Any]:
    """A decoder of a family, always with the same weights; with adapters if it has a section."""

    def made(kind: str, lora: dict[str, Any] | None = None, added: int = 0, **options: Any) -> Any:
        torch.manual_seed(0)
        model = build(kind, attn="eager" if kind in EAGER else "sdpa", options=options)
        if added:
            model.add_tokens(added)
        if lora is not None:
            add_adapter(model, lora, "lora")
            model.unfreeze_added_tokens()
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    nn.init.normal_(parameter, std=0.3)
        return model

    return made


def run(model: Any, ids: Tensor) -> Tensor:
    """The logits of ids that are read and predicted."""
    context = Features.dense(model.embed(ids))
    hidden = model.teacher_force(context, ids, torch.ones_like(ids, dtype=torch.bool))
    logits: Tensor = model.logits(hidden)
    return logits


def dead(model: nn.Module) -> list[str]:
    trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad)
    return [n for n, p in trained if p.grad is None or not p.grad.any()]


@pytest.mark.quick_share(6)
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_train_are_saved_and_merged(kind: str, make: Callable[..., Any]) -> None:
    lora = {"r": 2}
    model, ids = make(kind, lora), torch.arange(3, 19).view(2, 8)
    logits = run(model, ids)
    logits.square().sum().backward()
    assert not dead(model)
    other = make(kind, lora)
    check_state(model, other)
    merged = make(kind)
    with adapters_to_merge(merged, [("run", merged, lora)]):
        check_state(model, merged)
    with torch.no_grad():
        assert torch.equal(run(other, ids), run(model, ids))
        assert not torch.allclose(run(make(kind), ids), logits, atol=1e-3)
        assert torch.allclose(run(merged, ids), logits, rtol=1e-3, atol=1e-3), gap(
            run(merged, ids), logits
        )


def tables(model: Any) -> list[str]:
    """Names, in the decoder, of its input table and output layer."""
    names = {id(m): n.rpartition(".")[2] for n, m in model.named_modules()}
    return [names[id(model.table)], names[id(model.head)]]


@pytest.mark.quick_share(15)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("added", [0, 3])
@pytest.mark.parametrize("which", [0, 1])
def test_tables_are_adapted_beside_added_tokens(
    kind: str, added: int, which: int, make: Callable[..., Any]
) -> None:
    plain = make(kind, added=added)
    lora = {"r": 2, "target_modules": [tables(plain)[which]]}
    model, size = make(kind, lora, added), 40 + added
    ids = torch.arange(size - 16, size).view(2, 8)
    before = model.table.weight.detach().clone()
    logits = run(model, ids)
    assert logits.shape[-1] == size
    logits.square().sum().backward()
    assert not dead(model)
    if kind not in ("bloom", "mamba2"):
        context = Features.dense(model.embed(ids))
        first = list(model.generate(context, max_new_tokens=2)[0])
        hidden = model.teacher_force(context, torch.full((2, 1), 3), torch.ones(2, 1).bool())
        assert first[:1] in ([int(model.logits(hidden)[0, 0].argmax())], [])
    some = torch.tensor([size - 1, 5])
    with torch.no_grad():
        other = make(kind, lora, added)
        check_state(model, other)
        assert torch.equal(run(other, ids), run(model, ids))
        assert torch.equal(before, model.table.weight)
        hidden = torch.randn(2, 3, model.dim)
        assert torch.allclose(
            model.logits(hidden, some), model.logits(hidden)[..., some], atol=1e-4
        )


@pytest.mark.parametrize("added", [0, 3])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_saved_modules_train_and_are_saved(
    name: str, tied: bool, added: int, make: Callable[..., Any]
) -> None:
    lora = {"r": 2, "target_modules": ["q_proj"], "modules_to_save": [name]}
    model, size = make("llama", lora, added, tie_word_embeddings=tied), 40 + added
    ids = torch.arange(size - 16, size).view(2, 8)
    run(model, ids).square().sum().backward()
    assert not dead(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad.sign()
        other = make("llama", lora, added, tie_word_embeddings=tied)
        assert not torch.allclose(run(other, ids), run(model, ids), atol=1e-3)
        check_state(model, other)
        assert torch.equal(run(other, ids), run(model, ids))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_of_a_shared_table_is_not_merged(kind: str, make: Callable[..., Any]) -> None:
    model = make(kind, tie_word_embeddings=True)
    lora = {"r": 2, "target_modules": ["lm_head"]}
    with (
        pytest.raises(ConfigError, match=r"lm_head cannot be merged, since its weight is that of"),
        adapters_to_merge(model, [("run", model, lora)]),
    ):
        pass
