"""`check_backbone` on the package's own backbones, and what it names of a broken one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.backbones.base import Backbone
from sensorium.backbones.causal import Causal
from sensorium.backbones.diffusion import Diffusion
from sensorium.backbones.masked import Masked
from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.testing import check_backbone

LLAMA = {"name": "tiny-llama", "options": {"num_hidden_layers": 2}}
T5 = {"name": "tiny-t5", "options": {"num_layers": 2, "num_decoder_layers": 2}}
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
MAMBA = {
    "model_type": "mamba2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_heads": 8,
    "head_dim": 8,
    "state_size": 8,
    "n_groups": 1,
    "chunk_size": 8,
}
CASES: dict[str, tuple[type[Backbone], dict[str, Any]]] = {
    "causal": (Causal, LLAMA),
    "causal with bpe": (Causal, {**LLAMA, "tokenizer": {"type": "bpe", "size": 300}}),
    "causal without masks": (Causal, {"config": MAMBA, "attn": "eager"}),
    "diffusion": (Diffusion, LLAMA),
    "masked": (Masked, {"config": BERT}),
    "seq2seq": (Seq2Seq, T5),
}
UNUSED = {"masked": ("model.cls.predictions.bias",)}


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("case", list(CASES))
def test_the_packages_own_backbones_meet_the_contract(case: str) -> None:
    cls, options = CASES[case]
    check_backbone(cls, unused=UNUSED.get(case, ()), **options)


class Peeking(Causal):
    """Sees one position ahead."""

    def forward(self, embeds: Tensor, *args: Any, **options: Any) -> Any:
        return super().forward(embeds + 0.1 * embeds.roll(-1, 1), *args, **options)


class Padded(Causal):
    """Reads its padding."""

    def forward(self, embeds: Tensor, mask: Any = None, *args: Any, **options: Any) -> Any:
        return super().forward(embeds, None, *args, **options) + embeds.mean(1, keepdim=True)


class Shifted(Causal):
    def teacher_force(self, context: Any, ids: Tensor, *args: Any, **options: Any) -> Tensor:
        return super().teacher_force(context, ids.roll(-1, 1), *args, **options)


class Mean(Causal):
    def loss(self, *args: Any, **options: Any) -> Any:
        loss = super().loss(*args, **options)
        loss.total = loss.total / loss.count
        return loss


class Deaf(Causal):
    def forward(self, *args: Any, layer_hooks: Any = None, **options: Any) -> Any:
        return super().forward(*args, **options)


class Boastful(Causal):
    always = frozenset({"causal", "telepathy"})


class Fixed(Causal):
    def generate(self, condition: Any, *args: Any, **options: Any) -> Tensor:
        return torch.full((len(condition.tokens), 2), 7)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Peeking, "Peeking, attention causal: "),
        (Padded, "Padded, attention causal: row 0 alone|row 1 alone"),
        (Shifted, "Shifted, teacher_force: position 1 sees the id that it predicts"),
        (Mean, "Mean, loss: total: they differ"),
        (Deaf, "Deaf, layer_hooks: the output of the last layer.s hook is not used"),
        (Boastful, "Boastful, constructor: supports names telepathy, which is not known"),
        (Fixed, "Fixed, generate: is not greedy"),
    ],
)
def test_a_violation_is_named_in_one_line(cls: type[Backbone], message: str) -> None:
    with pytest.raises(AssertionError, match=message) as error:
        check_backbone(cls, **LLAMA)
    assert "\n" not in str(error.value)
