"""Sound: reading, preparing, encoding, and data that is generated."""

READ = "sensorium.modalities.audio.read:read"
EXAMPLE = "sensorium.modalities.audio.read:example"
PREVIEW = "sensorium.modalities.audio.preview:preview"

ENCODERS = {
    "ast": "sensorium.modalities.audio.ast:AST",
    "clap": "sensorium.modalities.audio.clap:Clap",
    "logmel_conformer": "sensorium.modalities.audio.logmel_conformer:LogMelConformer",
    "torchaudio_bundle": "sensorium.modalities.audio.torchaudio_bundle:TorchaudioBundle",
    "torchaudio_conformer": "sensorium.modalities.audio.torchaudio_conformer:TorchaudioConformer",
    "wav2vec2": "sensorium.modalities.audio.wav2vec2:Wav2Vec2",
    "whisper": "sensorium.modalities.audio.whisper:Whisper",
}

AUGMENTS = {
    "audio": "sensorium.modalities.audio.augment:MelAugment",
    "wave": "sensorium.modalities.audio.augment:WaveAugment",
}

SOURCES = {
    "commonvoice": "sensorium.modalities.audio.corpora:CommonVoice",
    "librispeech": "sensorium.modalities.audio.corpora:LibriSpeech",
    "sounds": "sensorium.modalities.audio.sounds:Sounds",
    "talker": "sensorium.modalities.audio.talker:Talker",
    "talker_lips": "sensorium.modalities.audio.lips:TalkerLips",
}
