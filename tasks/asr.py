"""Transcription by the shared decoder: captioning whose text is what was said.

Llama-AVSR (Cappellazzo et al., arXiv 2409.12319): compressed features of a (frozen) encoder stand
in the prompt of a language model, which may be frozen but for adapters. Two streams at once,
`"<audio> <lips> Transcribe:"`, each have a connector, and so a compression, of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..backbones.base import Backbone
from ..modalities.base import Features
from .base import Batch, Encode, Row
from .captioning import Captioning
from .speech_metrics import Normalizer, SpeechMetrics


class Asr(Captioning):
    """prompt: names streams, and what to do with them; a column may say the language or the task
    (`"<audio> Transcribe the {language} speech:"`). target: what was said, a template of columns.

    attention: how the decoder reads the prompt. normalizer: what texts go through before their
    errors are counted. The metrics are those of `SpeechMetrics`.
    """

    def __init__(
        self,
        *,
        prompt: str,
        target: str = "{text}",
        attention: Literal["causal", "prefix"] = "causal",
        max_new_tokens: int = 128,
        normalizer: Normalizer = "basic",
    ) -> None:
        super().__init__(
            prompt=prompt, target=target, attention=attention, max_new_tokens=max_new_tokens
        )
        self.normalizer: Normalizer = normalizer

    def targets(self, row: Row) -> dict[str, Any]:
        """As captioning's, and `text`: the reference, where the row has one."""
        found = super().targets(row)
        if len(found["references"]) > 1:
            raise ValueError(
                f"target: {self.target.template!r} holds {len(found['references'])} texts, "
                "expected one transcript a row"
            )
        said = {"text": found["references"][0]} if found["references"] else {}
        return {**found, **said}

    def context(self, batch: Batch, encode: Encode, backbone: Backbone) -> Features:
        """The prompt of a batch with its streams in it, as the decoder reads it."""
        return self._context(batch, encode, backbone)

    def metrics(self) -> TranscriptMetrics:
        return TranscriptMetrics(self.normalizer)


class TranscriptMetrics(SpeechMetrics):
    """`SpeechMetrics`, and the mean number of passes of predictions that count theirs."""

    def __init__(self, normalizer: Normalizer = "basic", seed: int = 0) -> None:
        super().__init__(normalizer, seed)
        self.passes: list[int] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        super().update(predictions, targets)
        self.passes += [made["passes"] for made in predictions if "passes" in made]

    def compute(self) -> dict[str, float]:
        found = super().compute()
        mean = {"passes": sum(self.passes) / len(self.passes)} if self.passes else {}
        return {**found, **mean}
