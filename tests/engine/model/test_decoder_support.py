"""What a task asks of a decoder is checked before anything trains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sensorium.backbones.causal import Causal
from sensorium.engine.model.checks import check_decoders
from sensorium.engine.utils.errors import ConfigError
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.tasks.uses import DecoderUse

MAMBA = {
    "model_type": "mamba2",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_heads": 8,
    "head_dim": 8,
    "state_size": 8,
    "n_groups": 1,
    "chunk_size": 8,
}


def check(use: DecoderUse, **options: Any) -> None:
    task = SimpleNamespace(decoders={"backbone": use})
    plan: Any = SimpleNamespace(tasks={"caption": SimpleNamespace(task=task)})
    check_decoders(plan, "caption", {"backbone": Causal(tokenizer=Bytes(), **options)})


def test_a_decoder_that_supports_it_passes() -> None:
    use = DecoderUse(
        attention=frozenset({"prefix", "visibility"}),
        supports=frozenset({"layer_hooks", "hidden_states", "vocabulary"}),
    )
    check(use, name="tiny-llama", options={"num_hidden_layers": 1})


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            {"attention": frozenset({"prefix"})},
            r"mamba2 cannot do prefix \(its layers",
        ),
        ({"attention": frozenset({"visibility"})}, r"mamba2 cannot do visibility \(its layers"),
        ({"supports": frozenset({"token_mask"})}, "mamba2 cannot do token_mask; it can do causal"),
    ],
)
def test_what_it_lacks_is_named_with_the_reason(use: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"tasks.caption: backbone: {message}"):
        check(DecoderUse(**use), config=MAMBA, attn="eager")
