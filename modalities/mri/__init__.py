"""3D MRI: reading, preparing, encoding, and a phantom."""

READ = "sensorium.modalities.mri.read:read"
EXAMPLE = "sensorium.modalities.mri.read:example"
PREVIEW = "sensorium.modalities.mri.preview:preview"

ENCODERS: dict[str, str] = {}

AUGMENTS = {
    "mri": "sensorium.modalities.mri.augment:MRIAugment",
}

SOURCES = {
    "phantom": "sensorium.modalities.mri.phantom:Phantom",
}
