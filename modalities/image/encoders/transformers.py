"""Any vision model of 🤗 transformers as an encoder: ViT, DINOv2, DINOv3, SigLIP, CLIP, Swin...

Of a model with several towers (CLIP, SigLIP) the vision tower is taken.

Legend: `B` batch, `T` tokens, `D` width, `C` channels, `H`, `W` px of the prepared picture.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...base import Encoder, Features
from . import hf
from .grid import Size, fit_any, from_map
from .position_tables import fixed_size, side_lengths

LISTS = ("layer", "layers", "stages", "blocks", "block", "network")
"""What transformers' models call the list of their layers."""


class TransformersVision(Encoder):
    """A vision model by its hub id (`org/name`, `org/name@revision`), its folder, or `config`.

    config: the model's configuration with its `model_type`; what it says beside a `name`
    replaces values of the checkpoint. processor: the image processor's configuration, with
    its class as `image_processor_type`; without a name and without it, the model type's own
    processor, at the model's size where it has one. layer: take the tokens from this hidden
    layer (-2: the last but one, as LLaVA does), not from the last.
    """

    supports = frozenset({"hidden_states"})

    def __init__(
        self,
        name: str = "",
        config: dict[str, Any] | None = None,
        processor: dict[str, Any] | None = None,
        *,
        layer: int | None = None,
    ) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        if "model_type" not in (config or {}) or (name and processor is None):
            config, processor = hf.find(name, config, processor, local=True)
        self.model = hf.build(hf.tower(dict(config or {})))
        self.arguments = frozenset(inspect.signature(self.model.forward).parameters)
        self.processor = hf.processor(self.model.config, processor)
        self._fit_size()
        self.dim = self._width()

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        name, config = options.get("name", ""), options.get("config")
        if not name:
            return options
        try:
            config, processor = hf.find(name, config, options.get("processor"), local=False)
        except ValueError:
            if hf.is_complete(config, options.get("processor")):
                return options  # of a run that holds the weights, whose source is gone
            raise
        return {**options, "config": config, "processor": processor}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        location = hf.parse_repo_id(options.get("name", ""))["pretrained_model_name_or_path"]
        if not Path(location).is_dir():
            return bool(location)
        return any(any(Path(location).glob(kind)) for kind in ("*.safetensors", "*.bin"))

    def load(self) -> None:
        """Fill from the checkpoint; refused where it lacks a weight of this model."""
        if not self.name:
            super().load()
        self.model.load_state_dict(hf.pretrained(self.model, self.name))

    def _fit_size(self) -> None:
        """Build a model that takes pictures of one size alone at the size of its processor."""
        config, size = self.model.config, fixed_size(self.processor)
        if size is None or size == side_lengths(config) or self._runs():
            return
        config.image_size = size[0] if size[0] == size[1] else list(size)
        try:
            self.model = hf.build(config)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"processor.size: {config.model_type} takes no pictures of {size[0]} x {size[1]} "
                "px; give it square ones"
            ) from error

    def _runs(self) -> bool:
        """Return whether the model takes what its processor makes."""
        try:
            self._outline()
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False
        return True

    def _outline(self) -> Features:
        """Run the model on a prepared picture, on the meta device."""
        model = self.model
        try:
            sample = self.processor.prepare(Image.new("RGB", (64, 64)))
            with torch.device("meta"):
                self.model = hf.build(model.config).eval()
            inputs: dict[str, Any] = {n: value[None].to("meta") for n, value in sample.items()}
            return self._features(**inputs)[0]
        finally:
            self.model = model

    def _width(self) -> int:
        """Return the width of the tokens: asked of the model on the meta device, where it can
        run."""
        try:
            return self._outline().dim
        except (RuntimeError, TypeError, NotImplementedError, AttributeError):
            return hf.width(self.model.config, self.layer)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the layers or stages from input to output."""
        candidates = [
            (name.count("."), module)
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in LISTS
        ]
        return list(min(candidates, key=lambda pair: pair[0])[1]) if candidates else ()

    def forward(
        self, pixel_values: Tensor, hidden_states: Sequence[int] = (), **inputs: Tensor
    ) -> Features:
        """What the processor gave -> Features `[B, T, D]`.

        A picture `[B, C, H, W]` has a `grid`; patches of pictures of several shapes (SigLIP 2:
        `[B, T, C * p * p]`, with `pixel_attention_mask` and `spatial_shapes`) have a mask.
        hidden_states: blocks of a transformer, else stages, from 0 or from the end (-1).
        """
        features, hidden = self._features(pixel_values, hidden_states, **inputs)
        if features.dim != self.dim:
            raise ValueError(
                f"transformers: {type(self.model).__name__} gives tokens of width {features.dim}, "
                f"its configuration says {self.dim}; this model is not supported"
            )
        return features.replace(hidden_states=tuple(f.replace(pooled=None) for f in hidden))

    def _features(
        self, pixel_values: Tensor, hidden_states: Sequence[int] = (), **inputs: Tensor
    ) -> tuple[Features, list[Features]]:
        mask = inputs["pixel_attention_mask"].bool() if "pixel_attention_mask" in inputs else None
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        requested = [*([] if self.layer is None else [self.layer]), *hidden_states]
        options = self._options(pixel_values, inputs)
        with self._outputs(requested) as outputs:
            output = self.model(pixel_values, **options)
        if getattr(output, "last_hidden_state", None) is None:
            raise ValueError(f"transformers: {type(self.model).__name__} gives no tokens")
        hidden = [
            self._read(self._in_space(outputs[i], i, size), size, mask)
            for i in self._order(requested)
        ]
        if self.layer is not None:
            return hidden.pop(0).replace(pooled=None), hidden
        last = self._in_space(output.last_hidden_state, -1, size)
        features = self._read(last, size, mask)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            features = features.replace(pooled=pooled.flatten(1))
        return features, hidden

    def _options(self, pixel_values: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what the model is called with beside the pixels: it sees the whole picture, in
        order."""
        options: dict[str, Any] = dict(inputs)
        if "spatial_shapes" in inputs and pixel_values.is_meta:  # which it loops over
            shape = torch.tensor([1, pixel_values.shape[1]], device="cpu")
            options["spatial_shapes"] = shape.expand(len(pixel_values), 2)
            options["pixel_attention_mask"] = None  # and looks whether all are real
        size, model_size = (
            tuple(pixel_values.shape[-2:]),
            getattr(self.model.config, "image_size", None),
        )
        model_size = (
            (model_size, model_size) if isinstance(model_size, int) else tuple(model_size or size)
        )
        if (
            size != model_size
            and "interpolate_pos_encoding" in self.arguments
            and pixel_values.ndim == 4
        ):
            options["interpolate_pos_encoding"] = True
        if "noise" in self.arguments and hasattr(self.model.config, "mask_ratio"):
            # A masked autoencoder shows its patches in the order of the noise.
            patch = _pair(self.model.config.patch_size)
            count = math.prod(s // p for s, p in zip(size, patch, strict=True))
            order = torch.arange(count, device=pixel_values.device, dtype=pixel_values.dtype)
            options["noise"] = order.expand(len(pixel_values), count)
        return options

    def _order(self, layers: Sequence[int]) -> list[int]:
        count = len(self.blocks())
        for layer in layers:
            if not -count <= layer < count:
                name = self.name or self.model.config.model_type
                raise ValueError(
                    f"transformers: layer {layer} was asked for, {name} has {count} layers"
                )
        return [layer % count for layer in layers]

    @contextlib.contextmanager
    def _outputs(self, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        """What layers give in a forward. What models list as their hidden states begins with the
        embedding in some, and ends with the last one twice in others."""
        outputs: dict[int, Tensor] = {}

        def hook_of(index: int) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                while isinstance(output, (tuple, list)):
                    output = output[0]
                outputs[index] = output

            return hook

        handles = []
        for index in set(self._order(layers)):
            block = self.blocks()[index]
            while isinstance(block, nn.ModuleList):  # a stage that is a list of blocks
                block = block[-1]
            handles.append(block.register_forward_hook(hook_of(index)))
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()

    def _in_space(self, hidden: Tensor, stage: int, size: Size) -> Tensor:
        """Return the tokens of a stage in the order of space: a model that takes them out of it
        (Hiera) has a `reroll`, made for one picture size."""
        for module in self.model.modules():
            if hasattr(module, "reroll"):
                encoder: Any = copy.copy(module)
                model_size, stages = _pair(self.model.config.image_size), len(self.blocks())
                encoder.schedule = {
                    i: (
                        strides,
                        [n * s // o for n, s, o in zip(grid, size, model_size, strict=True)],
                    )
                    for i, (strides, grid) in encoder.schedule.items()
                }
                rolled: Tensor = encoder.reroll(hidden, stage_idx=stage % stages)
                return rolled.permute(0, 3, 1, 2)
        return hidden

    def _read(self, hidden: Tensor, size: Size, mask: Tensor | None) -> Features:
        """`[B, D, h, w]`, `[B, h, w, D]` or `[B, P + T, D]` -> Features; the first of `P` tokens
        is CLS."""
        if mask is not None:
            return Features(hidden.masked_fill(~mask[..., None], 0), mask)
        if hidden.ndim == 4:
            first, second, third = hidden.shape[1:]  # a map has the picture's proportions
            last = size[0] * second == size[1] * first and size[0] * third != size[1] * second
            hidden = hidden.permute(0, 3, 1, 2) if last else hidden
            return from_map(hidden, size, round(size[0] / hidden.shape[2]))
        config = self.model.config
        if trailing := getattr(config, "num_detection_tokens", 0):  # of YOLOS
            hidden = hidden[:, :-trailing]
        registers = getattr(config, "num_register_tokens", 0)
        leading = (0, 1, 2, 1 + registers, getattr(config, "n_cls_tokens", 1))
        edge = _pair(getattr(config, "patch_stride", None) or getattr(config, "patch_size", 1))[0]
        edge = edge if isinstance(edge, int) else 1
        halvings = 7 if hasattr(config, "depths") else 1  # stages halve the grid
        fitted = fit_any(hidden.shape[1], size, [edge * 2**k for k in range(halvings)], leading)
        if fitted is None:
            raise ValueError(
                f"transformers: {type(self.model).__name__} gives {hidden.shape[1]} tokens for "
                f"{size[0]} x {size[1]} px in patches of {edge}: no grid has so many; choose a "
                f"size that {edge} divides, or another model"
            )
        grid, prefix, stride = fitted
        patches = hidden[:, prefix:].transpose(1, 2).unflatten(2, grid)
        return from_map(patches, size, stride, pooled=hidden[:, 0] if prefix else None)


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)
