"""3D MRI: reading, preparing, encoding, and a phantom; masks of volumes are a second modality."""

from ..modality import Modality

MRI = Modality(
    read="sensorium.modalities.mri.read:read",
    example="sensorium.modalities.mri.read:example",
    preview="sensorium.modalities.mri.preview:preview",
    save="sensorium.modalities.mri.write:write",
    encoders={
        "monai": "sensorium.modalities.mri.monai:Monai",
        "slices": "sensorium.modalities.mri.slices:Slices",
        "vit3d": "sensorium.modalities.mri.vit3d:ViT3D",
    },
    augments={
        "mri": "sensorium.modalities.mri.augment:MRIAugment",
    },
    sources={
        "phantom": "sensorium.modalities.mri.phantom:Phantom",
    },
)

MRI_MASK = Modality(
    read="sensorium.modalities.mri.read:read_mask",
    example="sensorium.modalities.mri.mask:example",
    preview="sensorium.modalities.mri.preview:preview",
    annotation="mask",
    encoders={
        "mask": "sensorium.modalities.mri.mask:Mask",
    },
)
