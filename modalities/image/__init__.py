"""Images: reading, preparing, encoding, and two data sets that come with the package."""

from ..modality import Modality

IMAGE = Modality(
    read="sensorium.modalities.image.read:read",
    example="sensorium.modalities.image.read:example",
    preview="sensorium.modalities.image.read:preview",
    encoders={
        "frames": "sensorium.modalities.image.frames:Frames",
        "open_clip": "sensorium.modalities.image.open_clip:OpenClipVision",
        "patches": "sensorium.modalities.image.patches:Patches",
        "timm": "sensorium.modalities.image.timm:Timm",
        "transformers": "sensorium.modalities.image.transformers:TransformersVision",
    },
    augments={
        "image": "sensorium.modalities.image.augment:ImageAugment",
    },
    sources={
        "digits": "sensorium.modalities.image.digits:Digits",
        "shapes": "sensorium.modalities.image.shapes:Shapes",
    },
)
