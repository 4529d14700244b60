"""Masked language models as backbones: any `AutoModelForMaskedLM`, against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from sensorium.backbones.masked import Masked
from sensorium.backbones.visibility import Visibility
from sensorium.modalities.base import Features

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
SPECIAL |= {"cls_token_id": 2, "sep_token_id": 1}

CONFIGS: dict[str, dict[str, Any]] = {
    **{kind: {"model_type": kind, **SMALL} for kind in ("bert", "deberta-v2", "deberta")},
    **{kind: {"model_type": kind, **SMALL} for kind in ("roberta", "xlm-roberta", "mpnet")},
    "electra": {"model_type": "electra", **SMALL, "embedding_size": 32},
    "albert": {"model_type": "albert", **SMALL, "embedding_size": 32},
    "distilbert": {"model_type": "distilbert", **DISTIL},
    "modernbert": {
        "model_type": "modernbert",
        **SMALL,
        **SPECIAL,
        "local_attention": 64,
        "global_attn_every_n_layers": 2,
    },
    "eurobert": {"model_type": "eurobert", **SMALL, **SPECIAL, "mask_token_id": 3},
}
EAGER = ("deberta-v2", "deberta", "mpnet")
PACKED = [(k, a) for k in CONFIGS if k not in EAGER for a in ("sdpa", "eager")]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def make(tokenizer: Any) -> Callable[..., Masked]:
    def build(kind: str, **options: Any) -> Masked:
        torch.manual_seed(0)
        tokenizer.mask_id = 3
        if kind in EAGER:
            options.setdefault("attn", "eager")
        model = Masked(tokenizer=tokenizer, config=CONFIGS[kind], **options).eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or ("LayerNorm" not in name and "norm" not in name):
                torch.nn.init.normal_(parameter, std=0.2)
        return model

    return build


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_logits_are_the_models_own(kind: str, make: Callable[..., Masked]) -> None:
    model = make(kind)
    assert {"bidirectional", "inputs_embeds", "vocabulary"} <= model.supports
    assert "causal" not in model.supports and model.mask_id == 3
    ids = torch.randint(4, 40, (2, 7))
    mask = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    expected = model.model(input_ids=ids, attention_mask=mask.long()).logits
    hidden = model(model.embed(ids), mask, attention="bidirectional")
    assert hidden.shape == (2, 7, model.dim)
    torch.testing.assert_close(model.logits(hidden)[mask], expected[mask], **CLOSE)
    some = torch.tensor([7, 3, 21])
    torch.testing.assert_close(model.logits(hidden, some)[mask], expected[..., some][mask], **CLOSE)
    plain = model(model.embed(ids), attention="bidirectional")
    torch.testing.assert_close(model.logits(plain), model.model(input_ids=ids).logits, **CLOSE)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_padding_changes_nothing(kind: str, make: Callable[..., Masked]) -> None:
    """On the right, on the left and in between."""
    model = make(kind)
    embeds = torch.randn(3, 6, model.dim)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]]).bool()
    hidden = model(embeds, mask, attention="bidirectional")
    for r in range(3):
        alone = model(embeds[r : r + 1, mask[r]], attention="bidirectional")[0]
        torch.testing.assert_close(hidden[r, mask[r]], alone, **CLOSE)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_hooks_and_hidden_states(kind: str, make: Callable[..., Masked]) -> None:
    model = make(kind)
    ids = torch.randint(4, 40, (2, 5))
    expected = model.model(input_ids=ids, output_hidden_states=True).hidden_states
    embeds = model.embed(ids)
    if kind == "albert":  # its layers share one module, which cannot be opened layer by layer
        assert not {"layer_hooks", "hidden_states"} & model.supports
        with pytest.raises(ValueError, match="albert cannot do layer_hooks"):
            model(embeds, attention="bidirectional", layer_hooks={0: lambda t, m: t})
        return
    last, (first,) = model(embeds, attention="bidirectional", hidden_states=(0,))
    torch.testing.assert_close(first, expected[1], **CLOSE)
    same = model(embeds, attention="bidirectional", layer_hooks={0: lambda tokens, mask: tokens})
    assert torch.equal(same, last)


@pytest.mark.parametrize(("kind", "attn"), [*PACKED, ("mpnet", "eager")])
def test_packed_documents(kind: str, attn: str, make: Callable[..., Masked]) -> None:
    model = make(kind, attn=attn)
    assert "visibility" in model.supports
    ids = torch.tensor([[7, 7, 7, 3, 3, 3, 3, 5, 5, 0]])
    embeds, mask = torch.randn(1, 10, model.dim), ids > 0
    packed = Visibility.documents(ids, "bidirectional")
    logits = model.logits(model(embeds, mask, attention=packed))
    for start, stop in ((0, 3), (3, 7), (7, 9)):
        alone = model.logits(model(embeds[:, start:stop], attention="bidirectional"))
        torch.testing.assert_close(logits[:, start:stop], alone, **CLOSE)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_on_the_meta_device(kind: str, tokenizer: Any) -> None:
    tokenizer.mask_id = 3
    options = {"attn": "eager"} if kind in EAGER else {}
    with torch.device("meta"):
        model = Masked(tokenizer=tokenizer, config=CONFIGS[kind], **options)
        ids = torch.zeros(2, 5, dtype=torch.long)
        hidden = model(model.embed(ids), ids.bool(), attention="bidirectional")
        model.logits(hidden).sum().backward()
    assert hidden.shape == (2, 5, model.dim)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_added_tokens_and_checkpoints(
    kind: str, tmp_path: Path, make: Callable[..., Masked], tokenizer: Any
) -> None:
    tokenizer.mask_id = 3
    expected = AutoModelForMaskedLM.from_config(
        AutoConfig.for_model(**{"vocab_size": tokenizer.size, **CONFIGS[kind]})
    ).eval()
    expected.save_pretrained(tmp_path)
    model = Masked(tokenizer=tokenizer, **Masked.resolve({"name": str(tmp_path)})).eval()
    model.load()
    for key, value in expected.state_dict().items():
        assert torch.equal(model.model.state_dict()[key], value), key
    ids = torch.randint(4, 40, (1, 5))
    before = model.logits(model(model.embed(ids), attention="bidirectional"))
    torch.testing.assert_close(before, expected(input_ids=ids).logits, **CLOSE)
    first = model.add_tokens(2)
    assert first == tokenizer.size
    new = model.embed(torch.tensor([[5, first + 1]]))
    assert torch.equal(new[0, 1], model.new_rows["input"][1])
    after = model.logits(model(model.embed(ids), attention="bidirectional"))
    torch.testing.assert_close(after[..., : tokenizer.size], before)
    assert after.shape[-1] == tokenizer.size + 2


def test_what_a_masked_model_cannot_do(
    make: Callable[..., Masked], tokenizer: Any, padded: Callable[..., Features]
) -> None:
    model = make("bert")
    context = padded([3], model.dim)
    with pytest.raises(ValueError, match=r"bert cannot do causal; it can do bidirectional"):
        model(context.tokens)
    with pytest.raises(ValueError, match="takes no context; put it into the embeds"):
        model(context.tokens, context=context, attention="bidirectional")
    for refused in (
        lambda: model.generate(context),
        lambda: model.prefill(context),
        lambda: model.teacher_force(context, torch.zeros(1, 2).long(), context.mask[:, :2]),
        lambda: model.loss(context, {"ids": torch.zeros(1, 2).long(), "mask": context.mask[:, :2]}),
    ):
        with pytest.raises(ValueError, match="the backbone `masked` sees a whole text at once"):
            refused()
    tokenizer.mask_id = None
    with pytest.raises(ValueError, match="tokenizer: has no mask token"):
        Masked(tokenizer=tokenizer, config=CONFIGS["bert"])
    tokenizer.mask_id = 3
    wide = {**CONFIGS["electra"], "embedding_size": 16}
    with pytest.raises(ValueError, match="electra embeds 16 wide, its hidden states are 32 wide"):
        Masked(tokenizer=tokenizer, config=wide)
    esm = {"model_type": "esm", **SMALL, "token_dropout": True, "mask_token_id": 3}
    with pytest.raises(ValueError, match=r"esm .*set options: \{token_dropout: false\}"):
        Masked(tokenizer=tokenizer, config=esm)
