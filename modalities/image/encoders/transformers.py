"""Any vision model of 🤗 transformers as an encoder: ViT, DINOv2, DINOv3, SigLIP, CLIP, Swin...
Of a model with several towers (CLIP, LLaVA, Qwen-VL) the vision tower is taken.

Legend: `B` batch, `T` tokens, `D` width, `C` channels, `H`, `W` px of the prepared picture.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...base import Encoder, Features
from ...submodules import freeze_unreached, lacks_values, outline, unreached
from ..processor import GRIDS, HubProcessor, grid_key
from . import hf
from .grid import (
    join_tiles,
    last_hidden,
    outline_grid,
    pair,
    read_clip_tokens,
    read_packed,
    read_tokens,
    tokens_of,
)
from .hooks import (
    fit_clips,
    forward_options,
    in_space,
    layer_outputs,
    match_arguments,
    patches_in_blocks,
    shape_of,
)
from .position_tables import fixed_size, side_lengths

LISTS = ("layer", "layers", "stages", "blocks", "block", "network")
"""Names of the list of layers in transformers' models."""


class TransformersVision(Encoder):
    """A vision model by its hub id (`org/name`, `org/name@revision`), its folder, or `config`.

    config: the model's configuration with its `model_type`; its values beside a `name`
    replaces values of the checkpoint. processor: the image processor's configuration, with
    its class as `image_processor_type`; without a name and without it, the model type's own
    processor, at the model's size where it has one. layer: take the tokens from this hidden
    layer (-2: the last but one, as LLaVA does), not from the last.
    """

    supports = frozenset({"hidden_states"})
    processor: HubProcessor

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
        self.whole = hf.whole_config(dict(config or {}))
        self.tower = hf.tower(self.whole)
        self.model: Any = hf.build(self.tower)
        self.arguments = tuple(inspect.signature(self.model.forward).parameters)
        self.processor = hf.processor(self.whole, self.tower.config, processor)
        self.packed, self.merge = any(a.endswith(GRIDS) for a in self.arguments), 1
        self.clip, self.processor = fit_clips(self.tower, self.processor)
        if self.packed:  # pictures of one number of patches are encoded together
            self.batch_invariant = False
            self.merge = patches_in_blocks(self.processor)
            self.shape = shape_of(self.tower, self.processor)
            freeze_unreached(self.model, self.shape.unused)
            windows = getattr(self.tower.config, "window_size", None)  # layers have another order
            self.supports = frozenset() if windows else self.supports
        else:
            self._fit_size()
        self.dim = self._width()
        self.supports = self.supports if self.blocks() else frozenset()

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        config = options.get("config")
        if not (name := options.get("name", "")):
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
        self.model.load_state_dict(hf.pretrained(self.tower, self.whole, self.model, self.name))

    def _fit_size(self) -> None:
        """Build a model that takes pictures of one size alone at the size of its processor."""
        config, size = self.model.config, fixed_size(self.processor)
        if size is None or size == side_lengths(config) or self._runs():
            return
        one = size[0] == size[1] and isinstance(getattr(config, "image_size", 0), int)
        config.image_size = size[0] if one else list(size)
        try:
            self.model = hf.build(self.tower)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"processor.size: found {size}, expected a square for {config.model_type}"
            ) from error

    def _runs(self) -> bool:
        """Return whether the model takes what its processor makes."""
        try:
            self._meta_features()
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False
        return True

    @torch.enable_grad()  # parameters freeze alike wherever a model is built
    def _meta_features(self) -> Features:
        """Run the model on a prepared picture, on the meta device."""
        model = self.model
        try:
            sample = self.processor.prepare(Image.new("RGB", (64, 64)))
            with torch.device("meta"):
                self.model = hf.build(self.tower).eval()
            inputs: dict[str, Any] = {n: value[None].to("meta") for n, value in sample.items()}
            features = self._features(**inputs)[0]
            tokens, pooled = features.tokens, features.pooled
            total = tokens.sum() + (0 if pooled is None else pooled.sum())
            if self.layer is None and total.requires_grad:
                freeze_unreached(model, unreached(self.model, total))
            return features
        finally:
            self.model = model

    def _width(self) -> int:
        """Return the width of the tokens, computed by the model on meta if it runs there."""
        if self.packed:
            return self.shape.dim if self.layer is None else self.shape.layer_dim
        try:
            return self._meta_features().dim
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

        A picture `[B, C, H, W]` or clip `[B, T, C, H, W]` has a `grid`; patches of several shapes
        (SigLIP 2: `[B, T, C * p * p]`, `pixel_attention_mask`, `spatial_shapes`) have a mask.
        hidden_states: blocks of a transformer, else stages, from 0 or from the end (-1).
        """
        features, hidden = self._features(pixel_values, hidden_states, **inputs)
        if features.dim != self.dim:
            raise ValueError(
                f"transformers: {type(self.model).__name__} returns tokens of width "
                f"{features.dim}, its configuration has {self.dim}; this model is not supported"
            )
        return features.replace(hidden_states=tuple(f.replace(pooled=None) for f in hidden))

    def _features(
        self, pixel_values: Tensor, hidden_states: Sequence[int] = (), **inputs: Tensor
    ) -> tuple[Features, list[Features]]:
        requested = [*([] if self.layer is None else [self.layer]), *hidden_states]
        run = self._packed if self.packed else self._pictures
        try:
            features, hidden = run(pixel_values, requested, inputs)
        except Exception as error:
            if self.packed or not lacks_values(error, pixel_values):
                raise
            features, hidden = self._shallow(pixel_values, requested, inputs)
        if self.layer is not None:
            return hidden.pop(0).replace(pooled=None), hidden
        return features, hidden

    def _shallow(
        self, pixels: Tensor, requested: Sequence[int], more: Mapping[str, Tensor]
    ) -> tuple[Features, list[Features]]:
        """Shapes alone, from one layer on the CPU, for models that do not run on meta."""
        model, layers = self.model, [0] * len(self._order(requested))
        try:
            with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
                self.model = self.tower.shallow(**hf.without_pooler(self.tower.kind)).eval()
                inputs = {key: torch.ones(v.shape, dtype=v.dtype) for key, v in more.items()}
                features, hidden = self._pictures(torch.zeros(pixels.shape), layers[:1], inputs)
        finally:
            self.model = model
        outlines = []
        for each in (features, *hidden * len(layers)):
            tensors = {key: getattr(each, key) for key in ("tokens", "pooled")}
            meta = {k: outline(model, v.to("meta")) for k, v in tensors.items() if v is not None}
            outlines.append(each.replace(mask=each.mask.to("meta"), **meta))
        return outlines[0], outlines[1:]

    def _packed(
        self, patches: Tensor, requested: Sequence[int], more: Mapping[str, Tensor]
    ) -> tuple[Features, list[Features]]:
        """patches `[B, N, ...]` of pictures of native resolution."""
        if (key := grid_key(more)) is None:
            raise ValueError("transformers: the processor returns no grid_thw, a model input")
        edge = float(pair(self.tower.config.patch_size)[0])
        if more[key].is_meta:
            return self._outline(patches, requested, edge)
        grids = more[key].tolist()
        inputs = match_arguments(self.arguments, more)
        with layer_outputs(self._chosen(requested)) as outputs:
            output = self.model(self.shape.sequence(patches), **inputs)
        hidden = [read_packed(outputs[i], grids, self.merge, edge) for i in self._order(requested)]
        return read_packed(tokens_of(output, grids), grids, self.merge, edge), hidden

    def _outline(
        self, patches: Tensor, requested: Sequence[int], edge: float
    ) -> tuple[Features, list[Features]]:
        """Shapes alone: the meta device has no grids."""
        rows, count = len(patches), self.shape.count(patches)
        grids = [[1, *outline_grid(count, self.merge)]] * rows
        sizes = [(count // self.shape.patches, self.shape.dim)]
        sizes += [(count, self.shape.layer_dim) for _ in self._order(requested)]
        tokens = (outline(self.model, patches.new_zeros(rows * n, dim)) for n, dim in sizes)
        features, *hidden = [read_packed(each, grids, 1, edge) for each in tokens]
        return features, hidden

    def _pictures(
        self, pixels: Tensor, requested: Sequence[int], more: Mapping[str, Tensor]
    ) -> tuple[Features, list[Features]]:
        tiles = pixels.shape[1] if pixels.ndim == 5 and not self.processor.frames else 0
        if tiles:
            pixels = pixels.flatten(0, 1)
        mask = more["pixel_attention_mask"].bool() if "pixel_attention_mask" in more else None
        size = (pixels.shape[-2], pixels.shape[-1])
        options = forward_options(self.model, self.arguments, pixels, more)
        with layer_outputs(self._chosen(requested)) as outputs:
            output = self.model(pixels, **options)
        last = last_hidden(output)
        if last is None:
            raise ValueError(f"transformers: {type(self.model).__name__} returns no tokens")
        if last.ndim == 3 and last.shape[0] == 1 < pixels.shape[0]:  # all pictures in one sequence
            last = last.view(pixels.shape[0], -1, last.shape[-1])
            outputs = {i: o.view(last.shape) for i, o in outputs.items()}
        model, stages = self.model, len(self.blocks())

        def located(states: Tensor, stage: int) -> Features:
            if self.clip is not None:
                return read_clip_tokens(states, self.clip, size)
            return read_tokens(model, in_space(model, states, stage, stages, size), size, mask)

        hidden = [located(outputs[i], i) for i in self._order(requested)]
        features = located(last, -1)
        pooled = getattr(output, "pooler_output", None)
        shape = (features.tokens.shape[0], features.dim)
        if isinstance(pooled, Tensor) and pooled.flatten(1).shape == shape:
            features = features.replace(pooled=pooled.flatten(1))
        if tiles:
            return join_tiles(features, tiles), [join_tiles(layer, tiles) for layer in hidden]
        return features, hidden

    def _chosen(self, layers: Sequence[int]) -> dict[int, nn.Module]:
        blocks = self.blocks() if layers else ()
        return {index: blocks[index] for index in self._order(layers)}

    def _order(self, layers: Sequence[int]) -> list[int]:
        count = len(self.blocks())
        for layer in layers:
            if not -count <= layer < count:
                name = self.name or self.model.config.model_type
                raise ValueError(
                    f"transformers: layer {layer} was requested, {name} has {count} layers"
                )
        return [layer % count for layer in layers]
