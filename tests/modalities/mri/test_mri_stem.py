"""What a stem of volumes has to tell: where something small and bright lies in drifting gain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.modalities.mri.encoders.patch_embed3d import Patches3D

EDGE, PATCH = 24, 8


def spotted(count: int) -> tuple[Tensor, Tensor]:
    """Volumes with a bright cube of three voxels in noise and a smooth gain, and its patch."""
    gain = F.interpolate(torch.randn(count, 1, 4, 4, 4), EDGE, mode="trilinear")
    volume = torch.randn(count, 1, EDGE, EDGE, EDGE) * 0.5 + gain
    centre = torch.randint(2, EDGE - 2, (count, 3))
    off = (torch.arange(EDGE) - centre[..., None]).abs() <= 1  # [N, 3, X]
    cube = off[:, 0, :, None, None] & off[:, 1, None, :, None] & off[:, 2, None, None, :]
    x, y, z = (centre // PATCH).unbind(1)
    return volume + 2 * cube[:, None], (x * 3 + y) * 3 + z


@pytest.mark.slow
def test_a_stem_learns_soon_which_patch_holds_a_small_bright_spot() -> None:
    torch.manual_seed(0)
    net, head = Patches3D(1, 16, (PATCH,) * 3, [4, 8, 8]), nn.Linear(16, 1)
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=1e-2)

    def logits(volume: Tensor) -> Tensor:
        tokens, _ = net(volume, torch.ones(len(volume), EDGE, EDGE, EDGE, dtype=torch.bool))
        result: Tensor = head(tokens.flatten(2).transpose(1, 2))[..., 0]
        return result

    for _ in range(100):
        volume, place = spotted(16)
        optimizer.zero_grad()
        F.cross_entropy(logits(volume), place).backward()
        optimizer.step()
    volume, place = spotted(200)
    with torch.no_grad():
        right = (logits(volume).argmax(1) == place).float().mean()
    assert right > 0.8  # chance 0.04; strided convolutions normed a voxel: 0.07
