"""Time series of any sensor: reading, preparing, encoding, tokenizing, and generated data sets."""

from ..modality import Modality

SERIES = Modality(
    read="sensorium.modalities.series.read:read",
    files="sensorium.modalities.series.read:files",
    cells="sensorium.modalities.series.read:cells",
    example="sensorium.modalities.series.read:example",
    preview="sensorium.modalities.series.preview:preview",
    segment_columns=(("start", "end"),),
    encoders={
        "patches": "sensorium.modalities.series.encoders.patches:Patches",
        "segments": "sensorium.modalities.series.encoders.segments:Segments",
        "tokens": "sensorium.modalities.series.tokenizers.byte_pairs:SeriesTokens",
        "transformers": "sensorium.modalities.series.encoders.transformers:TransformersSeries",
    },
    augments={
        "series": "sensorium.modalities.series.augment:SeriesAugment",
    },
    tokenizers={
        "byte_pairs": "sensorium.modalities.series.tokenizers.byte_pairs:BytePairs",
    },
    sources={
        "ecg": "sensorium.modalities.series.datasets.ecg:Ecg",
        "series_windows": "sensorium.modalities.series.datasets.windows:SeriesWindows",
        "waves": "sensorium.modalities.series.datasets.waves:Waves",
    },
)
