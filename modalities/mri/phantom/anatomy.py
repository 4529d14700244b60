"""The one anatomy that all phantoms share: nilearn's MNI152 tissue maps and labelled places.

The maps are of the symmetric template (Fonov et al. 2011): left equals right, until a subject's
own asymmetry (`subject.py`). Places: Dosenbach et al. 2010, grouped into lobes.

Legend: `X Y Z` voxels of the template, `N` places; coordinates in mm, RAS.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

LOBES = {
    "frontal lobe": ("aPFC", "vent aPFC", "dlPFC", "frontal", "dFC", "sup frontal", "vlPFC"),
    "precentral gyrus": ("precentral gyrus",),
    "parietal lobe": ("IPL", "IPS", "parietal", "sup parietal"),
    "angular gyrus": ("angular gyrus",),
    "temporal lobe": ("temporal", "inf temporal", "sup temporal"),
    "fusiform gyrus": ("fusiform",),
    "occipital lobe": ("occipital", "post occipital"),
    "insula": ("ant insula", "mid insula", "post insula"),
    "basal ganglia": ("basal ganglia",),
    "thalamus": ("thalamus",),
    "cerebellum": ("lat cerebellum", "inf cerebellum"),
    "precuneus": ("precuneus",),
}
MARGIN = 6.0
"""mm by which a place is nearer to its own lobe's places than to another's."""
OFF_MIDLINE = 8.0
VENTRICLES = ((-40.0, 40.0), (-60.0, 45.0), (-20.0, 35.0))
"""The box in which the largest lake of fluid is the ventricles, mm."""


@dataclass(frozen=True)
class Anatomy:
    """tissue: `[4, X, Y, Z]` grey, white, fluid, and the ventricles alone (a part of the fluid).
    affine: `[4, 4]` voxel to mm. places: lobe -> `[N, 3]` mm, all on the right."""

    tissue: Tensor
    affine: Tensor
    places: dict[str, np.ndarray]


@functools.lru_cache(maxsize=2)
def anatomy(resolution: int) -> Anatomy:
    """Return the maps at 1 or 2 mm; read from nilearn's own files, no download."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nilearn import datasets

        grey = datasets.load_mni152_gm_template(resolution=resolution)
        white = datasets.load_mni152_wm_template(resolution=resolution)
        brain = datasets.load_mni152_brain_mask(resolution=resolution)
    parts = [np.asarray(image.dataobj, dtype=np.float32) for image in (grey, white)]
    mask = ndimage.binary_fill_holes(np.asarray(brain.dataobj) > 0.5)
    fluid = np.clip(mask - parts[0] - parts[1], 0, 1).astype(np.float32)
    lake = _lake(fluid, np.asarray(grey.affine))
    tissue = torch.from_numpy(np.stack([*parts, fluid, fluid * lake]))
    return Anatomy(tissue, torch.from_numpy(np.asarray(grey.affine)).double(), _candidates())


def _lake(fluid: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the largest connected fluid in the middle of the head, with its blurred rim."""
    inside = np.zeros(fluid.shape, dtype=bool)
    edges = affine.diagonal()[:3]
    low = [
        round((a - o) / e) for (a, _), o, e in zip(VENTRICLES, affine[:3, 3], edges, strict=True)
    ]
    high = [
        round((b - o) / e) for (_, b), o, e in zip(VENTRICLES, affine[:3, 3], edges, strict=True)
    ]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside[box] = fluid[box] > 0.6
    labels, count = ndimage.label(inside)
    sizes = ndimage.sum_labels(inside, labels, range(1, count + 1))
    largest = labels == 1 + int(np.argmax(sizes))
    dilated: np.ndarray = ndimage.binary_dilation(largest)
    return dilated


def _candidates() -> dict[str, np.ndarray]:
    """Return the places of each lobe that no other lobe comes near, mirrored to the right."""
    from nilearn import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atlas = datasets.fetch_coords_dosenbach_2010()
    rois = atlas["rois"]
    names = [str(label).rsplit(" ", 1)[0] for label in atlas["labels"]]
    where = np.array([[abs(row[0]), row[1], row[2]] for row in rois.to_numpy().tolist()])
    lobe_of = {part: lobe for lobe, parts in LOBES.items() for part in parts}
    lobes = [lobe_of.get(name, "") for name in names]
    candidates = {}
    for lobe in LOBES:
        inside = np.array([i for i, atlas in enumerate(lobes) if atlas == lobe])
        other = np.array([i for i, atlas in enumerate(lobes) if atlas not in (lobe, "")])
        distances = np.linalg.norm(where[inside][:, None] - where[other][None], axis=-1).min(1)
        good = (distances > MARGIN) & (where[inside][:, 0] > OFF_MIDLINE)
        candidates[lobe] = where[inside][good]
    return candidates
