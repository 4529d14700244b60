"""Who attends to whom is tried on the architecture, not read from its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from sensorium.backbones.causal import Causal
from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.backbones.stack import try_stack
from sensorium.backbones.visibility import CAUSAL
from sensorium.modalities.base import Features

BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
ENCODERS = ("bert", "electra", "roberta", "xlm-roberta", "camembert", "rembert", "megatron-bert")
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}


def moved(model: Any, embeds: torch.Tensor, at: int) -> torch.Tensor:
    """Return how much each position changes when one does."""
    other = embeds.clone()
    other[:, at] += torch.randn(embeds.shape[-1])
    with torch.no_grad():
        change: torch.Tensor = (model(other) - model(embeds)).abs().amax((0, 2))
    return change


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_becomes_causal(kind: str, tokenizer: Any) -> None:
    """A BERT with a plain configuration attends both ways; as a decoder it must not."""
    attn: Any = "eager" if kind in ("rembert", "megatron-bert") else "sdpa"
    model = Causal(tokenizer=tokenizer, config={"model_type": kind, **BERT}, attn=attn).eval()
    change = moved(model, torch.randn(1, 6, model.dim), 3)
    assert (change[:3] == 0).all() and (change[3:] > 0).all()


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"model_type": "bert", **BERT}, {"is_decoder": False}),
        ({"model_type": "xlnet", **XLNET}, {}),
    ],
)
def test_what_sees_the_future_is_refused(
    config: Mapping[str, Any], options: Mapping[str, Any], tokenizer: Any
) -> None:
    with pytest.raises(ValueError, match=r"attends to later positions, so it cannot write"):
        Causal(tokenizer=tokenizer, config=dict(config), options=dict(options), attn="eager")


@pytest.mark.parametrize("kind", ["llama", "gemma3-short", "opt", "gpt2", "mixtral"])
def test_masks_are_obeyed(kind: str, configs: Mapping[str, Any], build: Callable[..., Any]) -> None:
    result = try_stack(build(kind).decoder, "sdpa")
    assert result is not None and result.is_causal and result.obeys_masks


@pytest.mark.parametrize("kind", ["bloom", "gpt_neo"])
def test_masks_are_not_obeyed(kind: str, tokenizer: Any) -> None:
    sizes = {"hidden_size": 32, "n_layer": 2, "num_layers": 2, "num_heads": 4, "n_head": 4}
    sizes |= {"attention_types": [[["global", "local"], 1]]} if kind == "gpt_neo" else {}
    model = Causal(tokenizer=tokenizer, config={"model_type": kind, **sizes}, attn="eager")
    result = try_stack(model.decoder, "eager")
    assert result is not None and result.is_causal and not result.obeys_masks


def test_a_trial_draws_no_random_number(tokenizer: Any) -> None:
    config = {"model_type": "bert", **BERT, "hidden_size": 48}  # not tried before
    torch.manual_seed(0)
    Causal(tokenizer=tokenizer, config=config)
    first = torch.rand(1)
    torch.manual_seed(0)
    Causal(tokenizer=tokenizer, config=config)  # what was seen is remembered
    assert torch.rand(1) == first


@torch.no_grad()
@pytest.mark.parametrize("kind", ["roberta", "bert", "bart"])
def test_ragged_rows_generate_as_alone(
    kind: str, tokenizer: Any, padded: Callable[..., Features]
) -> None:
    """These count positions from the row's own start, and take no position ids or count from
    behind the padding's row: the library's loop counts padding."""
    torch.manual_seed(0)
    bart = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    config = {"model_type": kind, **(bart if kind == "bart" else BERT)}
    model = Causal(tokenizer=tokenizer, config=config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.3)
    context = padded([6, 2, 4], model.dim)
    options = {"max_new_tokens": 5, "eos_token_id": None}
    both = model.generate(context, **options)
    hidden = model.teacher_force(context, both, torch.ones_like(both).bool())
    assert torch.equal(model.logits(hidden).argmax(-1), both)
    for row, length in enumerate((6, 2, 4)):
        alone = Features.dense(context.tokens[row : row + 1, :length])
        assert torch.equal(model.generate(alone, **options)[0], both[row])


@pytest.mark.parametrize(
    "kind", ["llama", "qwen3", "gemma3", "gpt2", "opt", "phi", "gpt_neox", "mixtral", "bloom"]
)
def test_where_the_librarys_loop_is_right_it_is_used(kind: str, build: Callable[..., Any]) -> None:
    """It keeps a cache; a loop of whole passes is for those where it is wrong."""
    model = build(kind, attn="eager" if kind == "bloom" else "sdpa")
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    ragged = Features(torch.randn(2, 4, model.dim), mask)
    assert not model._generates_uncached(ragged, CAUSAL)


def test_a_model_that_is_no_pair_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"is no encoder-decoder of text; use type: causal"):
        Seq2Seq(tokenizer=tokenizer, config={"model_type": "voxtral"})
