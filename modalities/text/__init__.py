"""Text: tokenizers and encoders."""

from ..modality import Modality

TEXT = Modality(
    read="sensorium.modalities.text.read:read",
    files="sensorium.modalities.text.read:files",
    example="sensorium.modalities.text.read:example",
    preview="sensorium.modalities.text.read:preview",
    encoders={
        "averaging": "sensorium.modalities.text.encoders.averaging:DeepAveraging",
        "bag_of_words": "sensorium.modalities.text.encoders.bag_of_words:BagOfWords",
        "causal_lm": "sensorium.modalities.text.causal_lm:CausalLM",
        "characters": "sensorium.modalities.text.encoders.characters:CharacterChannel",
        "fallback": "sensorium.modalities.text.pixels.fallback:PixelFallback",
        "hashed": "sensorium.modalities.text.encoders.hashed:HashedText",
        "open_clip": "sensorium.modalities.text.open_clip:OpenClipText",
        "rendered": "sensorium.modalities.text.pixels.encoder:RenderedText",
        "sequence_classifier": "sensorium.modalities.text.encoders.classifier:SequenceClassifier",
        "transformers": "sensorium.modalities.text.transformers:TransformersText",
        "vocabulary": "sensorium.modalities.text.encoders.vocabulary:VocabularyLogits",
    },
    augments={"span_mask": "sensorium.modalities.text.augments.spans:SpanMask"},
    sources={
        "arithmetic": "sensorium.modalities.text.datasets.arithmetic:Arithmetic",
        "docstrings": "sensorium.modalities.text.datasets.docstrings:Docstrings",
    },
    tokenizers={
        "bpe": "sensorium.modalities.text.tokenizers:BPE",
        "bytes": "sensorium.modalities.text.tokenizers:Bytes",
        "characters": "sensorium.modalities.text.characters:Characters",
        "nucleotides": "sensorium.modalities.text.characters:Nucleotides",
        "pretrained": "sensorium.modalities.text.tokenizers:PretrainedTokenizer",
    },
)
