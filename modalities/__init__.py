"""The modalities of the package; see `modality.py` for the declaration of one, `base.py` for
parts."""

MODALITIES = {
    "action": "sensorium.modalities.action:ACTION",
    "audio": "sensorium.modalities.audio:AUDIO",
    "boxes": "sensorium.modalities.image:BOXES",
    "image": "sensorium.modalities.image:IMAGE",
    "image_mask": "sensorium.modalities.image:IMAGE_MASK",
    "mri": "sensorium.modalities.mri:MRI",
    "mri_mask": "sensorium.modalities.mri:MRI_MASK",
    "series": "sensorium.modalities.series:SERIES",
    "text": "sensorium.modalities.text:TEXT",
}
