"""3D MRI: reading, preparing, encoding, and a phantom; masks of volumes are a second modality."""

from ..modality import Modality

MRI = Modality(
    read="sensorium.modalities.mri.io.read:read",
    files="sensorium.modalities.mri.io.files:files",
    cells="sensorium.modalities.mri.io.collection:folder_cells",
    example="sensorium.modalities.mri.io.read:example",
    preview="sensorium.modalities.mri.preview:preview",
    draws=("boxes", "mask", "map", "peak"),
    save="sensorium.modalities.mri.write:write",
    encoders={
        "monai": "sensorium.modalities.mri.encoders.monai:Monai",
        "slices": "sensorium.modalities.mri.encoders.slices:Slices",
        "vit3d": "sensorium.modalities.mri.encoders.vit3d:ViT3D",
    },
    augments={
        "mri": "sensorium.modalities.mri.augment:MRIAugment",
    },
    sources={
        "bids": "sensorium.modalities.mri.datasets.folders:Bids",
        "nnunet": "sensorium.modalities.mri.datasets.folders:NnUnet",
        "phantom": "sensorium.modalities.mri.phantom.phantom:Phantom",
    },
)

MRI_MASK = Modality(
    read="sensorium.modalities.mri.io.read:read_mask",
    files="sensorium.modalities.mri.io.files:files",
    cells="sensorium.modalities.mri.io.collection:folder_cells",
    example="sensorium.modalities.mri.encoders.mask:example",
    preview="sensorium.modalities.mri.preview:preview",
    annotation="mask",
    encoders={
        "mask": "sensorium.modalities.mri.encoders.mask:Mask",
    },
)
