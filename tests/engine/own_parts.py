"""Encoders as a new user writes them, each with one mistake, and what a recipe says of them."""

from __future__ import annotations

import enum
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from sensorium.modalities.base import Encoder, Features, Processor


class Kind(enum.Enum):
    """A setting that is no JSON."""

    SMALL = 1


def scale(picture: Tensor) -> Tensor:
    return picture * 2


class Plain(Processor):
    """Has one setting of any type."""

    def __init__(self, setting: Any = None) -> None:
        self.setting = setting

    def prepare(self, raw: Any) -> dict[str, Tensor]:
        return {"pixels": torch.zeros(4, 8)}


class Composed(Processor):
    """Prepares by a Compose of torchvision, as most code on the web does."""

    def __init__(self, size: int = 4) -> None:
        steps = [v2.PILToTensor(), v2.Resize((size, 8)), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose(steps)

    def prepare(self, raw: Any) -> dict[str, Tensor]:
        return {"pixels": self.transform(raw).mean(0)}


class Right(Encoder):
    """Tokens `[B, 4, 16]`."""

    def __init__(self, setting: str = "") -> None:
        super().__init__()
        self.dim = 16
        settings: dict[str, Any] = {"": None, "enum": Kind.SMALL, "function": scale}
        settings |= {"lambda": lambda x: x, "object": object(), "dtype": torch.float16}
        self.processor: Any = Composed() if setting == "compose" else Plain(settings[setting])
        self.layer = nn.Linear(8, 16)

    def forward(self, pixels: Tensor) -> Any:
        return Features.dense(self.layer(pixels))


class ReturnsTensor(Right):
    def forward(self, pixels: Tensor) -> Any:
        return self.layer(pixels)


class ReturnsTuple(Right):
    def forward(self, pixels: Tensor) -> Any:
        return self.layer(pixels), None


class WrongDim(Right):
    def __init__(self) -> None:
        super().__init__()
        self.dim = 17


class NoDim(Right):
    def __init__(self) -> None:
        super().__init__()
        del self.dim


class TextDim(Right):
    def __init__(self) -> None:
        super().__init__()
        self.dim = "16"  # type: ignore[assignment]


class NoProcessor(Right):
    def __init__(self) -> None:
        super().__init__()
        del self.processor


class OtherProcessor(Right):
    def __init__(self) -> None:
        super().__init__()
        self.processor = v2.Identity()


class NoSuper(Encoder):
    def __init__(self) -> None:
        self.layer = nn.Linear(8, 16)


class WrongInput(Right):
    def forward(self, pictures: Tensor) -> Any:
        return Features.dense(self.layer(pictures))


class Raises(Right):
    def forward(self, pixels: Tensor) -> Any:
        raise KeyError("layer")
