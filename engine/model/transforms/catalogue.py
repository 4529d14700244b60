"""Short names of transforms."""

TRANSFORMS = {
    "keep_layers": "sensorium.engine.model.transforms.layers:keep_layers",
    "upscale_depth": "sensorium.engine.model.transforms.layers:upscale_depth",
}
