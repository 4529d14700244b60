"""Images: reading, preparing, encoding, data sets; masks of pictures and boxes in them are
modalities of their own."""

from ..modality import Modality

IMAGE = Modality(
    read="sensorium.modalities.image.read:read",
    example="sensorium.modalities.image.read:example",
    preview="sensorium.modalities.image.preview:preview",
    draws=("boxes", "mask", "map"),
    save="sensorium.modalities.image.mask:write",
    encoders={
        "frames": "sensorium.modalities.image.encoders.video_frames:Frames",
        "native": "sensorium.modalities.image.native.encoder:NativeViT",
        "open_clip": "sensorium.modalities.image.encoders.open_clip:OpenClipVision",
        "patches": "sensorium.modalities.image.encoders.patches:Patches",
        "pixels": "sensorium.modalities.image.pixels:Pixels",
        "timm": "sensorium.modalities.image.encoders.timm:Timm",
        "tokens": "sensorium.modalities.image.tokenizers.encoder:ImageTokens",
        "transformers": "sensorium.modalities.image.encoders.transformers:TransformersVision",
    },
    decoders={
        "diffusers": "sensorium.modalities.image.decoders.diffusers:Diffusers",
    },
    augments={
        "image": "sensorium.modalities.image.augment:ImageAugment",
    },
    sources={
        "coco_objects": "sensorium.modalities.image.datasets.boxes:CocoObjects",
        "digits": "sensorium.modalities.image.datasets.digits:Digits",
        "shapes": "sensorium.modalities.image.datasets.shapes:Shapes",
        "voc": "sensorium.modalities.image.datasets.boxes:Voc",
    },
    tokenizers={
        "vq": "sensorium.modalities.image.tokenizers.vq:PatchVQ",
    },
)

IMAGE_MASK = Modality(
    read="sensorium.modalities.image.mask:read",
    example="sensorium.modalities.image.mask:example",
    preview="sensorium.modalities.image.preview:preview_mask",
    annotation="mask",
    encoders={
        "mask": "sensorium.modalities.image.mask:Mask",
    },
)

BOXES = Modality(
    read="sensorium.modalities.image.tokenizers.boxes:read",
    example="sensorium.modalities.image.tokenizers.boxes:example",
    encoders={
        "tokens": "sensorium.modalities.image.tokenizers.encoder:BoxTokens",
    },
    tokenizers={
        "coordinates": "sensorium.modalities.image.tokenizers.boxes:BoxTokenizer",
    },
)
