"""Heads that sample a vector of numbers given a state: by flow matching, or by diffusion.

Flow: `x_t = (1 - t) e + t x`, the head predicts the velocity `x - e` (Lipman et al., "Flow
Matching for Generative Modeling", 2023), and Euler's steps lead from noise `e` to a sample.
Diffusion: `x_t = a_t x + s_t e` with the cosine schedule, the head predicts `e` (Ho et al., 2020;
Li et al., "Autoregressive Image Generation without Vector Quantization", 2024).

Legend: `B` rows, `N` vectors, `D` width of their states, `C` numbers of a vector.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...base import Decoder, Features, Loss, PositiveInt

MAX_ANGLE = math.pi / 2 * 0.98
"""The last angle of the cosine schedule; at a right angle there is no signal to divide by."""


class Denoiser(nn.Module):
    """A residual MLP whose layers are modulated by state and time."""

    def __init__(self, dim: int, numbers: int, width: int, depth: int) -> None:
        super().__init__()
        self.condition = nn.Linear(dim, width)
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.start = nn.Linear(numbers, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.end = nn.Linear(width, numbers)

    def forward(self, noisy: Tensor, time: Tensor, state: Tensor) -> Tensor:
        """noisy `[N, C]`, time `[N]` from 0 to 1, state `[N, D]` -> `[N, C]`."""
        angles = time[:, None] * 2.0 ** torch.arange(8, device=time.device) * math.pi
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        condition = nn.functional.silu(self.condition(state) + self.time(waves.to(state.dtype)))
        hidden: Tensor = self.start(noisy)
        for norm, modulate, layer in zip(self.norms, self.modulations, self.layers, strict=True):
            scale, shift = modulate(condition).chunk(2, -1)
            hidden = hidden + layer(norm(hidden) * (1 + scale) + shift)
        output: Tensor = self.end(hidden)
        return output


class VectorHead(Decoder):
    """A head that samples `numbers` numbers given a state.

    dim: width of the state. width, depth: of the MLP. repeats: noise levels that a vector is
    trained at in a step. steps: of a sample. As a decoder of a task it reads the mean of its
    condition, and its target's values in a row are one vector.
    """

    def __init__(
        self,
        *,
        dim: PositiveInt,
        numbers: PositiveInt,
        width: PositiveInt = 128,
        depth: PositiveInt = 3,
        repeats: PositiveInt = 4,
        steps: PositiveInt = 20,
    ) -> None:
        super().__init__()
        self.dim, self.numbers, self.repeats, self.steps = dim, numbers, repeats, steps
        self.denoiser = Denoiser(dim, numbers, width, depth)

    def errors(self, state: Tensor, values: Tensor) -> Tensor:
        """state `[N, D]`, values `[N, C]` -> the mean squared error of each vector `[N]`."""
        state = state.repeat_interleave(self.repeats, 0)
        values = values.repeat_interleave(self.repeats, 0).float()
        noise = torch.randn_like(values)
        time = torch.rand(len(values), device=values.device)
        noisy, goal = self.mixed(values, noise, time[:, None])
        predicted = self.denoiser(noisy, time, state.float())
        return (predicted - goal).square().mean(-1).unflatten(0, (-1, self.repeats)).mean(1)

    def mixed(self, values: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return noisy values at a time and what the head has to predict, `[N, C]` each."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, state: Tensor, noise: Tensor, steps: int | None = None) -> Tensor:
        """state `[N, D]`, noise `[N, C]` -> samples `[N, C]`, in `steps` steps of at least 1."""
        raise NotImplementedError

    def loss(self, condition: Features, target: Mapping[str, Tensor]) -> Loss:
        values = target["values"].flatten(1)
        if values.shape[1] != self.numbers:
            raise ValueError(
                f"numbers: the target has {tuple(target['values'].shape[1:])} numbers a row, the "
                f"head samples {self.numbers}; set numbers: {values.shape[1]}"
            )
        return Loss(self.errors(condition.pool(), values).sum(), len(values))

    @torch.no_grad()
    def generate(  # type: ignore[override]  # seeds are required
        self,
        condition: Features,
        *,
        seeds: Sequence[int],
        steps: PositiveInt | None = None,
        **options: Any,
    ) -> Tensor:
        """Return samples `[B, 1, C]`."""
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        noise = torch.stack([torch.randn(self.numbers, generator=g) for g in generators])
        state = condition.pool()
        return self.sample(state.float(), noise.to(state.device), steps)[:, None]

    def as_json(self, generated: Tensor) -> list[dict[str, Any]]:
        return [{"values": row.flatten().tolist()} for row in generated]


class FlowHead(VectorHead):
    """Predicts the velocity from noise to values."""

    def mixed(self, values: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - time) * noise + time * values, values - noise

    @torch.no_grad()
    def sample(self, state: Tensor, noise: Tensor, steps: int | None = None) -> Tensor:
        steps, values = _steps(self.steps if steps is None else steps), noise
        for step in range(steps):
            time = noise.new_full((len(noise),), step / steps)
            values = values + self.denoiser(values, time, state) / steps
        return values


class DiffusionHead(VectorHead):
    """Predicts the noise; samples by the deterministic steps of DDIM (Song et al., 2021)."""

    def mixed(self, values: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        angle = (1 - time) * MAX_ANGLE
        return angle.cos() * values + angle.sin() * noise, noise

    @torch.no_grad()
    def sample(self, state: Tensor, noise: Tensor, steps: int | None = None) -> Tensor:
        steps, noisy = _steps(self.steps if steps is None else steps), noise
        angles = torch.linspace(MAX_ANGLE, 0, steps + 1, device=noise.device)
        for here, after in itertools.pairwise(angles):
            time = (1 - here / MAX_ANGLE).expand(len(noise))
            predicted = self.denoiser(noisy, time, state)
            values = (noisy - here.sin() * predicted) / here.cos()
            noisy = after.cos() * values + after.sin() * predicted
        return noisy


def _steps(steps: int) -> int:
    """Return a number of steps. Raise ValueError for none, which would return the noise."""
    if steps < 1:
        raise ValueError(f"steps: found {steps}, expected at least 1; noise is no sample")
    return steps
