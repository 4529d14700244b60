"""Sound: reading, preparing, encoding, and data that is generated."""

READ = "sensorium.modalities.audio.read:read"
EXAMPLE = "sensorium.modalities.audio.read:example"
PREVIEW = "sensorium.modalities.audio.preview:preview"

ENCODERS: dict[str, str] = {}

AUGMENTS: dict[str, str] = {}

SOURCES: dict[str, str] = {}
