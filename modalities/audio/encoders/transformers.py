"""Any model of 🤗 transformers that hears: its encoder, if it is a pair or has several towers.

Inputs and outputs are detected: the arguments of the forward are matched with those
the feature extractor returns, and a copy with one layer shows how tokens follow on the sound.

Legend: `B` batch, `N` steps of the input along time, `M` values of a step, `T` tokens, `D` width.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel

from ...base import Features, Sample
from ...submodules import (
    Tower,
    freeze_unreached,
    lacks_values,
    outline,
    tower_of,
    unreached,
)
from ..hf_extractor import AnyExtractor, settings_of_family
from .hf import HubSound, Json, call, encoder_of, tokens_of
from .padding import in_time, layer_indices, up_to

SECTIONS = ("audio_config", "encoder_config", "speech_config")
"""Where the configuration of a model of several towers has that of its sound."""
MASKING = ("mask_time_prob", "mask_feature_prob")
SECONDS = (1.0, 2.0)
"""Durations of the sounds by which a model's tokens are measured."""


@dataclass(frozen=True)
class Shape:
    """How tokens follow on a sound. inner: the submodule that is run, empty for the model. axis: of
    time in the output. count: tokens of `SECONDS[0]` s. step, origin, window: s; windowed: sounds
    are padded to one length. layers: path of the list of layers; hidden_states: they have as many
    tokens. time, rate: the axis of time in a sample's values, and its steps a second. unused:
    parameters that the tokens do not depend on."""

    dim: int
    inner: str
    axis: int
    count: int
    step: float
    origin: float
    windowed: bool
    window: float
    layers: str
    hidden_states: bool
    time: int
    rate: float
    unused: frozenset[str]


