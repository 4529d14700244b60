"""Volume encoders beyond the common contract, and the invariants of a transformer on volumes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from encoder_cases import CUBE, MRI, build
from torch import Tensor

from sensorium.modalities.base import Encoder, Sample
from sensorium.modalities.mri.encoders.monai import Monai
from sensorium.modalities.mri.encoders.monai_maps import build as build_network
from sensorium.modalities.mri.encoders.vit3d import ViT3D
from sensorium.modalities.mri.io import read
from sensorium.modalities.mri.io.read import example


def samples(encoder: Encoder, count: int = 2) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [encoder.processor.prepare(example(rng)) for _ in range(count)]


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("case", MRI)
def test_tokens_lie_inside_the_volume(case: str) -> None:
    """The centres of the first and last token are voxels of the sample."""
    encoder = build("mri", case)
    batch = encoder.collate(samples(encoder))
    features = encoder(**batch)
    assert features.affine is not None and features.grid is not None and len(features.grid) == 3
    shape = batch["volume"].shape[2:] if "volume" in batch else batch["size"][0].tolist()
    for n, step, origin, size in zip(
        features.grid, features.spacing, features.origin, shape, strict=True
    ):
        assert 0 <= origin <= size - 1 and origin + (n - 1) * step <= size - 1 + step / 2


@pytest.mark.parametrize("case", [c for c, (name, _) in MRI.items() if name == "vit3d"])
def test_masked_tokens_are_not_seen(case: str) -> None:
    """A masked patch may hold anything."""
    encoder = build("mri", case)
    batch = encoder.collate(samples(encoder))
    tokens = encoder(**batch).tokens.shape[1]
    token_mask = torch.zeros(2, tokens, dtype=torch.bool)
    token_mask[:, 0] = True
    expected = encoder(**batch, token_mask=token_mask)
    if "stem" in MRI[case][1]:
        return  # a stem's convolutions look over the border of a patch
    patch = [int(step) for step in expected.spacing or ()]
    batch["volume"][:, :, : patch[0], : patch[1], : patch[2]] = 7.0
    torch.testing.assert_close(encoder(**batch, token_mask=token_mask).tokens, expected.tokens)
    assert not torch.allclose(encoder(**batch).tokens, expected.tokens)


def test_layers_are_the_hidden_states_and_taps_change_them() -> None:
    encoder = build("mri", "vit3d")
    batch = encoder.collate(samples(encoder))
    whole = encoder(**batch, hidden_states=(0, -1))
    torch.testing.assert_close(whole.hidden_states[1].tokens, whole.tokens)
    assert not torch.allclose(whole.hidden_states[0].tokens, whole.tokens)
    seen: list[Tensor] = []

    def hook(tokens: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask)
        return tokens * 0

    changed = encoder(**batch, layer_hooks={-1: hook})
    assert changed.tokens.std() < whole.tokens.std()
    torch.testing.assert_close(seen[0], whole.mask)


@pytest.mark.parametrize(
    ("size", "patch", "tokens"),
    [
        ((96, 96, 96), (16, 16, 16), 216),
        ((128, 128, 64), (16, 16, 8), 512),
        ((20, 16, 17), (8, 8, 8), 18),
    ],
)
def test_token_counts(size: Any, patch: Any, tokens: int) -> None:
    encoder = ViT3D(size=size, patch=patch, dim=8, depth=1, heads=1)
    assert math.prod(encoder.position.shape[2:]) == tokens
    batch = encoder.collate([encoder.processor.prepare(example(np.random.default_rng(0)))])
    assert encoder(**batch).tokens.shape == (1, tokens, 8)


def test_the_blocks_of_vit_b_have_its_parameters() -> None:
    with torch.device("meta"):
        encoder = ViT3D(layer_scale=None)
    assert sum(p.numel() for p in encoder.layers.parameters()) == 85_054_464


def test_positions_of_the_same_grid_are_the_same_and_of_another_are_between() -> None:
    encoder: Any = build("mri", "vit3d")
    positions = encoder._positions(tuple(encoder.position.shape[2:]))
    torch.testing.assert_close(positions, encoder.position.flatten(2).transpose(1, 2))
    other = encoder._positions((5, 4, 3))
    assert other.shape == (1, 60, encoder.dim)
    assert other.min() >= positions.min() and other.max() <= positions.max()


def test_absent_contrasts_may_hold_anything() -> None:
    encoder = build("mri", "vit3d with a stem")
    batch = encoder.collate(samples(encoder))
    assert batch["contrasts"].tolist() == [[True, False, False]] * 2
    expected = encoder(**batch).tokens
    batch["volume"][:, 1:] = 5.0
    torch.testing.assert_close(encoder(**batch).tokens, expected)
    batch["contrasts"][:, 1] = True
    assert not torch.allclose(encoder(**batch).tokens, expected)


def test_a_volume_smaller_than_a_patch_is_padded_to_one() -> None:
    encoder = build("mri", "vit3d")
    values = np.random.default_rng(0).uniform(1, 9, (3, 4, 5)).astype(np.float32)
    sample = encoder.processor.prepare(read({"array": values, "affine": np.eye(4)}))
    features = encoder(**encoder.collate([sample]))
    assert features.tokens.isfinite().all() and features.mask.any()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"dim": 25}, "heads: 2 do not divide dim 25"),
        ({"patch": (32, 8, 8)}, r"hold no patch of \(32, 8, 8\)"),
        ({"stem": [4, 4, 4, 4]}, "expected multiples of 16"),
        ({"depth": 0}, "depth: found 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ViT3D(**{**CUBE, **options})


@pytest.mark.parametrize("shapes", [((16, 16, 16), (24, 8, 16)), ((15, 9, 16), (16, 24, 17))])
def test_positions_do_not_follow_the_neighbours(shapes: Any) -> None:
    torch.manual_seed(0)
    encoder = ViT3D(**{**CUBE, "layer_scale": 1.0}).eval()
    encoder.position.data.normal_()
    batch = [
        {
            "volume": torch.randn(1, *shape),
            "inside": torch.ones(shape, dtype=torch.bool),
            "contrasts": torch.ones(1, dtype=torch.bool),
            "affine": torch.eye(4),
        }
        for shape in shapes
    ]
    with torch.no_grad():
        together = encoder(**encoder.collate(batch))
        for row, sample in enumerate(batch):
            alone = encoder(**encoder.collate([sample]))
            torch.testing.assert_close(
                together.tokens[row][together.mask[row]], alone.tokens[0], rtol=1e-4, atol=1e-4
            )


def test_what_monai_samples_is_not_taken() -> None:
    """The decoder of an autoencoder reads a sample, another one at each forward."""
    options = {
        "channels": (4, 4), "latent_channels": 2, "attention_levels": (False, False),
        "norm_num_groups": 2, "num_res_blocks": 1,
    }  # fmt: skip
    encoder = Monai(name="AutoencoderKL", options=options, size=(16, 16, 16)).eval()
    batch = encoder.collate(samples(encoder))
    assert torch.equal(encoder(**batch).tokens, encoder(**batch).tokens)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ViT", {"img_size": (32, 32, 32), "patch_size": (8, 8, 8), "num_layers": 2}),
        ("UNETR", {"img_size": (32, 32, 32), "feature_size": 8}),
        ("HighResNet", {}),
    ],
)
def test_the_features_lie_behind_most_of_the_network(name: str, options: dict[str, Any]) -> None:
    whole = sum(p.numel() for p in build_network(name, options, 1).parameters())
    encoder = Monai(name=name, options=options, size=(32, 32, 32))
    assert encoder.dim > 1
    assert sum(p.numel() for p in encoder.parameters()) > 0.9 * whole


def test_of_a_module_that_runs_twice_the_run_with_the_deepest_map_is_taken() -> None:
    """EfficientNetBN activates its first and its last map by one module."""
    encoder = Monai(
        name="EfficientNetBN", options={"model_name": "efficientnet-b0", "pretrained": False},
        size=(64, 64, 64),
    ).eval()  # fmt: skip
    features = encoder(**encoder.collate(samples(encoder, 1)))
    assert (features.dim, features.grid) == (encoder.dim, encoder.grid) == (1280, (2, 2, 2))
