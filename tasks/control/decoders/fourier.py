"""A Fourier series over ordered bins in place of a softmax's linear layer.

Gillman et al., "Fourier Head", arXiv 2410.22269. Coefficients `a_0..a_K` of a trigonometric
polynomial `A(z) = sum_l a_l e^{-i l pi z}` define a non-negative density on [-1, 1]: `p(z) =
|A(z)|^2 / (2 sum_l |a_l|^2) = 1/2 + Re sum_k (c_k / c_0) e^{i k pi z}`, where `c_k = sum_l a_l
conj(a_{l+k})`. With few frequencies neighbouring bins have similar probabilities.

Legend: `D` width, `K` frequencies, `m` bins.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....backbones.base import Backbone
from ....modalities.action.tokenizers import ActionTokenizer
from ....modalities.base import Features, Loss
from ...batch import Batch
from .base import INIT_STD, ActionDecoder, fixed_length
from .chunks import ChunkStatistics
from .parallel import Parallel

TINY = 1e-5
"""Added to probabilities before the logarithm, as in the paper's code."""


class FourierHead(nn.Module):
    """hidden `[..., D]` -> logits `[..., m]` of ordered bins. frequencies: `K`; 0 is the uniform
    distribution."""

    def __init__(self, dim: int, bins: int, frequencies: int) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"bins: found {bins}, expected at least 2")
        if not 0 <= frequencies <= bins // 2:
            raise ValueError(
                f"frequencies: found {frequencies}, expected 0 to {bins // 2}: half of {bins} bins"
            )
        self.bins, self.frequencies = bins, frequencies
        self.map = nn.Linear(dim, 2 * (frequencies + 1))
        with (
            torch.no_grad()
        ):  # as in the paper: the density does not depend on the scale, roughness does
            for parameter in self.map.parameters():
                parameter.div_(100)

    def coefficients(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the real and imaginary parts of `a`, `[..., K + 1]` each, in float32."""
        with torch.autocast(_kind(hidden), enabled=False):
            weight, bias = self.map.weight.float(), self.map.bias.float()
            real, imaginary = F.linear(hidden.float(), weight, bias).chunk(2, -1)
        return real, imaginary

    def forward(self, hidden: Tensor) -> Tensor:
        """Return `[..., m]`, log probabilities of the bins up to a constant."""
        return self.log(*self.coefficients(hidden))

    def log(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """As `forward`, from the coefficients."""
        return (self.probabilities(real, imaginary) + TINY).log()

    def probabilities(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Return the density at the bins' centres, normalized to sum 1."""
        cosine, sine = self._waves(real)
        with torch.autocast(_kind(real), enabled=False):
            a = real @ cosine + imaginary @ sine
            b = imaginary @ cosine - real @ sine
        density = a.square() + b.square()  # [..., m], |A(z)|^2
        return density / density.sum(-1, keepdim=True).clamp(min=1e-30)

    def roughness(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Return `[...]`, the regularizer `2 sum_k 2 pi^2 k^2 |c_k|^2` of each distribution."""
        total = torch.zeros_like(real[..., 0])
        for k in range(1, self.frequencies + 1):
            a, b, c, d = real[..., :-k], imaginary[..., :-k], real[..., k:], imaginary[..., k:]
            power = (a * c + b * d).sum(-1).square() + (b * c - a * d).sum(-1).square()
            total = total + 4 * math.pi**2 * k**2 * power
        return total

    def _waves(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of `l pi z` at the bins' centres, `[K + 1, m]` each."""
        bins = torch.arange(self.bins, device=like.device, dtype=torch.float64)
        centres = (2 * bins + 1) / self.bins - 1
        orders = torch.arange(self.frequencies + 1, device=like.device, dtype=torch.float64)
        angles = math.pi * orders[:, None] * centres
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _kind(tensor: Tensor) -> str:
    return "cpu" if tensor.is_meta else tensor.device.type


class Fourier(Parallel):
    """As `Parallel`, with a Fourier series over the bins in place of the softmax; the decoder's
    vocabulary is not used. frequencies: of the series. smoothness: weight of its roughness."""

    options: ClassVar[tuple[str, ...]] = ("frequencies", "smoothness")

    def __init__(
        self,
        tokenizer: ActionTokenizer,
        chunk: ChunkStatistics,
        *,
        frequencies: int = 16,
        smoothness: float = 1e-6,
    ) -> None:
        ActionDecoder.__init__(self, tokenizer, chunk)
        self.frequencies, self.smoothness = frequencies, smoothness

    def build(self, backbone: Backbone) -> None:
        self.head = FourierHead(backbone.dim, self.tokenizer.size, self.frequencies)
        length = fixed_length(self.tokenizer, self.chunk.steps, "fourier")
        self.slots = nn.Parameter(torch.randn(length, backbone.dim) * INIT_STD)

    def validate_loaded(self) -> None:
        """There is no id mapping to check."""

    def logits(self, context: Features, backbone: Backbone) -> Tensor:
        logits: Tensor = self.head(self.hidden(context, backbone))
        return logits

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """Return the cross-entropy over bins plus `smoothness` times the roughness, summed over
        tokens."""
        real, imaginary = self.head.coefficients(self.hidden(context, backbone))
        logits = self.head.log(real, imaginary).flatten(0, 1)
        labels = target.flatten()
        total = F.cross_entropy(logits, labels, reduction="sum")
        rough = self.head.roughness(real, imaginary).sum()
        correct = (logits.detach().argmax(-1) == labels).sum()
        parts = {"correct": correct, "roughness": rough.detach()}
        return Loss(total + self.smoothness * rough, labels.numel(), parts)
