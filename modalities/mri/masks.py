"""Masks of volumes as a modality of their own: its catalogues. See `mask.py`."""

READ = "sensorium.modalities.mri.read:read_mask"
EXAMPLE = "sensorium.modalities.mri.mask:example"
PREVIEW = "sensorium.modalities.mri.preview:preview"
MARK = "mask"

ENCODERS = {
    "mask": "sensorium.modalities.mri.mask:Mask",
}

AUGMENTS: dict[str, str] = {}

SOURCES: dict[str, str] = {}
