"""Generators of diffusers: their loss, their samples, their folders, a second condition."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("diffusers")
import diffusers

from sensorium.modalities.base import Features
from sensorium.modalities.image.decoders.diffusers import Diffusers

UNET: dict[str, Any] = {
    "name": "tiny-unet",
    "options": {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    },
    "size": 8,
}
DIT: dict[str, Any] = {
    "name": "tiny-dit",
    "options": {
        "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 8,
        "cross_attention_dim": 16, "caption_channels": 16,
    },
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "velocity": UNET,
    "noise": {
        **UNET,
        "scheduler": "DDPMScheduler",
        "scheduler_options": {"prediction_type": "epsilon"},
    },
    "picture": {**UNET, "scheduler_options": {"prediction_type": "sample"}},
    "flow": DIT,
}


def make(**options: Any) -> Diffusers:
    torch.manual_seed(0)
    decoder = Diffusers(**{"condition_dropout": 0.0, "steps": 3, **options})
    with torch.no_grad():  # some layers of diffusers begin at zero, which would hide what follows
        for parameter in decoder.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return decoder


def condition(rows: int = 2, width: int = 16, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, 3, dtype=torch.bool)
    mask[0, 2] = False
    tokens = torch.randn(rows, 3, width, generator=generator)
    return Features(tokens * mask[..., None], mask)


def picture(rows: int = 2, size: int = 8) -> Tensor:
    return torch.rand(rows, size, size, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1


def plain_loop(decoder: Diffusers, words: Features, values: Tensor) -> Tensor:
    """The training step as the scripts of diffusers write it."""
    scheduler, model = copy.deepcopy(decoder.scheduler), decoder.model
    latents = values.permute(0, 3, 1, 2)
    noise = torch.randn_like(latents)
    steps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),))
    kind = scheduler.config.get("prediction_type")
    if kind is None:
        sigmas = scheduler.sigmas[steps].view(-1, 1, 1, 1)
        timesteps = scheduler.timesteps[steps]
        noisy, goal = (1 - sigmas) * latents + sigmas * noise, noise - latents
    else:
        timesteps, noisy = steps, scheduler.add_noise(latents, noise, steps)
        goal = {"epsilon": noise, "sample": latents}.get(kind)
        if goal is None:
            goal = scheduler.get_velocity(latents, noise, steps)
    output = model(
        noisy,
        timestep=timesteps,
        encoder_hidden_states=words.tokens,
        encoder_attention_mask=words.mask,
    ).sample
    return F.mse_loss(output, goal)


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_the_librarys_plain_loop(case: str) -> None:
    decoder = make(**CASES[case])
    words, values = condition(), picture()
    torch.manual_seed(5)
    loss = decoder.loss(words, {"values": values})
    torch.manual_seed(5)
    expected = plain_loop(decoder, words, values)
    torch.testing.assert_close(loss.total / loss.count, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("case", CASES)
def test_samples_follow_seed_condition_and_guidance(case: str) -> None:
    decoder = make(**CASES[case]).eval()
    words = condition()
    first = decoder.generate(words, seeds=[1, 2])
    assert first.shape == (2, 8, 8, 3)
    row = words.replace(tokens=words.tokens[1:], mask=words.mask[1:])
    torch.testing.assert_close(decoder.generate(row, seeds=[2]), first[1:], rtol=0, atol=1e-4)
    assert not torch.equal(decoder.generate(words, seeds=[3, 2])[0], first[0])
    other = decoder.generate(condition(seed=9), seeds=[1, 2])
    assert not torch.equal(other, first), "the condition plays no part"
    without = decoder.generate(words, seeds=[1, 2], guidance=0.0)
    none = decoder.generate(condition(seed=9), seeds=[1, 2], guidance=0.0)
    assert torch.equal(without, none), "without guidance the condition plays a part"
    assert not torch.equal(decoder.generate(words, seeds=[1, 2], guidance=3.0), first)


def test_padding_of_the_condition_is_not_read() -> None:
    decoder, words, values = make(**UNET), condition(), picture()
    noisy = words.replace(tokens=words.tokens + 9 * ~words.mask[..., None])
    losses = []
    for each in (words, noisy):
        torch.manual_seed(5)
        losses.append(decoder.loss(each, {"values": values}).total)
    torch.testing.assert_close(*losses)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latent generator as diffusers saves one."""
    path = tmp_path_factory.mktemp("pipeline")
    decoder = make(**{**UNET, "options": {**UNET["options"], "in_channels": 4, "out_channels": 4,
                                          "sample_size": 4}, "size": None})  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=[4, 4], norm_num_groups=2, sample_size=8,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    decoder.model.save_pretrained(path / "unet")
    vae.save_pretrained(path / "vae")
    decoder.scheduler.save_pretrained(path / "scheduler")
    return path


