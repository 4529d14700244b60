"""Generators of pictures by diffusion or flow matching: U-Nets and transformers of diffusers.

A picture is brought to the latents of the VAE, if there is one; noise is mixed in at a random step
of the scheduler, and the model predicts what the scheduler asks for (the noise, the velocity or the
picture). Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022;
Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022.

Legend: `B` rows, `C` channels, `H`, `W` px, `h`, `w` latent px, `N` steps of the schedule.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...base import Decoder, Features, Fraction, Loss, NonNegativeFloat, PositiveInt
from ..pixels import to_png
from .configs import (
    BUILTIN,
    Configs,
    has_weights,
    make_model,
    make_scheduler,
    model_factor,
    read_configs,
    weights_of,
)
from .second import SecondCondition


class Diffusers(Decoder):
    """A generator of diffusers, conditioned by cross-attention.

    name: a folder in diffusers' own format (`model_index.json`, `unet` or `transformer`,
    `scheduler`, `vae` where it has one) or a built-in configuration. config: those files' contents
    (`resolve` reads them). options: fields of the model's configuration to override. size: px of a
    side; by default that of the configuration. scheduler: a class of diffusers in place of the
    folder's, with `scheduler_options`. condition_dropout: the fraction of training rows whose
    condition is replaced by zeros, so that guidance has something to guide away from. steps,
    guidance: defaults of `generate`.

    second: how a second condition joins: `average` of both cross-attentions (Ji et al., "Improving
    Diffusion Models for Scene Text Editing with Dual Encoders", 2023), or `add`, whose output
    starts at zero and leaves the generator unchanged (Dong et al., "Decoder-Only LLMs are Better
    Controllers for Diffusion Models", 2024). second_dim: its width, by default the first one's.
    """

    signal: Tensor
    noise: Tensor
    timesteps: Tensor

    def __init__(
        self,
        *,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        size: PositiveInt | None = None,
        scheduler: str | None = None,
        scheduler_options: dict[str, Any] | None = None,
        condition_dropout: Fraction = 0.1,
        steps: PositiveInt = 50,
        guidance: NonNegativeFloat = 1.0,
        second: Literal["average", "add"] | None = None,
        second_dim: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.name, self.dropout = name, condition_dropout
        self.steps, self.guidance = steps, guidance
        parts = Configs(**(read_configs(name) if config is None else config))
        self.model: Any = make_model(parts.model, options or {})
        self.vae: Any = None if parts.vae is None else make_model(parts.vae, {}, "config.vae")
        self.scheduler = make_scheduler(parts.scheduler, scheduler, scheduler_options or {})
        self.prediction = self._add_schedule()
        self.dim = _condition_width(self.model)
        self.size = self._checked_size(size)
        self.second_dim = second_dim or self.dim
        self.second: SecondCondition | None = None
        if second is None and second_dim is not None:
            raise ValueError("second_dim: has an effect only with second; set second: average")
        if second is not None:
            self.second = SecondCondition(self.model, self.second_dim, second)
        self.to(torch.empty(0).device)  # tables that the library makes by numpy lie on the CPU

    @property
    def dims(self) -> tuple[int, ...]:
        return (self.dim,) if self.second is None else (self.dim, self.second_dim)

    @classmethod
    def list_names(cls) -> Sequence[str]:
        return list(BUILTIN)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        if options.get("config") is not None:
            return options
        return {**options, "config": read_configs(options.get("name"))}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        return has_weights(options.get("name"))

    def load(self) -> None:
        """Fill model and VAE from the folder's safetensors; a second condition keeps its values."""
        for part, module in (("model", self.model), ("vae", self.vae)):
            if module is not None:
                values = weights_of(self.name, part)
                if lacking := sorted(module.state_dict().keys() - values.keys()):
                    raise ValueError(f"name: {self.name}: its {part} lacks {lacking[0]}")
                module.load_state_dict(values, strict=False)

    def loss(self, condition: Features | Sequence[Features], target: Mapping[str, Tensor]) -> Loss:
        """Compute the mean squared error of the model's prediction for each picture, summed.

        target: `values [B, H, W, 3]` from -1 to 1.
        """
        latents = self.encode(target["values"])
        noise = torch.randn_like(latents)
        index = torch.randint(len(self.signal), (len(latents),), device=latents.device)
        signal, scale = (table[index].view(-1, 1, 1, 1) for table in (self.signal, self.noise))
        noisy = signal * latents + scale * noise
        dropped = self._dropped(condition)
        predicted = self.predict(noisy, self.timesteps[index], dropped)
        goals = {
            "epsilon": noise,
            "sample": latents,
            "v_prediction": signal * noise - scale * latents,
            "flow": noise - latents,
        }
        error = F.mse_loss(predicted.float(), goals[self.prediction].float(), reduction="none")
        return Loss(error.flatten(1).mean(1).sum(), len(latents))

    def predict(
        self, noisy: Tensor, timesteps: Tensor, condition: Features | Sequence[Features]
    ) -> Tensor:
        """Return the model's prediction `[B, C, h, w]` for noisy latents at timesteps `[B]`."""
        first, *others = [condition] if isinstance(condition, Features) else condition
        if len(others) != len(self.dims) - 1 or first.dim != self.dim:
            widths = ", ".join(str(each.dim) for each in (first, *others))
            raise ValueError(
                f"the generator takes conditions of the widths {list(self.dims)}, found {widths}; "
                "add a connector to the stream, or second: average to the generator"
            )
        inputs = {
            "encoder_hidden_states": first.tokens, "encoder_attention_mask": first.mask,
            "timestep": timesteps, "return_dict": False,
        }  # fmt: skip
        if self.second is None:
            alone: Tensor = self.model(noisy, **inputs)[0]
            return alone
        with self.second.reading(others[0]):
            joined: Tensor = self.model(noisy, **inputs)[0]
        return joined

    @torch.no_grad()
    def generate(  # type: ignore[override]  # no other option
        self,
        condition: Features | Sequence[Features],
        *,
        steps: PositiveInt | None = None,
        guidance: NonNegativeFloat | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Return a picture `[H, W, 3]` a row, values from -1 to 1.

        guidance: 1 samples from the condition alone, 0 without it; above 1 the condition counts
        for more. seeds: of each row's noise, so that a row's picture does not depend on its batch.
        """
        streams = [condition] if isinstance(condition, Features) else list(condition)
        guidance = self.guidance if guidance is None else guidance
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        device, rows = streams[0].tokens.device, len(streams[0].tokens)
        scheduler.set_timesteps(steps or self.steps, device=device)
        chosen = range(rows) if seeds is None else seeds
        generators = [torch.Generator().manual_seed(int(seed)) for seed in chosen]
        shape = self._latent_shape()
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)
        latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        takes = inspect.signature(scheduler.step).parameters
        extra = {"generator": generators} if "generator" in takes else {}
        for step in scheduler.timesteps:
            inputs = latents
            if hasattr(scheduler, "scale_model_input"):
                inputs = scheduler.scale_model_input(latents, step)
            predicted = self._guided(inputs, step.expand(rows), streams, guidance)
            latents = scheduler.step(predicted, step, latents, **extra).prev_sample
        return self.decode(latents)

    def _guided(
        self, noisy: Tensor, timesteps: Tensor, streams: list[Features], guidance: float
    ) -> Tensor:
        """Return `u + guidance (c - u)` of the predictions with and without the condition."""
        if guidance == 1:
            return self.predict(noisy, timesteps, streams).float()
        none = [each.replace(tokens=torch.zeros_like(each.tokens)) for each in streams]
        without = self.predict(noisy, timesteps, none).float()
        if guidance == 0:
            return without
        return without + guidance * (self.predict(noisy, timesteps, streams).float() - without)

    def as_json(self, generated: Tensor) -> list[dict[str, Any]]:
        return [{"image": to_png(picture)} for picture in generated]

    def encode(self, values: Tensor) -> Tensor:
        """Pictures `[B, H, W, 3]` -> latents `[B, C, h, w]`, the pixels without a VAE."""
        if tuple(values.shape[1:]) != (self.size, self.size, 3):
            height, width, channels = values.shape[1:]
            raise ValueError(
                f"the target has {height} x {width} px of {channels} channels, the generator "
                f"makes {self.size} x {self.size} px of 3; set its stream's encoder to "
                f"{{type: pixels, size: {self.size}}}"
            )
        pixels = values.permute(0, 3, 1, 2)
        if self.vae is None:
            return pixels
        with torch.no_grad():
            latents: Tensor = self.vae.encode(pixels).latent_dist.sample()
        shift, scale = self._latent_scale()
        return (latents - shift) * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, C, h, w]` -> pictures `[B, H, W, 3]`."""
        if self.vae is not None:
            shift, scale = self._latent_scale()
            latents = self.vae.decode(latents / scale + shift, return_dict=False)[0]
        return latents.permute(0, 2, 3, 1)

    def _latent_scale(self) -> tuple[float, float]:
        config: Any = self.vae.config if self.vae is not None else None
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor

    def _latent_shape(self) -> tuple[int, int, int]:
        side = self.size // self._vae_factor
        return self.model.config.in_channels, side, side

    def _dropped(self, condition: Features | Sequence[Features]) -> list[Features]:
        """Return the conditions, zeros in some rows while training: all of a row or one."""
        streams = [condition] if isinstance(condition, Features) else list(condition)
        if not (self.training and self.dropout):
            return streams
        draws = torch.rand(1 + len(streams), len(streams[0].tokens), device=streams[0].mask.device)
        together, *apart = draws >= self.dropout
        keep = [together] if len(streams) == 1 else [together & each for each in apart]
        pairs = zip(streams, keep, strict=True)
        return [each.replace(tokens=each.tokens * k.view(-1, 1, 1)) for each, k in pairs]

    def _add_schedule(self) -> str:
        """Add the tables `[N]` of the training schedule; return what the model predicts."""
        scheduler = self.scheduler
        if hasattr(scheduler, "alphas_cumprod"):
            share = scheduler.alphas_cumprod
            tables = (share.sqrt(), (1 - share).sqrt(), torch.arange(len(share)))
            prediction = str(scheduler.config.get("prediction_type", "epsilon"))
        else:
            sigmas = scheduler.sigmas[: scheduler.config.num_train_timesteps]
            tables, prediction = (1 - sigmas, sigmas, scheduler.timesteps), "flow"
        for name, table in zip(("signal", "noise", "timesteps"), tables, strict=True):
            self.register_buffer(name, table, persistent=False)
        return prediction

    @property
    def _vae_factor(self) -> int:
        """px of a latent px."""
        blocks = [] if self.vae is None else self.vae.config.block_out_channels
        return int(2 ** max(0, len(blocks) - 1))

    def _checked_size(self, size: int | None) -> int:
        known = self.model.config.sample_size
        if size is None and not isinstance(known, int):
            raise ValueError(f"size: is required, the configuration has sample_size {known}")
        side = size if size is not None else known * self._vae_factor
        unit = self._vae_factor * model_factor(self.model)
        if side % unit:
            near = max(unit, round(side / unit) * unit)
            part = "VAE and model halve" if self.vae is not None else "the model halves"
            raise ValueError(
                f"size: found {side} px, expected a multiple of {unit}, since {part} it so "
                f"often; set size: {near}"
            )
        return side


def _condition_width(model: nn.Module) -> int:
    """Return the width of the tokens that a model's cross-attention reads. Raise ValueError for a
    model without."""
    config: Any = model.config
    for field in ("encoder_hid_dim", "caption_channels", "cross_attention_dim"):
        width = config.get(field)
        widths = {width} if isinstance(width, int) else set(width or ())
        if len(widths) == 1:
            return int(widths.pop())
    raise ValueError(
        f"config: {type(model).__name__} has no cross-attention of one width that a condition "
        "could enter; take UNet2DConditionModel or PixArtTransformer2DModel"
    )