class TransformersSound(HubSound):
    """A model by its hub id, its folder, or `config` with its `model_type`. Options: see
    `HubSound`.

    Sounds of one length are encoded together, so that padding changes nothing. A sound longer than
    the feature extractor's window is refused: cut it before.
    """

    kind = "transformers"
    processor: AnyExtractor
    batch_invariant = False

    def __init__(
        self,
        name: str = "",
        config: dict[str, Any] | None = None,
        processor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, config, processor)
        self.shape, self.processor = fitted(self.tower, self.processor)
        self.processor = replace(self.processor, most=self.shape.window)
        self.model = self.part(self.model) if self.shape.inner else self.model
        for key in MASKING:  # drawn by numpy in training, on top of the recipe's
            if hasattr(getattr(self.model, "config", None), key):
                setattr(self.model.config, key, 0.0)
        freeze_unreached(self.model, self.shape.unused)
        self.dim = self.shape.dim
        self.arguments = tuple(inspect.signature(self.model.forward).parameters)
        self.supports = frozenset({"hidden_states"} if self.shape.hidden_states else ())

    def _configuration(self, settings: Json) -> Any:
        kind = settings.get("model_type")
        if kind not in CONFIG_MAPPING:
            raise ValueError(
                f"config: found model_type {kind!r}, which transformers does not have; name a "
                "folder or hub id, or give a config with its model_type"
            )
        config = CONFIG_MAPPING[kind].from_dict(settings)
        self.tower: Tower = tower_of(config, SECTIONS)
        return config

    def build(self) -> Any:
        model = encoder_of(self.tower.build())
        if next(iter(inspect.signature(model.forward).parameters)) == "input_ids":
            raise ValueError(
                f"config: the encoder of {self.config.model_type} reads ids of text and no sound; "
                "name a model that hears"
            )
        # transformers makes mask tokens by a call that no device context reaches.
        return model.to("meta") if torch.empty(0).is_meta else model

    def loader(self) -> Any:
        return AutoModel

    def part(self, model: Any) -> Any:
        """Return the encoder of the whole model, or of what `build` returned."""
        path = self.tower.path
        tower = model.get_submodule(path) if path and _has(model, path) else model
        inner = getattr(getattr(self, "shape", None), "inner", "")
        encoder = encoder_of(tower)
        return encoder.get_submodule(inner) if inner and _has(encoder, inner) else encoder

    def default_settings(self) -> Json:
        return settings_of_family(self.config.model_type, self.tower.config)

    def extractor(self, settings: Json) -> AnyExtractor:
        return AnyExtractor(settings["feature_extractor_type"], settings)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.model.get_submodule(self.shape.layers)) if self.shape.layers else ()

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Stack samples of equal shapes: `values [B, ...]`, what else the extractor returned, and
        `mask [B, T]` of the tokens of the longest sound if sounds are padded to a window."""
        keys = (key for key in samples[0] if key != "seconds")
        batch = {key: torch.stack([sample[key] for sample in samples]) for key in keys}
        if self.shape.windowed:
            seconds = torch.stack([sample["seconds"] for sample in samples])
            counts = (seconds / self.shape.step - 1e-4).ceil().long().clamp(1, self.shape.count)
            batch["mask"] = up_to(counts, int(counts.max()))
        return batch

    def forward(
        self,
        values: Tensor,
        hidden_states: Sequence[int] = (),
        mask: Tensor | None = None,
        **more: Tensor,
    ) -> Features:
        """values `[B, ...]`, mask `[B, T]` of the tokens that hear the sound -> tokens `[B, T, D]`.

        hidden_states: blocks by place, 0 the first, -1 the last.
        """
        order = layer_indices(hidden_states, len(self.blocks())) if hidden_states else []
        try:
            with self._outputs(order) as outputs:
                last = tokens_of(call(self.model, self.arguments, values, more))
        except Exception as error:
            if not lacks_values(error, values):
                raise
            last, outputs = self._outline(values, order)
        tokens = last.movedim(self.shape.axis, 1)
        if mask is None:
            mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        longest = mask.shape[1]
        layers = [outputs[i][:, :longest] for i in order]
        return in_time(tokens[:, :longest], mask, self.shape.step, self.shape.origin, layers)

    def _outline(self, values: Tensor, order: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Shapes alone, for the meta device."""
        count = self.shape.count
        if not self.shape.windowed:
            seconds = values.shape[1 + self.shape.time] / self.shape.rate
            count += round((seconds - SECONDS[0]) / self.shape.step)
        tokens = outline(self.model, values.new_zeros(len(values), max(1, count), self.dim))
        return tokens.movedim(1, self.shape.axis), dict.fromkeys(order, tokens)

    @contextlib.contextmanager
    def _outputs(self, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        outputs: dict[int, Tensor] = {}
        blocks, handles = self.blocks(), []
        for index in set(layers):
            note = _noting(outputs, index)
            handles.append(blocks[index].register_forward_hook(note))
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


def _noting(outputs: dict[int, Tensor], index: int) -> Any:
    def note(module: nn.Module, args: Any, output: Any) -> None:
        outputs[index] = tokens_of(output)

    return note


def _has(model: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())


def fitted(tower: Tower, extractor: AnyExtractor) -> tuple[Shape, AnyExtractor]:
    """Return how tokens follow on a sound, and the extractor, which returns a mask if the model
    does not run without one."""
    try:
        return shape_of(tower, extractor), extractor
    except Exception:
        masked = replace(extractor, masks=True)
        with contextlib.suppress(Exception):  # the first error says what is wrong
            return shape_of(tower, masked), masked
        raise


@torch.enable_grad()
def shape_of(tower: Tower, extractor: AnyExtractor) -> Shape:
    """Ask a copy of the encoder with one layer, on the CPU, how tokens follow on a sound."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        model = encoder_of(tower.shallow().eval())
        try:
            return _shape(model, "", extractor)
        except ValueError:
            if not isinstance(inner := getattr(model, "encoder", None), nn.Module):
                raise
            return _shape(inner, "encoder", extractor)


def _shape(model: nn.Module, inner: str, extractor: AnyExtractor) -> Shape:
    runs = [_run(model, extractor, seconds) for seconds in SECONDS]
    (tokens, first, layers), (longer, second, _) = runs
    windowed = first == second
    axis = next((a for a in (1, 2) if tokens.shape[a] != longer.shape[a]), 1)
    time = next((i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), 0)
    count, seconds = int(tokens.shape[axis]), SECONDS[1] - SECONDS[0]
    if windowed:
        window = extractor.window(max(first))
        step = window / count
        origin = step / 2
    else:
        window = 0.0
        step = seconds / max(1, longer.shape[axis] - count)
        step = math.ceil(step * extractor.rate - 0.5) / extractor.rate
        origin = max(0.0, (SECONDS[0] - (count - 1) * step) / 2)
    alike = [p for p, shape in layers.items() if axis == 1 and shape[:2] == tokens.shape[:2]]
    return Shape(
        dim=int(tokens.shape[3 - axis]),
        inner=inner,
        axis=axis,
        count=count,
        step=step,
        origin=origin,
        windowed=windowed,
        window=window,
        layers=[*layers, *alike][-1] if layers else "",
        hidden_states=bool(alike),
        time=time,
        rate=(second[time] - first[time]) / seconds,
        unused=unreached(model, longer),
    )


def _run(
    model: nn.Module, extractor: AnyExtractor, seconds: float
) -> tuple[Tensor, torch.Size, dict[str, torch.Size]]:
    """Return the tokens of noise, the shape of the input, and the shapes of layers by their list's
    path."""
    arguments = tuple(inspect.signature(model.forward).parameters)
    wave = np.random.default_rng(0).normal(0, 0.1, round(seconds * extractor.rate))
    sample = extractor.features(torch.from_numpy(wave.astype(np.float32)))
    values = {name: value[None] for name, value in sample.items()}
    lists = {n: m[0] for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    shapes: dict[str, torch.Size] = {}
    with contextlib.ExitStack() as stack:
        for path, block in lists.items():
            note = functools.partial(_note_shape, shapes, path)
            stack.callback(block.register_forward_hook(note).remove)
        tokens = tokens_of(call(model, arguments, values.pop("values"), values))
    return tokens, sample["values"].shape, shapes


def _note_shape(shapes: dict[str, torch.Size], path: str, *call: Any) -> None:
    output = call[-1]
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if isinstance(output, Tensor) and output.ndim == 3:
        shapes[path] = output.shape
