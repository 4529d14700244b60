"""Sound: reading, preparing, encoding, and data that is generated."""

READ = "sensorium.modalities.audio.read:read"
EXAMPLE = "sensorium.modalities.audio.read:example"
PREVIEW = "sensorium.modalities.audio.preview:preview"

ENCODERS = {
    "logmel_conformer": "sensorium.modalities.audio.logmel_conformer:LogMelConformer",
}

AUGMENTS: dict[str, str] = {}

SOURCES = {
    "talker": "sensorium.modalities.audio.talker:Talker",
}
