"""The kinds of signal, one package each; see `base.py` for what they share.

A modality's package says, as strings imported when first asked for: `READ` (source ->
raw value), `EXAMPLE` (a generator -> a raw value, for dry runs), `PREVIEW` (raw value and `Marks`
-> HTML, for reports), `ENCODERS`, `AUGMENTS` and `SOURCES` (name -> class). One that is laid over
other signals (a mask) may say as which mark they show it: `MARK`; one whose maps can be files,
how: `SAVE` (path without ending, values, matrix to the world, raw value -> path).
"""

MODALITIES = {
    "action": "sensorium.modalities.action",
    "audio": "sensorium.modalities.audio",
    "image": "sensorium.modalities.image",
    "mri": "sensorium.modalities.mri",
    "mri_mask": "sensorium.modalities.mri.masks",
    "text": "sensorium.modalities.text",
}
