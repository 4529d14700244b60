"""How a time-series model of transformers is configured and called.

Legend: `B` batch, `C` channels, `N` samples, `T` tokens of a channel, `D` width.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoModel

Json = dict[str, Any]

VALUES = "past_values"
"""The argument by which a model of time series is known."""

WIDTHS = ("num_input_channels", "input_size")
"""What a configuration calls the channels that a model reads together."""


def parse_repo_id(name: str) -> dict[str, Any]:
    """Return a name, with or without `hf-hub:` or `local-dir:`, as keywords of
    `from_pretrained`."""
    if name.startswith("local-dir:") or (not name.startswith("hf-hub:") and Path(name).exists()):
        path = name.removeprefix("local-dir:")
        return {"pretrained_model_name_or_path": path, "local_files_only": True}
    path, at, revision = name.removeprefix("hf-hub:").partition("@")
    return {"pretrained_model_name_or_path": path, **({"revision": revision} if at else {})}


def configuration_of(settings: Json) -> Any:
    """Return the configuration. Raise ValueError if the model reads no time series."""
    kind = settings.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"config: found model_type {kind!r}, which transformers does not have; name a folder "
            "or hub id, or give a config with its model_type"
        )
    config = CONFIG_MAPPING[kind].from_dict(settings)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    arguments = inspect.signature(model.forward).parameters
    if VALUES not in arguments:
        raise ValueError(
            f"config: {type(model).__name__} reads {next(iter(arguments))}, expected a model of "
            f"time series, which reads {VALUES}"
        )
    static = getattr(config, "num_static_categorical_features", 0)
    if static or getattr(config, "num_static_real_features", 0):
        raise ValueError("config: found static features, which a series does not have; expected 0")
    return config


def reads_together(config: Any, channels: int) -> bool:
    """Return whether a model reads the channels together. Raise ValueError for another number."""
    name = next((name for name in WIDTHS if hasattr(config, name)), None)
    if name is not None and getattr(config, name) != channels:
        raise ValueError(
            f"config: found {name} {getattr(config, name)}, the series have {channels} channels; "
            "set it, or name that many in preprocessing: {channels: [...]}"
        )
    return name is not None


def context_length(config: Any) -> int:
    """Return the samples that a model of a fixed context reads: those of its lags too."""
    return int(config.context_length + max(getattr(config, "lags_sequence", None) or [0]))


def run_model(model: Any, config: Any, values: Tensor, observed: Tensor, together: bool) -> Tensor:
    """Return the tokens `[B, C, T, D]` or `[B, T, D]`, or `[B * C, T, D]` of channels by one."""
    arguments = inspect.signature(model.forward).parameters
    if together:
        values, mask = values.transpose(1, 2), observed.transpose(1, 2)  # [B, N, C]
        if getattr(config, "input_size", 0) == 1:
            values, mask = values[..., 0], mask[..., 0]
    else:
        values, mask = values.flatten(0, 1), observed.flatten(0, 1)  # [B * C, N]
        fill = -values.shape[1] % config.patch_length
        values, mask = F.pad(values, (fill, 0)), F.pad(mask, (fill, 0))
    batch, steps = values.shape[:2]
    ahead = getattr(config, "prediction_length", None) or 1
    times = getattr(config, "num_time_features", 0)
    clock = torch.linspace(-0.5, 0.5, steps + ahead, device=values.device).to(values.dtype)
    clock = clock[None, :, None].expand(batch, -1, times)
    inputs = {
        VALUES: values,
        "past_observed_mask": mask.to(values.dtype),
        "observed_mask": mask.to(values.dtype),
        "past_values_padding": (~mask).long(),
        "freq": torch.zeros(batch, 1, dtype=torch.long, device=values.device),
        "past_time_features": clock[:, :steps],
    }
    if model.config.is_encoder_decoder:  # whose output the encoder's does not depend on
        inputs["future_values"] = values.new_zeros(batch, ahead, *values.shape[2:])
        inputs["future_time_features"] = clock[:, steps:]
    output = model(**{name: value for name, value in inputs.items() if name in arguments})
    encoded = getattr(output, "encoder_last_hidden_state", None)
    tokens: Tensor = output.last_hidden_state if encoded is None else encoded
    return tokens
