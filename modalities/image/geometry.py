"""Where the pixels of a prepared picture lie in the picture that was read.

The steps of a library's transform (resize, crop, border) are recorded as they run, so that every
combination of them has its matrix, and none has to be computed a second time.

Legend: `H`, `W` px. A matrix `[3, 3]` maps places `(y, x, 1)` of the prepared picture to those of
the source; both are counted from the upper left corner, so that the centre of a pixel is at 0.5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..base import Sample

Size = tuple[int, int]
Matrix = np.ndarray

CROPS = ("CenterCrop", "CenterCropOrPad")
RESIZES = ("Resize", "ResizeKeepRatio")
"""Steps of torchvision, timm and open_clip, by the name of their class."""
CLOSE = 0.02
"""Mean difference, as a share of a side, of a ramp that was prepared and one that is computed."""


class Steps:
    """The steps of one picture. matrix: from the present picture to the source; None after a step
    that is not understood."""

    def __init__(self) -> None:
        self.matrix: Matrix | None = np.eye(3)
        self.size: Size | None = None
        self.depth = 0

    def resize(self, before: Size, after: Size) -> None:
        self._add(after, np.diag([before[0] / after[0], before[1] / after[1], 1.0]))

    def crop(self, before: Size, after: Size) -> None:
        """A crop or a border in the middle, as torchvision, timm and open_clip round it."""
        step = np.eye(3)
        for axis in range(2):
            more = after[axis] - before[axis]
            step[axis, 2] = -(more // 2) if more > 0 else round(-more / 2)
        self._add(after, step)

    def numbered(self, before: Size, run: Callable[[Tensor], Any]) -> None:
        """A crop, or a border of zeros, that is asked where each pixel comes from."""
        numbers = torch.arange(1, before[0] * before[1] + 1, dtype=torch.int32)
        after = torch.as_tensor(run(numbers.view(1, *before)))[0]
        first = after.nonzero()[0].tolist()
        number = int(after[first[0], first[1]]) - 1
        step = np.eye(3)
        step[:2, 2] = np.subtract(divmod(number, before[1]), first)
        self._add(size_of(after), step)

    def unknown(self) -> None:
        self.matrix = None

    def _add(self, after: Size, step: Matrix) -> None:
        self.size = after
        self.matrix = None if self.matrix is None else self.matrix @ step


_STEPS: ContextVar[Steps | None] = ContextVar("steps of a picture", default=None)


@contextmanager
def recording() -> Iterator[Steps]:
    """Record the steps of the picture that is prepared within."""
    steps = Steps()
    token = _STEPS.set(steps)
    try:
        yield steps
    finally:
        _STEPS.reset(token)


def trace_compose(transform: Any) -> Callable[[Image.Image], Any]:
    """Return a `Compose` whose steps are recorded where somebody records."""

    def run(picture: Any) -> Any:
        steps = _STEPS.get()
        for step in transform.transforms:
            before = size_of(picture)
            picture = step(picture)
            after, name = size_of(picture), type(step).__name__
            if steps is None or (before == after and name not in CROPS):
                continue
            if name in CROPS:
                steps.crop(before, after)
            elif name in RESIZES:
                steps.resize(before, after)
            else:
                steps.unknown()
        return picture

    return run


def trace_methods(processor: Any) -> None:
    """Record the calls of `resize` and `center_crop` of an image processor of transformers."""
    for name in ("resize", "center_crop"):
        if callable(method := getattr(processor, name, None)):
            setattr(processor, name, _traced(method, name))


def _traced(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(*args: Any, **options: Any) -> Any:
        steps = _STEPS.get()
        if steps is None:
            return method(*args, **options)
        if steps.depth:
            steps.unknown()  # a step within a step
        steps.depth += 1
        try:
            result = method(*args, **options)
        finally:
            steps.depth -= 1
        image = args[0] if args else options.pop("image")
        if name == "resize":
            steps.resize(size_of(image), size_of(result))
        else:
            as_kind = torch.Tensor.numpy if isinstance(image, np.ndarray) else torch.as_tensor
            steps.numbered(size_of(image), lambda n: method(as_kind(n), *args[1:], **options))
        return result

    return run


def size_of(picture: Any) -> Size:
    """Return height and width of a picture of Pillow, or of an array `[..., H, W]`."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return int(picture.shape[-2]), int(picture.shape[-1])


def agrees(prepare: Callable[[Image.Image], Sample], raw: Image.Image, matrix: Matrix) -> bool:
    """Return whether ramps along both axes are prepared as the matrix maps them."""
    height, width = raw.height, raw.width
    black, white = (_plane(prepare(Image.new("RGB", raw.size, (level,) * 3))) for level in (0, 255))
    if black is None or white is None:
        return False
    places = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in black.shape), indexing="ij"))
    mapped = np.einsum("ij,jhw->ihw", matrix, np.stack([*places, np.ones_like(places[0])]))
    inside = np.ones(black.shape, bool)
    for axis, side in enumerate((height, width)):
        inside &= (mapped[axis] > 0) & (mapped[axis] < side)
    if not inside.any():
        return False
    for axis, side in enumerate((height, width)):
        line = ((np.arange(side) + 0.5) * (255 / side)).round().astype(np.uint8)
        ramp = np.broadcast_to(line[:, None] if axis == 0 else line[None], (height, width))
        plane = _plane(prepare(Image.fromarray(np.repeat(ramp[..., None], 3, -1))))
        scale = np.where(np.abs(white - black) < 1e-6, 1.0, white - black)
        share = (plane - black) / scale if plane is not None else np.full(black.shape, np.inf)
        if np.abs(share - mapped[axis] / side)[inside].mean() > CLOSE:
            return False
    return True


def _plane(sample: Mapping[str, Tensor]) -> np.ndarray | None:
    pixels = sample.get("pixel_values")
    if pixels is None or pixels.ndim != 3:
        return None
    return pixels.double().mean(0).numpy()


def flipped(to_source: Tensor, width: int) -> Tensor:
    """Return the matrix of a picture that was mirrored left to right."""
    mirror = torch.eye(3, dtype=torch.float64)
    mirror[1, 1], mirror[1, 2] = -1.0, float(width)
    return (to_source.double() @ mirror).float()


def moved(to_source: Tensor, theta: Tensor, size: Size) -> Tensor:
    """Return the matrix of a picture that was sampled at `affine_grid(theta [2, 3])`."""
    height, width = size
    to_unit = torch.tensor([[0, 2 / width, -1], [2 / height, 0, -1], [0, 0, 1.0]]).double()
    step = torch.cat([theta.double(), torch.tensor([[0, 0, 1.0]]).double()])  # of (x, y)
    return (to_source.double() @ torch.linalg.inv(to_unit) @ step @ to_unit).float()
