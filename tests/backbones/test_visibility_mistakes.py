"""Visibility: what a model, a mask or a schedule cannot do is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sensorium.backbones.visibility import CAUSAL, Visibility, as_visibility
from sensorium.modalities.base import Features


@pytest.mark.parametrize("kind", ["bloom", "mamba2"])
def test_models_with_masks_or_states_of_their_own_refuse(
    kind: str, build: Callable[..., Any]
) -> None:
    model = build(kind, attn="eager")
    assert "visibility" not in model.supports
    with pytest.raises(ValueError, match=f"{kind} cannot do visibility .* it can do causal"):
        model(
            torch.randn(2, 3, model.dim), attention=Visibility.documents(torch.tensor([[1, 1, 2]]))
        )
    full = model(torch.randn(2, 3, model.dim), attention=Visibility.full_to_causal(1.0))
    assert full.shape == (2, 3, model.dim)


def test_mistakes_are_named(build: Callable[..., Any]) -> None:
    model, pair = build("llama"), build("t5")
    embeds, context = torch.randn(2, 3, model.dim), Features.dense(torch.randn(2, 2, model.dim))
    square = torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"found a mask \(1, 2, 2\), expected \[B, 3, 3\]"):
        model(embeds, attention=Visibility(mask=square))
    with pytest.raises(ValueError, match="future_weight takes no context"):
        model(embeds, context=context, attention=Visibility.full_to_causal(0.5))
    with pytest.raises(ValueError, match="found layer 2, expected one of 2 layers"):
        model(embeds, attention=CAUSAL.with_windows({2: 4}))
    with pytest.raises(ValueError, match="generate: takes no windows"):
        model.generate(context, CAUSAL.with_windows({0: 4}))
    with pytest.raises(ValueError, match="t5: documents and facets have no meaning"):
        pair(embeds, context=context, attention=Visibility.documents(torch.ones(2, 3)))
    with pytest.raises(ValueError, match=r"t5: found a mask .* always sees the whole context"):
        mask = torch.ones(1, 3, 5, dtype=torch.bool)
        pair(embeds, context=context, attention=Visibility(mask=mask))
    with pytest.raises(ValueError, match="t5: the encoder sees all of the context"):
        pair.prefill(context, Visibility(mask=square))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "cusal"}, "attention: found 'cusal', expected one of causal, prefix"),
        (
            {"mask": torch.ones(2, 3)},
            r"mask is bool \[B, T, P \+ T\], found torch.float32",
        ),
        ({"window": 0}, "window is at least 1, found 0"),
        ({"future_weight": 1.5}, r"future_weight is in \[0, 1\], found 1.5"),
        ({"layers": {0: CAUSAL.with_windows({1: 2})}}, "has no layers"),
    ],
)
def test_mistakes_of_a_visibility(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Visibility(**options)
    with pytest.raises(ValueError, match="found 'canvas'"):
        as_visibility("canvas")  # type: ignore[arg-type]
