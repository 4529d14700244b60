"""The contract of every volume encoder, and the invariants of a transformer on volumes."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sensorium.modalities.base import Encoder, Features, Sample
from sensorium.modalities.image.patches import Patches
from sensorium.modalities.mri import MRI
from sensorium.modalities.mri.read import example, read

SMALL = {"size": (16, 16, 16), "patch": (8, 8, 8), "dim": 24, "depth": 3, "heads": 2}
PICTURE = {"size": 16, "patch_size": 8, "dim": 24}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit3d": ("vit3d", SMALL),
    "vit3d with a stem": ("vit3d", {**SMALL, "stem": [4, 8], "registers": 2, "contrasts": 3}),
    "monai DenseNet": (
        "monai",
        {
            "name": "DenseNet121",
            "options": {
                "init_features": 8,
                "growth_rate": 4,
                "block_config": [2, 2],
            },
            "size": (16, 16, 16),
        },
    ),
    "monai ResNet": (
        "monai",
        {
            "name": "resnet10",
            "options": {"widen_factor": 0.125},
            "size": (32, 32, 32),
            "contrasts": 2,
        },
    ),
    "slices": ("slices", {"encoder": PICTURE, "size": (16, 16, 6), "heads": 2}),
    "slices, sagittal": (
        "slices",
        {
            "encoder": PICTURE,
            "size": (6, 16, 12),
            "axis": 0,
            "every": 2,
            "heads": 2,
            "contrasts": 3,
        },
    ),
    "vit3d of flat patches": ("vit3d", {**SMALL, "patch": (8, 8, 4), "layer_scale": None}),
}


def build(case: str) -> Encoder:
    name, options = CASES[case]
    module, _, attribute = MRI.encoders[name].partition(":")
    kind: type[Encoder] = getattr(importlib.import_module(module), attribute)
    within = {key: Patches(**options[key]) for key in kind.inner}
    return kind(**{**kind.resolve(options), **within})


def make(case: str) -> Encoder:
    torch.manual_seed(0)
    return build(case).eval()


def samples(encoder: Encoder, count: int = 2) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [encoder.processor.prepare(example(rng)) for _ in range(count)]


def test_every_encoder_has_a_case() -> None:
    assert {name for name, _ in CASES.values()} == set(MRI.encoders)


@pytest.fixture(params=CASES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return make(request.param)


def test_features(encoder: Encoder) -> None:
    batch = encoder.collate(samples(encoder))
    features = encoder(**batch)
    assert isinstance(features, Features)
    assert features.tokens.shape[0] == 2 and features.dim == encoder.dim
    assert features.grid is not None and len(features.grid) == 3
    assert features.tokens.isfinite().all() and features.mask.any(1).all()
    assert features.affine is not None and features.affine.shape == (2, 4, 4)
    assert features.step is not None and features.origin is not None


def test_tokens_lie_inside_the_volume(encoder: Encoder) -> None:
    """The centres of the first and last token are voxels of the sample."""
    batch = encoder.collate(samples(encoder))
    features = encoder(**batch)
    shape = batch["volume"].shape[2:] if "volume" in batch else batch["size"][0].tolist()
    for n, step, origin, size in zip(
        features.grid, features.step, features.origin, shape, strict=True
    ):
        assert 0 <= origin <= size - 1 and origin + (n - 1) * step <= size - 1 + step / 2


def test_neighbours_and_padding_change_nothing(encoder: Encoder) -> None:
    if not encoder.batch_invariant:
        pytest.skip("says that they do")
    first, second = samples(encoder)
    if "inside" not in first:
        pytest.skip("takes volumes of one size")
    if type(encoder).__name__ == "Monai":
        pytest.skip("takes volumes of one size")
    larger = {
        k: torch.nn.functional.pad(v, (0, 8, 0, 8, 0, 8)) if v.ndim >= 3 else v
        for k, v in second.items()
    }
    alone = encoder(**encoder.collate([first]))
    grid = alone.grid
    together = encoder(**encoder.collate([first, larger]))
    tokens = together.tokens[0].unflatten(0, together.grid)[: grid[0], : grid[1], : grid[2]]
    mask = together.mask[0].unflatten(0, together.grid)
    assert int(mask.sum()) == int(alone.mask.sum())
    wanted = alone.tokens[0][alone.mask[0]]
    found = tokens.flatten(0, 2)[mask[: grid[0], : grid[1], : grid[2]].flatten()]
    if together.grid == grid:
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_parameter(encoder: Encoder) -> None:
    encoder.train()
    batch = encoder.collate(samples(encoder))
    options: dict[str, Any] = {}
    if "token_mask" in encoder.supports:
        tokens = encoder(**batch).tokens.shape[:2]
        options["token_mask"] = torch.arange(tokens[1]).expand(tokens) % 2 == 0
    features = encoder(**batch, **options)
    total = features.tokens.square().sum() + features.vector().sum()
    total.backward()
    idle = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert not idle


def test_saved_and_loaded_are_equal(encoder: Encoder, tmp_path: Any) -> None:
    batch = encoder.collate(samples(encoder))
    wanted = encoder(**batch).tokens
    save_file(encoder.state_dict(), tmp_path / "w.safetensors")
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    encoder.load_state_dict(load_file(tmp_path / "w.safetensors"))
    torch.testing.assert_close(encoder(**batch).tokens, wanted)


def test_builds_on_the_meta_device() -> None:
    for case in CASES:
        with torch.device("meta"):
            made = build(case)
        assert all(p.is_meta for p in made.parameters())


@pytest.mark.parametrize("case", [c for c, (name, _) in CASES.items() if name == "vit3d"])
def test_masked_tokens_are_not_seen(case: str) -> None:
    """A masked patch may hold anything."""
    encoder = make(case)
    batch = encoder.collate(samples(encoder))
    tokens = encoder(**batch).tokens.shape[1]
    token_mask = torch.zeros(2, tokens, dtype=torch.bool)
    token_mask[:, 0] = True
    wanted = encoder(**batch, token_mask=token_mask)
    if "stem" in CASES[case][1]:
        return  # a stem's convolutions look over the border of a patch
    patch = [int(step) for step in wanted.step or ()]
    batch["volume"][:, :, : patch[0], : patch[1], : patch[2]] = 7.0
    torch.testing.assert_close(encoder(**batch, token_mask=token_mask).tokens, wanted.tokens)
    assert not torch.allclose(encoder(**batch).tokens, wanted.tokens)


def test_layers_are_the_hidden_states_and_taps_change_them() -> None:
    encoder = make("vit3d")
    batch = encoder.collate(samples(encoder))
    whole = encoder(**batch, layers=(0, -1))
    torch.testing.assert_close(whole.layers[1].tokens, whole.tokens)
    assert not torch.allclose(whole.layers[0].tokens, whole.tokens)
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
    module, _, attribute = MRI.encoders["vit3d"].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    encoder = kind(size=size, patch=patch, dim=8, depth=1, heads=1)
    assert math.prod(encoder.position.shape[2:]) == tokens
    batch = encoder.collate([encoder.processor.prepare(example(np.random.default_rng(0)))])
    assert encoder(**batch).tokens.shape == (1, tokens, 8)


def test_the_blocks_of_vit_b_have_its_parameters() -> None:
    module, _, attribute = MRI.encoders["vit3d"].partition(":")
    with torch.device("meta"):
        encoder = getattr(importlib.import_module(module), attribute)(layer_scale=None)
    assert sum(p.numel() for p in encoder.layers.parameters()) == 85_054_464


def test_positions_of_the_same_grid_are_the_same_and_of_another_are_between() -> None:
    encoder: Any = make("vit3d")
    own = encoder._positions(tuple(encoder.position.shape[2:]))
    torch.testing.assert_close(own, encoder.position.flatten(2).transpose(1, 2))
    other = encoder._positions((5, 4, 3))
    assert other.shape == (1, 60, encoder.dim)
    assert other.min() >= own.min() and other.max() <= own.max()


def test_absent_contrasts_may_hold_anything() -> None:
    encoder = make("vit3d with a stem")
    batch = encoder.collate(samples(encoder))
    assert batch["contrasts"].tolist() == [[True, False, False]] * 2
    wanted = encoder(**batch).tokens
    batch["volume"][:, 1:] = 5.0
    torch.testing.assert_close(encoder(**batch).tokens, wanted)
    batch["contrasts"][:, 1] = True
    assert not torch.allclose(encoder(**batch).tokens, wanted)


def test_a_volume_smaller_than_a_patch_is_padded_to_one() -> None:
    encoder = make("vit3d")
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
    module, _, attribute = MRI.encoders["vit3d"].partition(":")
    with pytest.raises(ValueError, match=line):
        getattr(importlib.import_module(module), attribute)(**{**SMALL, **options})
