"""`check_encoder` names what an encoder violates, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensorium.modalities.base import Encoder, Features, Processor, Sample
from sensorium.testing.encoders import check_encoder


class Values(Processor):
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def prepare(self, raw: Any) -> Sample:
        return {"values": torch.as_tensor(np.asarray(raw.values, np.float32)) * self.scale}


class Good(Encoder):
    """Steps of a motion as tokens; a mask of what is padding."""

    supports = frozenset({"hidden_states", "token_mask", "layer_hooks"})

    def __init__(self, *, dim: int = 8, depth: int = 2) -> None:
        super().__init__()
        self.dim, self.processor = dim, Values()
        self.enter = nn.Linear(4, dim)
        self.mask_token = nn.Parameter(torch.randn(dim))
        self.stack = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.stack)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        values = [s["values"] for s in samples]
        lengths = torch.tensor([len(v) for v in values])
        padded = nn.utils.rnn.pad_sequence(values, batch_first=True)
        return {"values": padded, "mask": torch.arange(padded.shape[1]) < lengths[:, None]}

    def forward(
        self,
        values: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        layer_hooks: Mapping[int, Any] | None = None,
    ) -> Features:
        x = self.enter(values)
        if token_mask is not None:
            x = torch.where(token_mask[..., None], self.mask_token, x)
        depth = len(self.stack)
        for number in (*hidden_states, *(layer_hooks or {})):
            if not -depth <= number < depth:
                raise ValueError(f"there is no layer {number}")
        hidden = []
        for number, layer in enumerate(self.stack):
            x = torch.tanh(layer(x))
            for place in (number, number - depth):
                if place in (layer_hooks or {}):
                    x = (layer_hooks or {})[place](x, mask)
            hidden.append(x)
        return Features(self.last(x, mask), mask).replace(
            hidden_states=tuple(Features(self.last(hidden[i], mask), mask) for i in hidden_states)
        )

    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask[..., None]


def motions() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(steps, 4)).astype(np.float32) for steps in (5, 3, 4)]


def test_a_good_encoder_passes_with_and_without_examples() -> None:
    check_encoder(Good, modality="action", examples=motions(), dim=6)
    check_encoder(Good, modality="action")


class NoFeatures(Good):
    def forward(self, values: Tensor, mask: Tensor, **more: Any) -> Any:
        return self.enter(values)


class Wide(Good):
    def __init__(self) -> None:
        super().__init__()
        self.dim = 9


class Unpadded(Good):
    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        return x


class Mixing(Good):
    """Its features are normalized over the batch."""

    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        return (x - x.mean((0, 1))) * mask[..., None]


class Deaf(Good):
    def __init__(self) -> None:
        super().__init__()
        self.ear = nn.Linear(2, 2)


class Detached(Good):
    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.detach() * mask[..., None]


class Blind(Good):
    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        batch = super().collate(samples)
        return {**batch, "values": batch["values"] * 0}


class Random(Good):
    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        return (x + torch.randn_like(x)) * mask[..., None]


class NotANumber(Good):
    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask[..., None] / 0


class RealBuffer(Good):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.from_numpy(np.ones(8, np.float32)))

    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        return (x + self.shift) * mask[..., None]


class Dice(Values):
    def prepare(self, raw: Any) -> Sample:
        return {"values": super().prepare(raw)["values"] + torch.rand(())}


class Unpicklable(Values):
    def __init__(self) -> None:
        self.function = lambda value: value

    def prepare(self, raw: Any) -> Sample:
        return {"values": torch.as_tensor(np.asarray(raw.values, np.float32))}


class Opaque(Values):
    def settings(self) -> dict[str, Any]:
        return {"scale": object()}


class Dicing(Good):
    def __init__(self) -> None:
        super().__init__()
        self.processor = Dice()


class Holding(Good):
    def __init__(self) -> None:
        super().__init__()
        self.processor = Unpicklable()


class Hiding(Good):
    def __init__(self) -> None:
        super().__init__()
        self.processor = Opaque()


class AnyLayer(Good):
    def forward(self, values: Tensor, mask: Tensor, **more: Any) -> Features:
        layers = more.pop("hidden_states", ())
        return super().forward(values, mask, hidden_states=[i % 2 for i in layers], **more)


class NoHook(Good):
    def forward(self, values: Tensor, mask: Tensor, **more: Any) -> Features:
        more.pop("layer_hooks", None)
        return super().forward(values, mask, **more)


class NoMask(Good):
    def __init__(self) -> None:
        super().__init__()
        self.mask_token.requires_grad_(False)

    def forward(self, values: Tensor, mask: Tensor, **more: Any) -> Features:
        more.pop("token_mask", None)
        return super().forward(values, mask, **more)


class Promising(Good):
    supports = frozenset({"telepathy"})

    def __init__(self) -> None:
        super().__init__()
        self.mask_token.requires_grad_(False)


class Foreseeing(Good):
    supports = frozenset({*Good.supports, "causal"})

    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        real = x * mask[..., None]
        return (x + real.sum(1, keepdim=True)) * mask[..., None]


class Keywords(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class Resolving(Good):
    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {"dim": options.get("dim", 8) + 1}


class Stranger(nn.Module):
    """No encoder at all."""


BROKEN: dict[type, str] = {
    NoFeatures: "forward: returned Tensor, expected Features",
    Wide: "forward: tokens have width 8, expected 9",
    Unpadded: "forward: tokens of the padding are not zero",
    Mixing: "batch_invariant=True: example 0 alone and in a batch: they differ by up to",
    Deaf: "gradients: no gradient reaches the parameter ear.weight, ear.bias",
    Detached: "gradients: no gradient reaches the parameter",
    Blind: "forward: all examples have the same features; is the input read?",
    Random: "forward: eval(): not deterministic",
    NotANumber: "forward: tokens hold NaN or infinity",
    RealBuffer: "meta device: the constructor puts shift on a real device",
    Dicing: "processor.prepare: the same raw value yields another sample",
    Holding: "processor.settings: TypeError",
    Hiding: "processor.settings: TypeError",
    AnyLayer: "supports hidden_states: hidden_states of layer 99 raises no ValueError",
    NoHook: "supports layer_hooks: the hook of layer 0 was not called",
    NoMask: "supports token_mask: masked tokens change nothing",
    Promising: "supports telepathy: is not known; there are: hidden_states, token_mask,",
    Foreseeing: "supports causal: what follows 3 changes tokens that end before",
    Keywords: "hides its options",
    Resolving: "resolve: resolve(resolve(options)) is",
    Stranger: "options: is no subclass of modalities.base.Encoder",
}


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_violation_is_one_line(cls: type[Encoder]) -> None:
    with pytest.raises(AssertionError) as error:
        check_encoder(cls, modality="action", examples=motions())
    line = str(error.value)
    assert line.startswith(f"{cls.__name__}, ") and BROKEN[cls] in line, line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"modality": "actoin"}, "modality: ConfigError: modality: no modality is called 'actoin'"),
        ({"modality": "action", "wide": 3}, "options: ConfigError: Good.wide: "),
        ({"modality": "action", "examples": motions()[:1]}, "at least two are needed"),
    ],
)
def test_a_mistake_in_the_call_is_one_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError) as error:
        check_encoder(Good, **arguments)
    assert words in str(error.value) and "\n" not in str(error.value)
