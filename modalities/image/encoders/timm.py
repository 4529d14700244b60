"""Any model of timm as an encoder: patch tokens or the cells of a feature map.

Legend: `B` batch, `T` tokens, `D` width, `C` channels, `H`, `W` px of the prepared picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models import get_model_input_config, parse_model_name
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path
from torch import Tensor, nn

from ...base import Encoder, Features, LayerHook
from ...messages import did_you_mean
from ...submodules import hooked
from ..processor import TimmProcessor
from . import timm_features
from .grid import patch_targets
from .hooks import masked

TRANSFORM = ("crop_mode", "crop_pct", "interpolation", "mean", "std")


class Timm(Encoder):
    """A timm model, by the names that `timm.create_model` takes: `resnet18`,
    `vit_small_patch14_dinov2.lvd142m`, `hf-hub:org/name`, `local-dir:folder`.

    options: keywords of `create_model` (`img_size`, `depth`, ...). layer: take the tokens from
    this hidden layer (-2: the last but one), not from the last. transform: settings in place of
    those of the weights (`crop_pct`, `crop_mode`, `interpolation`, `mean`, `std`). mask_token:
    learn a token that replaces masked patches.
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any] | None = None,
        *,
        layer: int | None = None,
        transform: dict[str, Any] | None = None,
        mask_token: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        self.options = _complete(name, options or {})
        self.model = _create(name, self.options)
        self.dim = timm_features.width(self.model, layer)
        self.processor = _processor(name, self.model, transform or {})
        is_plain_vit = isinstance(self.model, timm_features.PLAIN)
        if mask_token and not is_plain_vit:
            raise ValueError(f"timm: {name} takes no mask token; a plain ViT, BEiT or EVA does")
        self.mask_token = nn.Parameter(torch.zeros(self.model.embed_dim)) if mask_token else None
        supported = (
            {"hidden_states"}
            | ({"layer_hooks"} if is_plain_vit else set())
            | ({"token_mask", "targets"} if mask_token else set())
        )
        self.supports = frozenset(supported)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Complete a name with a source by its configuration, from the folder or the hub."""
        name, model_options = options["name"], dict(options.get("options") or {})
        source, location = parse_model_name(name)
        if source is None or "pretrained_cfg" in model_options:
            return options
        read = load_model_config_from_hf if source == "hf-hub" else load_model_config_from_path
        config, architecture, arguments = read(location)
        pretrained_cfg = {**config, "architecture": architecture}
        return {
            **options,
            "options": {**(arguments or {}), **model_options, "pretrained_cfg": pretrained_cfg},
        }

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        source, location = parse_model_name(options["name"])
        if source == "local-dir":
            return any(Path(location).glob("*.safetensors")) or any(Path(location).glob("*.bin"))
        if source is not None:
            return True
        config = timm.get_pretrained_cfg(location)
        return config is not None and bool(config.has_weights)

    @classmethod
    def list_names(cls) -> Sequence[str]:
        return list(timm.list_models())

    def load(self) -> None:
        source, _ = parse_model_name(self.name)
        options = {k: v for k, v in self.options.items() if not (source and k == "pretrained_cfg")}
        filled = timm.create_model(self.name, **{**options, "num_classes": 0, "pretrained": True})
        self.model.load_state_dict(filled.state_dict())

    def blocks(self) -> Sequence[nn.Module]:
        return timm_features.blocks(self.model)

    def forward(
        self,
        pixel_values: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Features:
        """pixel_values `[B, C, H, W]` -> Features `[B, T, D]` with `grid (H / step, W / step)`.

        layers: blocks of a transformer, else stages, from 0 or from the end (-1).
        """
        with ExitStack() as stack:
            if layer_hooks or token_mask is not None:
                self._change(stack, token_mask, layer_hooks)
            if self.layer is None:
                return timm_features.encode(self.model, pixel_values, hidden_states)
            first, *layers = timm_features.hidden(
                self.model, pixel_values, (self.layer, *hidden_states)
            )
            return first.replace(hidden_states=tuple(layers))

    @property
    def target_dim(self) -> int:
        patch = self.model.patch_embed
        return int(patch.proj.weight.shape[1] * patch.patch_size[0] * patch.patch_size[1])

    def targets(self, pixel_values: Tensor) -> Features:
        """Return the values of each patch."""
        return patch_targets(pixel_values, self.model.patch_embed.patch_size[0])

    def _change(
        self,
        stack: ExitStack,
        token_mask: Tensor | None,
        layer_hooks: Mapping[int, LayerHook] | None,
    ) -> None:
        if layer_hooks and "layer_hooks" not in self.supports:
            raise ValueError(
                f"timm: {self.name} takes no layer_hooks; a plain ViT, BEiT or EVA does"
            )
        if token_mask is not None:
            if self.mask_token is None:
                raise ValueError(f"timm: {self.name} got a token mask; set mask_token: true")
            stack.enter_context(masked(self.model.patch_embed, token_mask, self.mask_token))
        stack.enter_context(hooked(self.blocks(), layer_hooks, self.model.num_prefix_tokens, None))


def _complete(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options that need no network any more; lists as the tuples that timm compares with."""
    if "pretrained" in options:
        raise ValueError("timm: options.pretrained; set weights: pretrained or weights: none")
    source, location = parse_model_name(name)
    if source == "hf-hub" and "pretrained_cfg" not in options:
        raise ValueError(f"timm: {name} is not resolved; build it from Timm.resolve(...)")
    if source is None and not timm.is_model(location.partition(".")[0]):
        near = did_you_mean(location, timm.list_models())
        raise ValueError(f"timm: no model {location!r}{near}")
    resolved = Timm.resolve({"name": name, "options": options})["options"]
    return {key: tuple(v) if isinstance(v, list) else v for key, v in resolved.items()}


def _create(name: str, options: dict[str, Any]) -> Any:
    source, _ = parse_model_name(name)
    architecture = options["pretrained_cfg"]["architecture"] if source else name
    try:
        return timm.create_model(architecture, **{**options, "num_classes": 0})
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"options: timm cannot build {name} with {options}: {text}") from error


def _processor(name: str, model: Any, changes: Mapping[str, Any]) -> TimmProcessor:
    """Return the weights' own settings, at the size that the built model takes."""
    wrong = sorted(set(changes) - set(TRANSFORM))
    if wrong:
        raise ValueError(f"timm: transform has no {wrong[0]!r}; it has {', '.join(TRANSFORM)}")
    size = tuple(get_model_input_config(model)["input_size"])
    if size[0] not in (1, 3):
        raise ValueError(f"timm: {name} takes {size[0]} channels, a picture has 3 (or 1, grey)")
    config = {**resolve_data_config({"input_size": size}, model=model), **changes}
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if size[0] == 1:  # a grey picture lies where the mean of its three channels would
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return TimmProcessor(
        size, mean, std, config["interpolation"], config["crop_pct"], config["crop_mode"]
    )
