"""Pictures: reading, preparing, encoding, and two data sets that come with them."""

READ = "sensorium.modalities.image.read:read"
EXAMPLE = "sensorium.modalities.image.read:example"
PREVIEW = "sensorium.modalities.image.read:preview"

ENCODERS = {
    "frames": "sensorium.modalities.image.frames:Frames",
    "open_clip": "sensorium.modalities.image.open_clip:OpenClipVision",
    "patches": "sensorium.modalities.image.patches:Patches",
    "timm": "sensorium.modalities.image.timm:Timm",
    "transformers": "sensorium.modalities.image.transformers:TransformersVision",
}

AUGMENTS = {
    "image": "sensorium.modalities.image.augment:ImageAugment",
}

SOURCES = {
    "digits": "sensorium.modalities.image.digits:Digits",
    "shapes": "sensorium.modalities.image.shapes:Shapes",
}
