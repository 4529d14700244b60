"""3D MRI: reading, preparing, encoding, and a phantom."""

READ = "sensorium.modalities.mri.read:read"
EXAMPLE = "sensorium.modalities.mri.read:example"
PREVIEW = "sensorium.modalities.mri.preview:preview"
SAVE = "sensorium.modalities.mri.write:write"

ENCODERS = {
    "monai": "sensorium.modalities.mri.monai:Monai",
    "slices": "sensorium.modalities.mri.slices:Slices",
    "vit3d": "sensorium.modalities.mri.vit3d:ViT3D",
}

AUGMENTS = {
    "mri": "sensorium.modalities.mri.augment:MRIAugment",
}

SOURCES = {
    "phantom": "sensorium.modalities.mri.phantom:Phantom",
}
