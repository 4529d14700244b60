"""Images: reading, preparing, encoding, and two data sets that come with the package."""

from ..modality import Modality

IMAGE = Modality(
    read="sensorium.modalities.image.read:read",
    example="sensorium.modalities.image.read:example",
    preview="sensorium.modalities.image.read:preview",
    encoders={
        "frames": "sensorium.modalities.image.encoders.video_frames:Frames",
        "open_clip": "sensorium.modalities.image.encoders.open_clip:OpenClipVision",
        "patches": "sensorium.modalities.image.encoders.patches:Patches",
        "timm": "sensorium.modalities.image.encoders.timm:Timm",
        "transformers": "sensorium.modalities.image.encoders.transformers:TransformersVision",
    },
    augments={
        "image": "sensorium.modalities.image.augment:ImageAugment",
    },
    sources={
        "digits": "sensorium.modalities.image.datasets.digits:Digits",
        "shapes": "sensorium.modalities.image.datasets.shapes:Shapes",
    },
)
