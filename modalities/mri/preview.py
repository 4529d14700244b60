"""A volume for a page: three slices, in radiological orientation, with the findings.

Legend: `C` channels, `X Y Z` voxels towards right, anterior, superior.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import escape
from monai.data import MetaTensor
from PIL import Image

from ..base import Annotations
from . import overlay
from .overlay import Plane

SHOWN = {"predicted": "orange: predicted", "reference": "green: reference"}


def preview(raw: MetaTensor, marks: Annotations | None = None) -> str:
    """HTML: axial, coronal and sagittal slices of the first contrast that is there, through what
    is marked, or else the middle. The patient's right is on the left; superior or anterior is up.

    marks: `boxes`, `[6]` mm each, low corner and high corner, RAS; `mask` and `map`, any value that
    `read_mask` and `read` take; `peak`, `[3]` mm.
    """
    contrasts = raw.meta.get("contrasts", (True,))
    volume = raw.as_tensor()[contrasts.index(True)].numpy()
    edges = [float(edge) for edge in raw.pixdim]
    shapes = overlay.shapes_of(raw, marks or {})
    at = overlay.middle(shapes, volume.shape)
    strip = Image.fromarray(montage(volume, edges, at, shapes))
    buffer = io.BytesIO()
    strip.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    size = " x ".join(map(str, volume.shape))
    caption = escape(f"{size} voxels of {' x '.join(f'{e:.2g}' for e in edges)} mm")
    source = f"data:image/png;base64,{data}"
    image = f'<img class="strip" src="{source}" alt="{caption}" title="{caption}">'
    drawn = {shape.who for shape in shapes if shape.centre is not None}
    legend = "; ".join(text for who, text in SHOWN.items() if who in drawn)
    return f"{image}<br><small>{legend}</small>" if legend else image


def montage(
    volume: np.ndarray, edges: list[float], at: list[int], shapes: list[overlay.Shape] | None = None
) -> np.ndarray:
    """`[X, Y, Z]` -> uint8 `[HEIGHT, W, 3]`: the slices through voxel `at`, side by side, with
    the findings drawn on them."""
    low, high = np.percentile(volume, (1, 99.5))
    grey = ((volume - low) / max(high - low, 1e-6)).clip(0, 1) * 255
    slices = []
    for across, up in ((0, 1), (0, 2), (1, 2)):
        plane = Plane(across, up, 3 - across - up, at, volume.shape, edges)
        picture = plane.picture(grey.astype(np.uint8)).convert("RGB")
        for drawn_shape in shapes or []:
            picture = drawn_shape.draw(picture, plane)
        slices.append(np.asarray(picture))
    return np.concatenate(slices, 1)
