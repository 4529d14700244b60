"""Mask tokens and outputs of layers in a model of a library, for the time of one forward.

Legend: `B` batch, `T` tokens of the picture, `D` width.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...submodules import Tower, unreached
from ..processor import HubProcessor, grid_key
from .grid import ClipTokens, Size, block_order, clip_tokens, pair, tokens_of


@contextmanager
def masked(embed: nn.Module, token_mask: Tensor | None, mask_token: Tensor) -> Iterator[None]:
    """Where `token_mask [B, T]` is True, `embed` returns `mask_token [D]` instead of the patch."""
    if token_mask is None:
        yield
        return

    def run(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        patches = output.flatten(1, -2)  # [B, T, D], from [B, h, w, D] too
        mixed = torch.where(token_mask[..., None], mask_token.to(patches.dtype), patches)
        return mixed.view(output.shape)

    handle = embed.register_forward_hook(run)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def layer_outputs(layers: Mapping[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Collect what layers return in a forward, by their numbers. What models list as their hidden
    states begins with the embedding in some, and ends with the last one twice in others."""
    outputs: dict[int, Tensor] = {}

    def note(index: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            while isinstance(output, (tuple, list)):
                output = output[0]
            outputs[index] = output

        return hook

    handles = []
    for index, block in layers.items():
        while isinstance(block, nn.ModuleList):  # a stage that is a list of blocks
            block = block[-1]
        handles.append(block.register_forward_hook(note(index)))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def in_space(model: Any, hidden: Tensor, stage: int, stages: int, size: Size) -> Tensor:
    """Return the tokens of a stage in the order of space: a model that takes them out of it
    (Hiera) has a `reroll`, made for one picture size."""
    for module in model.modules():
        if hasattr(module, "reroll"):
            encoder: Any = copy.copy(module)
            native_size = pair(model.config.image_size)
            encoder.schedule = {
                i: (strides, [n * s // o for n, s, o in zip(grid, size, native_size, strict=True)])
                for i, (strides, grid) in encoder.schedule.items()
            }
            rolled: Tensor = encoder.reroll(hidden, stage_idx=stage % stages)
            return rolled.permute(0, 3, 1, 2)
    return hidden


def match_arguments(names: Sequence[str], sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a processor's output as keyword arguments of a forward with these arguments:
    `image_grid_thw` goes to `grid_thw`; other values are left out."""
    matched: dict[str, Tensor] = {}
    for key, value in sample.items():
        name = next((n for n in names if n == key or key.endswith(f"_{n}")), None)
        if name is not None:
            matched[name] = value
    return matched


def forward_options(
    model: Any, arguments: Sequence[str], pixels: Tensor, inputs: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return the inputs of a model besides the pixels, of those that a processor returned and
    `arguments` name: the model sees the whole picture, in order."""
    options: dict[str, Any] = dict(match_arguments(arguments, inputs))
    options |= {name: True for name in arguments if name.startswith("skip_")}  # V-JEPA's predictor
    if "spatial_shapes" in inputs and pixels.is_meta:  # which it loops over
        shape = torch.tensor([1, pixels.shape[1]], device="cpu")
        options["spatial_shapes"] = shape.expand(len(pixels), 2)
        options["pixel_attention_mask"] = None  # and looks whether all are real
    size = tuple(pixels.shape[-2:])
    other = size != pair(getattr(model.config, "image_size", None) or size)
    if other and "interpolate_pos_encoding" in arguments and pixels.ndim == 4:
        options["interpolate_pos_encoding"] = True
    if "noise" in arguments and hasattr(model.config, "mask_ratio"):
        # A masked autoencoder shows its patches in the order of the noise.
        patch = pair(model.config.patch_size)
        count = math.prod(s // p for s, p in zip(size, patch, strict=True))
        order = torch.arange(count, device=pixels.device, dtype=pixels.dtype)
        options["noise"] = order.expand(len(pixels), count)
    return options


@torch.no_grad()
def frames_last(tower: Tower, processor: HubProcessor, clip: ClipTokens) -> bool:
    """Return whether a video model lists the frames of a patch one after the other (TimeSformer),
    not the patches of a frame: seen from the tokens, before any attention, that change with the
    last frame. The model has one layer, on the CPU."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        model = tower.shallow().eval()
        pixels = processor.prepare(Image.new("RGB", (64, 64)))["pixel_values"][None]
        count = clip.count((pixels.shape[-2], pixels.shape[-1]))
        embeddings: list[Tensor] = []

        def note(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] >= count:
                embeddings.append(output)

        for module in model.modules():
            module.register_forward_hook(note)
        model(pixels)
        calls = len(embeddings)
        pixels[:, -1] += 1
        model(pixels)
    if not calls:
        raise ValueError(f"transformers: {type(model).__name__} returns no tokens of clips")
    changed = (embeddings[0] != embeddings[calls]).any(-1)[0, -count:]
    return bool(changed[clip.steps - 1])


def fit_clips(tower: Tower, processor: HubProcessor) -> tuple[ClipTokens | None, HubProcessor]:
    """Return how a model lists the tokens of a clip, and a processor that makes such clips; None
    and the processor as it is for a model of pictures."""
    clip = clip_tokens(tower.config)
    if clip is None:
        return None, processor
    clips = replace(processor, frames=clip.frames)
    try:
        return replace(clip, frames_last=frames_last(tower, clips, clip)), clips
    except (RuntimeError, TypeError, ValueError):  # it takes pictures
        return None, processor


def patches_in_blocks(processor: HubProcessor) -> int:
    """Return the edge `m` of the blocks in which a processor lists its patches; 1 if row by row.

    It is seen from a picture that grows brighter from top to bottom.
    """
    merge = int(getattr(processor.transform, "merge_size", 1) or 1)
    rows = np.repeat(np.linspace(0, 255, 448, dtype=np.uint8)[:, None], 448, 1)
    with torch.device("cpu"):
        sample = processor.prepare(Image.fromarray(np.stack([rows] * 3, -1)))
        key = grid_key(sample)
        if merge == 1 or key is None:
            return 1
        height, width = (int(n) for n in sample[key][-2:])
        bright = sample["pixel_values"].flatten(1).mean(1)
        if len(bright) != height * width:  # already merged
            return 1
        blocks = bright[block_order(height, width, merge)].view(height, width)
        plain = bright.view(height, width)
        return merge if float(blocks.std(1).mean()) < float(plain.std(1).mean()) else 1


@dataclass(frozen=True)
class Shape:
    """What a packed tower makes of patches: the width of a token and of a layer's, and how many
    patches of a token. unused: parameters that the tokens do not depend on. form: of its input."""

    dim: int
    layer_dim: int
    patches: int
    unused: frozenset[str]
    form: str = "rows"

    def sequence(self, patches: Tensor) -> Tensor:
        """Return the input of the tower for patches of several pictures."""
        return one_sequence(patches, self.form)

    def count(self, patches: Tensor) -> int:
        """Return the number of patches of a picture of a batch."""
        strip = self.form == "strip"
        return int(patches.shape[-1] // patches.shape[-2] if strip else patches.shape[1])


def one_sequence(patches: Tensor, form: str) -> Tensor:
    """Patches of pictures as the sequence that a packed tower reads: `rows`, `[B, N, ...]` one
    after the other; `batch`, the same as a batch of one; `strip`, pictures `[B, 1, C, p, N p]` side
    by side."""
    if form == "strip":
        return torch.cat(list(patches.flatten(0, 1)), -1)[None]
    rows = patches.flatten(0, 1)
    return rows[None] if form == "batch" else rows


@torch.enable_grad()
def shape_of(tower: Tower, processor: HubProcessor) -> Shape:
    """Ask the tower with one layer, on the CPU: its forward cannot be walked on the meta device."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        model: Any = tower.shallow().eval()
        sample = processor.prepare(Image.new("RGB", (64, 64)))
        key = grid_key(sample) or ""
        names = list(inspect.signature(model.forward).parameters)
        values = match_arguments(names, {key: sample[key][None]})
        widths: list[int] = []
        for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList)):
            for layer in layers:
                layer.register_forward_hook(lambda m, a, out: widths.append(_first(out).shape[-1]))
        pixels = sample["pixel_values"][None]
        forms = ("strip",) if key.endswith("target_sizes") else ("rows", "batch")
        form, output = _first_that_runs(model, pixels, forms, values)
        tokens = tokens_of(output, [sample[key].tolist()])
        unused = unreached(model, tokens)
    count, width = tokens.shape[:-1].numel(), int(tokens.shape[-1])
    patches = max(1, math.prod(sample[key].tolist()) // count)
    return Shape(width, (widths or [width])[0], patches, unused, form)


def _first_that_runs(
    model: nn.Module, pixels: Tensor, forms: Sequence[str], values: Mapping[str, Tensor]
) -> tuple[str, Any]:
    """Return the first form of the patches that a model takes, and its output."""
    errors: list[Exception] = []
    for form in forms:
        try:
            return form, model(one_sequence(pixels, form), **values)
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _first(output: Any) -> Tensor:
    while isinstance(output, (tuple, list)):
        output = output[0]
    return cast(Tensor, output)
