"""A subject in the scanner: volumes of one grid, and the masks of their findings.

Legend: `X Y Z` voxels, `K` sequences; mm, RAS.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .anatomy import anatomy
from .signal_equations import SEQUENCES, jittered, signal
from .subject import CAPSULE, CAPSULE_RADIUS, Subject, Warp

FIELD_OF_VIEW = (190.0, 224.0, 180.0)
MIDDLE = (0.0, -18.0, 8.0)
"""mm; the middle of the brain in the template."""


@dataclass(frozen=True)
class Grid:
    """shape: voxels. affine: `[4, 4]` rows, voxel to mm."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    def matrix(self) -> Tensor:
        return torch.tensor(self.affine, dtype=torch.float64)


@dataclass(frozen=True)
class Scan:
    """volumes: `[K, X, Y, Z]` float32. lesion, ventricles: bool `[X, Y, Z]`."""

    volumes: Tensor
    lesion: Tensor
    ventricles: Tensor
    grid: Grid


class Pose:
    """A subject as it lies in the scanner: all that its masks need, and nothing is measured.

    Draws from `rng` first of all.
    """

    def __init__(self, subject: Subject, grid: Grid, rng: np.random.Generator) -> None:
        self.subject = subject
        self.edge = float(min(grid.affine[i][i] for i in range(3)))
        self.warp = Warp(subject, rng)
        self.points = _points(grid)  # [X, Y, Z, 3]
        self.template = self.warp(self.points)

    def tissue(self, kinds: slice = slice(None)) -> Tensor:
        """Return `[4, X, Y, Z]` shares of grey, white and fluid, and of the ventricles."""
        return _sampled(self.template, self.edge, kinds)

    def lesion(self) -> Tensor:
        """Return `[X, Y, Z]` share of a voxel that is lesion."""
        return _ball(self.template, self.subject)


def mask(kind: str, subject: Subject, grid: Grid, seed: int) -> Tensor:
    """`lesion` or `ventricles` of a scan, bool `[X, Y, Z]`, without the scan."""
    pose = Pose(subject, grid, np.random.default_rng(seed))
    return (pose.lesion() if kind == "lesion" else pose.tissue(slice(3, 4))[0]) > 0.5


def draw_grid(rng: np.random.Generator, spacing: float) -> Grid:
    """Return a field of view about the head, voxels about `spacing` mm, one axis often coarser."""
    edges = np.full(3, spacing * rng.uniform(0.92, 1.08))
    edges[rng.integers(3)] *= rng.choice([1.0, 1.0, 1.3, 1.6])
    view = np.array(FIELD_OF_VIEW) * rng.uniform(0.97, 1.05, 3)
    shape = np.maximum(4, np.rint(view / edges)).astype(int)
    start = np.array(MIDDLE) + rng.normal(0, 2, 3) - edges * (shape - 1) / 2
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.diag(edges), start
    rows = tuple(tuple(map(float, row)) for row in affine)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), rows)


def scan(subject: Subject, grid: Grid, sequences: tuple[str, ...], seed: int) -> Scan:
    """Simulate: volumes, and the masks that `mask` draws without them."""
    rng = np.random.default_rng(seed)
    pose = Pose(subject, grid, rng)
    tissue, lesion, edge = pose.tissue(), pose.lesion(), pose.edge
    parts = dict(zip(("grey", "white", "fluid"), tissue[:3] * (1 - lesion), strict=True))
    parts["lesion"] = lesion
    if subject.capsule:
        side = lesion.new_tensor([-1.0 if subject.mirrored else 1.0, 1.0, 1.0])
        centre = lesion.new_tensor(CAPSULE) * side
        distance = (pose.points - centre - pose.warp.shift).norm(dim=-1)
        parts["capsule"] = _soft(CAPSULE_RADIUS - distance, edge)
    bias = _bias(rng, grid.shape)
    volumes = [_measured(parts, name, bias, subject.noise, rng) for name in sequences]
    return Scan(torch.stack(volumes), lesion > 0.5, tissue[3] > 0.5, grid)


def _points(grid: Grid) -> Tensor:
    axes = [torch.arange(n, dtype=torch.float64) for n in grid.shape]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    matrix = grid.matrix()
    return (voxels @ matrix[:3, :3].T + matrix[:3, 3]).float()


@functools.lru_cache(maxsize=2)
def _blurred(resolution: int) -> Tensor:
    """Return `[1, 4, X, Y, Z]` the maps as a large voxel sees them, with its neighbourhood."""
    return F.avg_pool3d(anatomy(resolution).tissue[None], 3, stride=1, padding=1)


def _sampled(points: Tensor, edge: float, kinds: slice) -> Tensor:
    resolution = 1 if edge < 1.9 else 2
    body = anatomy(resolution)
    maps = (_blurred(resolution) if edge > 3 else body.tissue[None])[:, kinds]
    inverse = torch.linalg.inv(body.affine).float()
    voxels = points @ inverse[:3, :3].T + inverse[:3, 3]
    last = voxels.new_tensor([n - 1 for n in maps.shape[2:]])
    grid = (2 * voxels / last - 1).flip(-1)[None]
    return F.grid_sample(maps, grid, padding_mode="zeros", align_corners=True)[0]


def _ball(template: Tensor, subject: Subject) -> Tensor:
    """Return `[X, Y, Z]` share of a voxel that is lesion."""
    if subject.lesion is None:
        return torch.zeros(template.shape[:-1])
    centre = template.new_tensor(subject.lesion.centre)
    distance = (template - centre).norm(dim=-1) * subject.scale
    return _soft(subject.lesion.diameter / 2 - distance, 1.5)


def _soft(inside: Tensor, width: float) -> Tensor:
    return (inside / width + 0.5).clamp(0, 1)


def _bias(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Return a smooth gain between about 0.7 and 1.4."""
    coarse = torch.from_numpy(rng.normal(0, 0.12, (1, 1, 4, 4, 4))).float()
    field = F.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)
    return field[0, 0].exp()


def _measured(
    parts: dict[str, Tensor], name: str, bias: Tensor, noise: float, rng: np.random.Generator
) -> Tensor:
    """Partial volumes by their signals, gain, Rician noise; units as a scanner's, about 1000."""
    timing = jittered(SEQUENCES[name], rng)
    clean = torch.zeros_like(bias)
    brightest = 1e-6
    for tissue, share in parts.items():
        value = signal(tissue, timing)
        clean += value * share
        brightest = max(brightest, value if tissue != "capsule" else 0.0)
    clean = clean / brightest * bias
    real, imaginary = (torch.from_numpy(rng.normal(0, noise, bias.shape)).float() for _ in range(2))
    return ((clean + real) ** 2 + imaginary**2).sqrt() * 1000
