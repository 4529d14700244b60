"""Configurations and weights of generators, in the format of diffusers' folders."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from safetensors.torch import load_file
from torch import Tensor, nn

from ...messages import did_you_mean, quiet_logger

with quiet_logger("diffusers"):  # it tells of optional libraries that are not installed
    from diffusers import ModelMixin, SchedulerMixin

COSINE = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
BUILTIN: Mapping[str, Mapping[str, Any]] = {
    "tiny-unet": {
        "model": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": 32,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": [32, 64, 64],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "cross_attention_dim": 64,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
        },
        "scheduler": COSINE,
    },
    "tiny-dit": {
        "model": {
            "_class_name": "PixArtTransformer2DModel",
            "sample_size": 32,
            "in_channels": 3,
            "out_channels": 3,
            "patch_size": 4,
            "num_layers": 4,
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "cross_attention_dim": 64,
            "caption_channels": 64,
            "use_additional_conditions": False,
        },
        "scheduler": FLOW,
    },
}
"""Generators that are trained from nothing, in a pixel space of 32 px."""

MODELS = ("unet", "transformer")
PROVIDED = ("timestep", "encoder_hidden_states", "encoder_attention_mask")


@dataclass(frozen=True)
class Configs:
    """The contents of the configuration files of a generator's parts."""

    model: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    vae: Mapping[str, Any] | None = None


def read_configs(name: str | None) -> dict[str, Any]:
    """Return the configurations of a folder or a built-in name, as the fields of `Configs`."""
    if name is not None and name in BUILTIN:
        return {part: dict(fields) for part, fields in BUILTIN[name].items()}
    if name is None:
        raise ValueError(f"name: is required here; for example {next(iter(BUILTIN))}")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"name: found {name!r}, expected a folder in diffusers' own format, or one of "
            f"{', '.join(BUILTIN)}{did_you_mean(name, BUILTIN)}"
        )
    model = next((part for part in MODELS if (folder / part).is_dir()), None)
    if model is None:
        raise ValueError(f"name: {folder} has neither a folder unet nor transformer")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file():
        raise ValueError(
            f"name: {folder} has no scheduler/scheduler_config.json; save the whole pipeline"
        )
    configs = {"model": _read(folder / model / "config.json"), "scheduler": _read(scheduler)}
    vae = folder / "vae" / "config.json"
    return configs | ({"vae": _read(vae)} if vae.is_file() else {})


def _read(file: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"name: {file} cannot be read ({error})") from error
    return fields


def has_weights(name: str | None) -> bool:
    """Return whether a name is a folder with the weights of a model."""
    folder = None if name is None or name in BUILTIN else Path(name).expanduser()
    return folder is not None and any(_files(folder / part) for part in MODELS)


def weights_of(name: str | None, part: str) -> dict[str, Tensor]:
    """Return the tensors of the part `model` or `vae` of a folder."""
    folder = Path(name or "").expanduser()
    files = [f for each in (MODELS if part == "model" else (part,)) for f in _files(folder / each)]
    if not files:
        raise ValueError(f"name: {folder} has no safetensors of its {part}")
    return {key: value for file in files for key, value in load_file(file).items()}


def _files(folder: Path) -> list[Path]:
    """Return the files of the weights in float32, not those of variants (`.fp16.`)."""
    files = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    return [file for file in files if ".fp16." not in file.name]


def make_model(
    fields: Mapping[str, Any], options: Mapping[str, Any], where: str = "options"
) -> nn.Module:
    """Return a model or VAE of diffusers. Raise ValueError for an unknown class or field."""
    kind = str(fields.get("_class_name"))
    base: Any = getattr(diffusers, kind, None)
    if not _is_model(base):
        raise ValueError(f"config: diffusers has no model {kind!r}")
    names = inspect.signature(base).parameters
    for name in options:
        if name not in names:
            raise ValueError(f"{where}: {kind} has no field {name!r}{did_you_mean(name, names)}")
    if where == "options":
        _check_inputs(base)
    values = {key: value for key, value in fields.items() if not key.startswith("_")}
    try:
        model: nn.Module = base.from_config({**values, **options})
    except Exception as error:  # any error of a class of the library
        raise ValueError(f"{where}: {kind}: {' '.join(str(error).split())}") from error
    return model


def _is_model(base: Any) -> bool:
    return isinstance(base, type) and issubclass(base, ModelMixin)


def _check_inputs(base: Any) -> None:
    """Raise ValueError for a model that requires inputs which no condition provides."""
    _, _, *parameters = inspect.signature(base.forward).parameters.values()
    names = [p.name for p in parameters]
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    lacking = [name for name in required if name not in PROVIDED]
    absent = [name for name in PROVIDED if name not in names]
    if lacking or absent:
        problem = f"needs {', '.join(lacking)}" if lacking else f"takes no {', '.join(absent)}"
        raise ValueError(
            f"config: {base.__name__} {problem}; take UNet2DConditionModel or "
            "PixArtTransformer2DModel"
        )


def make_scheduler(fields: Mapping[str, Any], kind: str | None, options: Mapping[str, Any]) -> Any:
    """Return a scheduler of diffusers: that of the configuration, or of another class."""
    name = kind or str(fields.get("_class_name"))
    base: Any = getattr(diffusers, name, None)
    if not (isinstance(base, type) and issubclass(base, SchedulerMixin)):
        known = [n for n in dir(diffusers) if n.endswith("Scheduler")]
        raise ValueError(f"scheduler: diffusers has no {name!r}{did_you_mean(name, known)}")
    names = inspect.signature(base).parameters
    for option in options:
        if option not in names:
            near = did_you_mean(option, names)
            raise ValueError(f"scheduler_options: {name} has no field {option!r}{near}")
    values = {key: value for key, value in fields.items() if key in names}
    scheduler = base(**{**values, **options})
    flow = hasattr(scheduler, "sigmas") and name.startswith("FlowMatch")
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if not flow and not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"scheduler: {name} has no schedule to train on; take DDPMScheduler")
    if not flow and prediction not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(f"scheduler: cannot train the prediction type {prediction!r}")
    return scheduler


def model_factor(model: nn.Module) -> int:
    """Return the number that a side of a model's input must be a multiple of."""
    config: Any = model.config
    if patch := config.get("patch_size"):
        return int(patch)
    return int(2 ** (len(config.get("block_out_channels") or [0]) - 1))
