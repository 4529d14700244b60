"""A volume for a page: its three middle slices, as a radiologist looks at them.

Legend: `C` channels, `X Y Z` voxels towards right, anterior, superior.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import escape
from monai.data import MetaTensor
from PIL import Image

HEIGHT = 180
"""px of a slice on the page."""


def preview(raw: MetaTensor) -> str:
    """HTML: axial, coronal and sagittal slices through the middle of the first contrast that is
    there. The patient's right is on the left; superior or anterior is up."""
    there = raw.meta.get("contrasts", (True,))
    volume = raw.as_tensor()[there.index(True)].numpy()
    edges = [float(edge) for edge in raw.pixdim]
    strip = Image.fromarray(montage(volume, edges, [n // 2 for n in volume.shape]))
    buffer = io.BytesIO()
    strip.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    shape = " x ".join(map(str, volume.shape))
    told = escape(f"{shape} voxels of {' x '.join(f'{e:.2g}' for e in edges)} mm")
    return f'<img src="data:image/png;base64,{data}" alt="{told}" title="{told}">'


def montage(volume: np.ndarray, edges: list[float], at: list[int]) -> np.ndarray:
    """`[X, Y, Z]` -> grey `[HEIGHT, W]` uint8: the slices through voxel `at`, side by side."""
    low, high = np.percentile(volume, (1, 99.5))
    grey = ((volume - low) / max(high - low, 1e-6)).clip(0, 1) * 255
    planes = [
        (grey[:, :, at[2]], edges[0], edges[1]),
        (grey[:, at[1], :], edges[0], edges[2]),
        (grey[at[0], :, :], edges[1], edges[2]),
    ]
    shown = []
    for plane, across, up in planes:
        image = np.flipud(plane.T)
        # Radiological convention: the right side of the patient, where x grows, is on the left.
        image = np.fliplr(image).astype(np.uint8)
        width = max(1, round(HEIGHT * plane.shape[0] * across / (plane.shape[1] * up)))
        shown.append(np.asarray(Image.fromarray(image).resize((width, HEIGHT))))
    return np.concatenate(shown, 1)
