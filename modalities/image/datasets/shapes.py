"""Generated pictures of coloured shapes with captions that must be composed to be right.

One shape anywhere, or two of which the second that a caption names lies in the middle and the
first beside it: "a small red circle above a large blue square". The middle one is always the
second, so that a picture has one caption and an exact match means something.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from ...base import Count, PositiveInt, Source

COLOURS = {
    "red": (214, 39, 40),
    "orange": (250, 140, 20),
    "yellow": (240, 215, 30),
    "green": (40, 160, 60),
    "cyan": (50, 195, 215),
    "blue": (35, 75, 205),
    "purple": (145, 65, 185),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
SIZES = {"small": 0.085, "large": 0.14}
"""Radius of the circle around a shape, in widths of the picture."""

RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}
HELD_OUT = (
    ("red", "star"),
    ("orange", "square"),
    ("yellow", "triangle"),
    ("green", "cross"),
    ("cyan", "circle"),
    ("blue", "diamond"),
    ("purple", "circle"),
    ("black", "triangle"),
)
"""Colour and shape that never meet in `train` and `test`; each colour and shape is seen apart."""

ALONE = 2.8
"""Factor of the radius of a shape that is alone in its picture."""

TEST_SHARE = 8
"""One caption in so many is kept for `test`."""

TRIES = 1000
"""Scenes that a row of `distinct` looks through for a caption that is not taken."""

SUPERSAMPLING = 3
REVISION = 1
"""To be raised whenever equal arguments yield other pictures or captions."""


@dataclass(frozen=True)
class Shape:
    """One thing in a picture; `x`, `y` of its centre, from 0 to 1, y downwards."""

    size: str
    colour: str
    shape: str
    x: float
    y: float

    def phrase(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"

    def held_out(self) -> bool:
        return (self.colour, self.shape) in HELD_OUT

    def outline(self, zoom: float = 1.0) -> list[tuple[float, float]]:
        """Corners in widths of the picture; none for a circle."""
        radius = SIZES[self.size] * zoom
        return [(self.x + radius * dx, self.y + radius * dy) for dx, dy in OUTLINES[self.shape]]


def _star() -> list[tuple[float, float]]:
    turns = [(k * math.pi / 5 - math.pi / 2, 1.0 if k % 2 == 0 else 0.42) for k in range(10)]
    return [(r * math.cos(a), r * math.sin(a)) for a, r in turns]


_ARM = 0.32
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": [],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -1), (0.95, 0.75), (-0.95, 0.75)],
    "diamond": [(0, -1.05), (0.75, 0), (0, 1.05), (-0.75, 0)],
    "cross": [
        *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
        *((_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)),
    ],
    "star": _star(),
}


class Shapes(Source):
    """Rows `image, caption, objects, relation`, made on access, from (seed, split, index).

    split: `train`; `test`, whose captions never occur in `train`; `held_out`, where every picture
    shows a pair of `HELD_OUT`, which the other two never do. count: rows. size: px of a side.
    distinct: no caption comes twice (for retrieval, where each row is the other rows' wrong
    answer). alone: one shape a picture, which fills it, for generators of small pictures. image:
    `[size, size, 3]` uint8. objects: a dict each, in the caption's order. colour, shape, scale: of
    the first one.
    """

    columns = ("image", "caption", "objects", "relation", "colour", "shape", "scale")

    def __init__(
        self,
        *,
        split: Literal["train", "test", "held_out"],
        count: PositiveInt = 10_000,
        seed: Count = 0,
        size: PositiveInt = 64,
        distinct: bool = False,
        alone: bool = False,
    ) -> None:
        if count < 1 or size < 16:
            raise ValueError(f"shapes: count {count}, size {size}; want at least 1 row of 16 px")
        self.split, self.count, self.seed, self.size = split, count, seed, size
        self.distinct, self.alone = distinct, alone

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = self._rng(index)
        scenes = self._scenes(rng)
        passed = self._passed[index] if self.distinct else 0
        objects, relation, text = next(itertools.islice(scenes, passed, None))
        first = objects[0]
        return {
            "image": draw(objects, self.size, rng, ALONE if self.alone else 1.0),
            "caption": text,
            "objects": [asdict(thing) for thing in objects],
            "relation": relation,
            "colour": first.colour,
            "shape": first.shape,
            "scale": first.size,
        }

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])

    def _scenes(self, rng: np.random.Generator) -> Iterator[tuple[list[Shape], str, str]]:
        """Scenes of the split, their relations and captions, without end."""
        while True:
            objects, relation = scene(rng, self.alone)
            text = caption(objects, relation)
            if split_of(objects, text) == self.split:
                yield objects, relation, text

    @functools.cached_property
    def _passed(self) -> list[int]:
        """How many scenes each row passes over, their captions being taken by rows before it."""
        captions: set[str] = set()
        passed = []
        for index in range(self.count):
            scenes = itertools.islice(self._scenes(self._rng(index)), TRIES)
            scene_index, text = next(
                ((i, text) for i, (_, _, text) in enumerate(scenes) if text not in captions),
                (-1, ""),
            )
            if scene_index < 0:
                raise ValueError(
                    f"shapes: count {self.count} rows with distinct captions, found "
                    f"{len(captions)} in {self.split}; lower count"
                )
            captions.add(text)
            passed.append(scene_index)
        return passed

    def key(self, index: int) -> str:
        kind = "/distinct" * self.distinct + "/alone" * self.alone
        return f"shapes/{self.split}{kind}/{self.seed}/{index}"

    def fingerprint(self) -> str:
        description = f"{REVISION} {self.split} {self.count} {self.seed} {self.size}"
        description += " distinct" * self.distinct + " alone" * self.alone
        return hashlib.sha256(description.encode()).hexdigest()


def caption(objects: list[Shape], relation: str) -> str:
    return f" {relation} ".join(thing.phrase() for thing in objects)


def split_of(objects: list[Shape], text: str) -> str:
    """Return the one split that a scene belongs to: by its pairs, else by a hash of its caption."""
    if any(thing.held_out() for thing in objects):
        return "held_out"
    return "test" if zlib.crc32(text.encode()) % TEST_SHARE == 0 else "train"


def scene(rng: np.random.Generator, alone: bool = False) -> tuple[list[Shape], str]:
    """One shape (in a quarter of the scenes), or two and how the first lies to the second. alone:
    one in the middle."""

    def thing(x: float, y: float) -> Shape:
        size, colour = rng.choice(list(SIZES)), rng.choice(list(COLOURS))
        return Shape(str(size), str(colour), str(rng.choice(SHAPES)), x, y)

    if alone:
        x, y = rng.uniform(0.46, 0.54, 2)
        return [thing(float(x), float(y))], ""
    if rng.random() < 0.25:
        x, y = rng.uniform(0.2, 0.8, 2)
        return [thing(float(x), float(y))], ""
    relation = str(rng.choice(list(RELATIONS)))
    dx, dy = RELATIONS[relation]
    distance = rng.uniform(0.33, 0.34)
    lateral, x, y = rng.uniform(-0.02, 0.02, 3)  # off the axis; the middle one's own place
    x, y = 0.5 + x, 0.5 + y
    first = (x + dx * distance + dy * lateral, y + dy * distance + dx * lateral)
    first_x, first_y = np.clip(first, 0.15, 0.85)  # a large one stays inside
    return [thing(float(first_x), float(first_y)), thing(float(x), float(y))], relation


def draw(
    objects: list[Shape], size: int, rng: np.random.Generator, zoom: float = 1.0
) -> np.ndarray:
    """Return the picture `[size, size, 3]` uint8, drawn larger and averaged for smooth edges.
    zoom: factor of the radius of every shape."""
    side = size * SUPERSAMPLING
    ground = tuple(int(v) for v in rng.integers(235, 256, 3))
    picture = Image.new("RGB", (side, side), ground)
    brush = ImageDraw.Draw(picture)
    for thing in objects:
        colour, radius = COLOURS[thing.colour], SIZES[thing.size] * zoom
        corners = [(x * side, y * side) for x, y in thing.outline(zoom)]
        if corners:
            brush.polygon(corners, fill=colour)
        else:
            x, y, r = thing.x * side, thing.y * side, radius * side
            brush.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return np.asarray(picture.reduce(SUPERSAMPLING))
