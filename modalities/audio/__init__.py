"""Sound: reading, preparing, encoding, and generated data sets."""

from ..modality import Modality

AUDIO = Modality(
    read="sensorium.modalities.audio.read:read",
    example="sensorium.modalities.audio.read:example",
    preview="sensorium.modalities.audio.preview:preview",
    encoders={
        "ast": "sensorium.modalities.audio.ast:AST",
        "clap": "sensorium.modalities.audio.clap:Clap",
        "logmel_conformer": "sensorium.modalities.audio.logmel_conformer:LogMelConformer",
        "torchaudio_bundle": "sensorium.modalities.audio.torchaudio_bundle:TorchaudioBundle",
        "torchaudio_conformer": (
            "sensorium.modalities.audio.torchaudio_conformer:TorchaudioConformer"
        ),
        "wav2vec2": "sensorium.modalities.audio.wav2vec2:Wav2Vec2",
        "whisper": "sensorium.modalities.audio.whisper:Whisper",
    },
    augments={
        "audio": "sensorium.modalities.audio.augment:MelAugment",
        "wave": "sensorium.modalities.audio.augment:WaveAugment",
    },
    sources={
        "commonvoice": "sensorium.modalities.audio.corpora:CommonVoice",
        "librispeech": "sensorium.modalities.audio.corpora:LibriSpeech",
        "sounds": "sensorium.modalities.audio.sounds:Sounds",
        "talker": "sensorium.modalities.audio.talker:Talker",
        "talker_lips": "sensorium.modalities.audio.lips:TalkerLips",
    },
)
