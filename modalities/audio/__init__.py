"""Sound: reading, preparing, encoding, and generated data sets."""

from ..modality import Modality

AUDIO = Modality(
    read="sensorium.modalities.audio.read:read",
    example="sensorium.modalities.audio.read:example",
    preview="sensorium.modalities.audio.preview:preview",
    segment_columns=(("offset",), ("start", "end")),
    encoders={
        "ast": "sensorium.modalities.audio.encoders.ast:AST",
        "clap": "sensorium.modalities.audio.encoders.clap:Clap",
        "logmel_conformer": "sensorium.modalities.audio.encoders.logmel_conformer:LogMelConformer",
        "tokens": "sensorium.modalities.audio.tokenizers.units:AudioTokens",
        "torchaudio_bundle": (
            "sensorium.modalities.audio.encoders.torchaudio_bundle:TorchaudioBundle"
        ),
        "torchaudio_conformer": (
            "sensorium.modalities.audio.encoders.torchaudio_conformer:TorchaudioConformer"
        ),
        "transformers": "sensorium.modalities.audio.encoders.transformers:TransformersSound",
        "wav2vec2": "sensorium.modalities.audio.encoders.wav2vec2:Wav2Vec2",
        "whisper": "sensorium.modalities.audio.encoders.whisper:Whisper",
    },
    augments={
        "audio": "sensorium.modalities.audio.augment:MelAugment",
        "wave": "sensorium.modalities.audio.augment:WaveAugment",
    },
    sources={
        "commonvoice": "sensorium.modalities.audio.datasets.corpora:CommonVoice",
        "kaldi": "sensorium.modalities.audio.datasets.manifests:Kaldi",
        "librispeech": "sensorium.modalities.audio.datasets.corpora:LibriSpeech",
        "nemo": "sensorium.modalities.audio.datasets.manifests:Manifest",
        "sounds": "sensorium.modalities.audio.datasets.synthetic_sounds:Sounds",
        "talker": "sensorium.modalities.audio.datasets.synthetic_speech:Talker",
        "talker_lips": "sensorium.modalities.audio.datasets.synthetic_lips:TalkerLips",
    },
    tokenizers={
        "units": "sensorium.modalities.audio.tokenizers.units:Units",
    },
)
