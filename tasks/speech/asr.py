"""Speech recognition by the language decoder: captioning whose text is the transcript.

Llama-AVSR (Cappellazzo et al., arXiv 2409.12319): compressed features of a (frozen) encoder are
in the prompt of a language model, which may be frozen except for adapters. Two streams, `"<audio>
<lips> Transcribe:"`, each have their own connector, and so their own compression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from ...modalities.base import PositiveInt
from ..base import Row
from ..batch import Example, Tools
from ..text import Captioning
from .metrics import SpeechMetrics
from .normalizers import Normalizer, normalizer_of


class ASR(Captioning):
    """prompt: with streams; a column may hold the language or the task (`"<audio> Transcribe the
    {language} speech:"`). target: the transcript, a template of columns.

    attention: over the prompt. normalizer: of the metrics' texts, see `SpeechMetrics`.
    """

    ability: ClassVar[str] = "transcribe"

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        target: str = "{text}",
        attention: Literal["causal", "prefix"] = "causal",
        max_new_tokens: PositiveInt = 128,
        normalizer: Normalizer = "unicode",
    ) -> None:
        super().__init__(
            prompt=prompt, target=target, attention=attention, max_new_tokens=max_new_tokens
        )
        self.normalizer: Normalizer = normalizer

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """As captioning's, with `text` in the reference, if the row has one."""
        example = super().prepare(row, tools, rng)
        references = example.reference["references"]
        if len(references) > 1:
            raise ValueError(
                f"target: {self.target.template!r} holds {len(references)} texts, expected one "
                "transcript a row"
            )
        if references:
            example.reference["text"] = references[0]
        return example

    def comparable(self, text: str) -> str:
        return normalizer_of(self.normalizer)(text)

    def metrics(self) -> TranscriptMetrics:
        return TranscriptMetrics(self.normalizer)


class TranscriptMetrics(SpeechMetrics):
    """`SpeechMetrics`, and the mean number of passes, if predictions have it."""

    def __init__(self, normalizer: Normalizer = "unicode", seed: int = 0) -> None:
        super().__init__(normalizer, seed)
        self.passes: list[int] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        super().update(predictions, references)
        self.passes += [p["passes"] for p in predictions if "passes" in p]

    def compute(self) -> dict[str, float]:
        metrics = super().compute()
        mean = {"passes": sum(self.passes) / len(self.passes)} if self.passes else {}
        return {**metrics, **mean}
