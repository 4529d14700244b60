"""Video, frame by frame: any encoder of pictures over a clip, a token a frame.

Legend: `B` batch, `T` frames, `D` width; the rest of a picture's shape as its encoder has it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...base import Encoder, Features, PositiveFloat, Processor, Sample
from .. import IMAGE
from ..video_clip import Clip


@dataclass(frozen=True)
class FramesProcessor(Processor):
    """A clip -> each tensor of the pictures' processor, `[T, ...]`, at `fps` frames a second. A
    picture is a clip of one frame."""

    picture: Processor
    fps: float

    def prepare(self, raw: Clip | Image.Image) -> Sample:
        pictures = [raw] if isinstance(raw, Image.Image) else map(Image.fromarray, raw.at(self.fps))
        frames = [self.picture.prepare(picture) for picture in pictures]
        return {key: torch.stack([frame[key] for frame in frames]) for key in frames[0]}

    def settings(self) -> dict[str, Any]:
        """Return those of the pictures' processor, and the rate."""
        return {"picture": _named_settings(self.picture), "fps": self.fps}


def _named_settings(processor: Processor) -> dict[str, Any]:
    kind = type(processor)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", **processor.settings()}


class Frames(Encoder):
    """encoder: the section of an encoder of pictures, `{type: patches, size: 32, ...}`; a frame's
    token is its pooled vector, or the mean of its tokens. fps: frames a second that it sees.
    """

    def __init__(self, *, encoder: dict[str, Any], fps: PositiveFloat = 25.0) -> None:
        super().__init__()
        if not 0 < fps < float("inf"):
            raise ValueError(f"fps: found {fps}, expected more than 0")
        part, options = _section(encoder)
        try:
            self.picture: Encoder = part(**options)
        except TypeError as error:  # the engine checks options, but not those within an option
            raise ValueError(f"encoder: {encoder['type']}: {error}") from error
        self.dim, self.fps = self.picture.dim, fps
        self.processor = FramesProcessor(self.picture.processor, fps)
        self.batch_invariant = self.picture.batch_invariant
        self.supports = frozenset({"causal"})  # a frame is encoded alone

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        part, part_options = _section(options["encoder"])
        section = {"type": options["encoder"]["type"], **part.resolve(part_options)}
        return {**options, "encoder": section}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        part, part_options = _section(options["encoder"])
        return part.has_pretrained_weights(part_options)

    def load(self) -> None:
        self.picture.load()

    def blocks(self) -> Sequence[torch.nn.Module]:
        return self.picture.blocks()

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the clips' tensors `[B, T, ...]`, padded with zeros on the right, and mask `[B,
        T]`."""
        batch = {
            key: torch.nn.utils.rnn.pad_sequence([s[key] for s in samples], True)
            for key in samples[0]
        }
        first = next(iter(samples[0]))
        lengths = torch.tensor([len(s[first]) for s in samples])
        batch["mask"] = torch.arange(int(lengths.max())) < lengths[:, None]
        return batch

    def forward(self, *, mask: Tensor, **pictures: Tensor) -> Features:
        """Pictures `[B, T, ...]`, mask `[B, T]` -> tokens `[B, T, D]` on a grid of frames."""
        flat = {key: value.flatten(0, 1) for key, value in pictures.items()}
        vectors = self.picture(**flat).pool().view(*mask.shape, -1)  # [B, T, D]
        return Features(
            vectors.masked_fill(~mask.unsqueeze(-1), 0),
            mask,
            grid=(mask.shape[1],),
            spacing=(1 / self.fps,),
            origin=(0.5 / self.fps,),
        )


def _section(section: Mapping[str, Any]) -> tuple[type[Encoder], dict[str, Any]]:
    """Return the class of a section of this modality, and its options."""
    kind = section.get("type")
    names = [name for name in IMAGE.encoders if name != "frames"]
    if kind not in names:
        raise ValueError(f"encoder.type: found {kind!r}, expected one of {', '.join(names)}")
    module, _, name = IMAGE.encoders[str(kind)].partition(":")
    part: type[Encoder] = getattr(importlib.import_module(module), name)
    return part, {key: value for key, value in section.items() if key != "type"}