def test_a_folder_of_diffusers_is_read(folder: Path) -> None:
    options = Diffusers.resolve({"name": str(folder)})
    assert Diffusers.has_pretrained_weights(options)
    decoder = Diffusers(**options, steps=2)
    decoder.load()
    expected = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    assert all(torch.equal(decoder.model.state_dict()[k], v) for k, v in expected.items())
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae").eval()
    assert decoder.size == 8
    latents = decoder.eval().encode(picture())
    assert latents.shape == (2, 4, 4, 4)
    with torch.no_grad():
        again = vae.decode(latents / vae.config.scaling_factor).sample.permute(0, 2, 3, 1)
        torch.testing.assert_close(decoder.decode(latents), again)
    assert decoder.generate(condition()).shape == (2, 8, 8, 3)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"name": "tiny-unett"}, "expected a folder .* did you mean"),
    ({}, "name: is required here"),
    ({**UNET, "size": 9}, "size: found 9 px, expected a multiple of 2"),
    ({**UNET, "options": {"chanels": 3}}, "UNet2DConditionModel has no field 'chanels'"),
    ({**UNET, "scheduler": "DDIMSchedular"}, "diffusers has no 'DDIMSchedular'"),
    ({**UNET, "scheduler": "KarrasVeScheduler"}, "has no schedule to train on|diffusers has no"),
    ({**UNET, "scheduler_options": {"betas": 1}}, "DDIMScheduler has no field 'betas'"),
    ({**UNET, "second_dim": 4}, "set second: average"),
    ({"config": {"model": {"_class_name": "UNet2DModel"}, "scheduler": {}}}, "takes no"),
    ({"config": {"model": {"_class_name": "UNet9"}, "scheduler": {}}}, "has no model 'UNet9'"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES)
def test_mistakes_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        Diffusers(**options)
    assert "\n" not in str(error.value)


def test_a_folder_without_its_parts_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a folder unet nor transformer"):
        Diffusers.resolve({"name": str(tmp_path)})
    (tmp_path / "unet").symlink_to(folder / "unet")
    with pytest.raises(ValueError, match="has no scheduler"):
        Diffusers.resolve({"name": str(tmp_path)})


@pytest.mark.parametrize(
    ("words", "values", "message"),
    [
        (condition(width=5), picture(), r"widths \[16\], found 5"),
        ([condition(), condition()], picture(), r"widths \[16\], found 16, 16"),
        (condition(), picture(size=6), "the target has 6 x 6 px of 3 channels, the generator"),
    ],
)
def test_a_target_or_condition_of_another_width_is_refused(
    words: Any, values: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**UNET).loss(words, {"values": values})


@pytest.mark.parametrize("base", [UNET, DIT], ids=["unet", "dit"])
def test_an_added_condition_leaves_the_generator_unchanged_until_it_learns(
    base: dict[str, Any],
) -> None:
    alone, added = make(**base), make(**base, second="add", second_dim=5)
    added.model.load_state_dict(alone.model.state_dict())
    words, second = condition(), condition(width=5, seed=4)
    first = alone.eval().generate(words, seeds=[1, 2])
    assert torch.equal(added.eval().generate([words, second], seeds=[1, 2]), first)
    assert added.second is not None
    for layer in added.second.layers:
        torch.nn.init.normal_(layer.out.weight)
    changed = added.generate([words, second], seeds=[1, 2])
    assert not torch.equal(changed, first), "control: weights of the adapter that are not zero"


def test_two_conditions_are_averaged() -> None:
    """With the second cross-attention at zero, half of the first one is left; each stream has its
    own width, and gradients reach both."""
    decoder = make(**UNET, second="average", second_dim=5)
    words, second = condition(), condition(width=5, seed=4)
    for each in (words, second):
        each.tokens.requires_grad_()
    decoder.loss([words, second], {"values": picture()}).total.backward()
    assert decoder.dims == (16, 5)
    for each in (words, second):
        assert each.tokens.grad is not None
        assert (each.tokens.grad.abs().sum(-1) > 0)[each.mask].all()
    attention = next(m for m in decoder.model.modules() if getattr(m, "is_cross_attention", 0))
    assert decoder.second is not None
    hidden = torch.randn(2, 4, attention.query_dim)
    plain = attention(hidden, encoder_hidden_states=words.tokens)
    with decoder.second.reading(second):
        averaged = attention(hidden, encoder_hidden_states=words.tokens)
    torch.testing.assert_close(averaged, (plain + decoder.second.layers[0](hidden, second)) / 2)
