"""Any vision model of 🤗 transformers as an encoder: ViT, DINOv2, DINOv3, SigLIP, CLIP, Swin...

Of a model with several towers (CLIP, SigLIP) the vision tower is taken.

Legend: `B` batch, `T` tokens, `D` width, `C` channels, `H`, `W` px of the prepared picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...base import Encoder, Features
from ...quiet import quiet_loading
from . import hf
from .grid import Size, fit, from_map

LISTS = ("layer", "layers", "stages", "blocks")
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
        self.dim = hf.width(self.model.config, layer)
        self.processor = hf.processor(self.model.config, processor)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        name, config = options.get("name", ""), options.get("config")
        if not name:
            return options
        config, processor = hf.find(name, config, options.get("processor"), local=False)
        return {**options, "config": config, "processor": processor}

    @classmethod
    def carries_weights(cls, options: Mapping[str, Any]) -> bool:
        place = hf.parse_repo_id(options.get("name", ""))["pretrained_model_name_or_path"]
        if not Path(place).is_dir():
            return bool(place)
        return any(any(Path(place).glob(kind)) for kind in ("*.safetensors", "*.bin"))

    def load(self) -> None:
        """Fill from the checkpoint; refused where it lacks a weight of this model."""
        if not self.name:
            super().load()
        kind: Any = type(self.model)
        with quiet_loading():
            filled, report = kind.from_pretrained(
                **hf.parse_repo_id(self.name),
                config=self.model.config,
                dtype=torch.float32,
                output_loading_info=True,
                **hf.without_pooler(kind),
            )
        missing = sorted(report["missing_keys"])
        if missing:
            raise ValueError(
                f"transformers: {self.name} lacks {len(missing)} weights of {kind.__name__}, "
                f"{missing[0]} among them; name a checkpoint of that model"
            )
        self.model.load_state_dict(filled.state_dict())

    def blocks(self) -> Sequence[nn.Module]:
        found = [
            (name.count("."), module)
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in LISTS
        ]
        return list(min(found, key=lambda pair: pair[0])[1]) if found else ()

    def forward(
        self, pixel_values: Tensor, hidden_states: Sequence[int] = (), **more: Tensor
    ) -> Features:
        """What the processor gave -> Features `[B, T, D]`.

        A picture `[B, C, H, W]` has a `grid`; patches of pictures of several shapes (SigLIP 2:
        `[B, T, C * p * p]`, with `pixel_attention_mask` and `spatial_shapes`) have a mask.
        layers: blocks of a transformer, else stages, from 0 or from the end (-1).
        """
        mask = more["pixel_attention_mask"].bool() if "pixel_attention_mask" in more else None
        if pixel_values.is_meta and "spatial_shapes" in more:
            return self._outline(pixel_values, len(hidden_states))
        wanted = [*([] if self.layer is None else [self.layer]), *hidden_states]
        output = self.model(pixel_values=pixel_values, output_hidden_states=bool(wanted), **more)
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        hidden = [self._read(self._hidden(output, i), size, mask) for i in wanted]
        if self.layer is not None:
            features = hidden.pop(0).replace(pooled=None)
        else:
            features = self._read(output.last_hidden_state, size, mask)
            pooled = getattr(output, "pooler_output", None)
            if pooled is not None:
                features = features.replace(pooled=pooled.flatten(1))
        if features.dim != self.dim:
            raise ValueError(
                f"transformers: {type(self.model).__name__} gives tokens of width {features.dim}, "
                f"its configuration says {self.dim}; this model is not supported"
            )
        return features.replace(hidden_states=tuple(f.replace(pooled=None) for f in hidden))

    def _hidden(self, output: Any, layer: int) -> Tensor:
        """Hidden states begin with the embedding in most models: count from the end."""
        count = len(self.blocks()) or len(output.hidden_states) - 1
        if not -count <= layer < count:
            raise ValueError(f"transformers: layer {layer} of {self.name or 'config'}: {count}")
        found: Tensor = output.hidden_states[layer if layer < 0 else layer - count]
        return found

    def _read(self, hidden: Tensor, size: Size, mask: Tensor | None) -> Features:
        """`[B, D, h, w]` or `[B, P + T, D]` -> Features; the first of `P` tokens is CLS."""
        if mask is not None:
            return Features(hidden.masked_fill(~mask[..., None], 0), mask)
        if hidden.ndim == 4:
            return from_map(hidden, size, round(size[0] / hidden.shape[2]))
        patch = getattr(self.model.config, "patch_size", 1)
        patch = patch if isinstance(patch, int) else patch[0]
        registers = getattr(self.model.config, "num_register_tokens", 0)
        halvings = 7 if hasattr(self.model.config, "depths") else 1  # stages halve the grid
        for stride in (patch * 2**k for k in range(halvings)):
            found = fit(hidden.shape[1], size, stride, (0, 1, 2, 1 + registers))
            if found is not None:
                grid, prefix = found
                patches = hidden[:, prefix:].transpose(1, 2).unflatten(2, grid)
                return from_map(patches, size, stride, pooled=hidden[:, 0] if prefix else None)
        raise ValueError(
            f"transformers: {type(self.model).__name__} gives {hidden.shape[1]} tokens for "
            f"{size[0]} x {size[1]} px in patches of {patch}: no grid has so many; choose a size "
            f"that {patch} divides, or another model"
        )

    def _outline(self, pixel_values: Tensor, hidden_states: int) -> Features:
        """Shapes alone: on the meta device there are no `spatial_shapes` to loop over."""
        tokens = pixel_values.new_empty(*pixel_values.shape[:2], self.dim)
        one = Features.dense(tokens)
        pooled = tokens[:, 0] if getattr(self.model, "use_head", False) else None
        return one.replace(pooled=pooled, hidden_states=(one,) * hidden_states)
