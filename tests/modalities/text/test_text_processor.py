"""Text to ids: what is cut, what is refused, and what tells two processors apart."""

from __future__ import annotations

import pytest

from sensorium.modalities.base import ReadError
from sensorium.modalities.text.tokenizers import BPE, Bytes
from sensorium.modalities.text_processor import TextProcessor, fingerprint

TEXTS = ["a red robot", "the small robot pushes a blue puck to the goal, slowly", "né <image> 猫"]


def test_a_long_text_is_cut_and_keeps_its_end(bpe: BPE) -> None:
    processor = TextProcessor(bpe, 8)
    with pytest.warns(UserWarning, match="longer than max_length 8"):
        ids = processor.prepare(TEXTS[1])["ids"].tolist()
    assert ids == [*bpe.encode(TEXTS[1], special=True)[:7], bpe.eos_id]
    exact = TextProcessor(bpe, len(bpe.encode(TEXTS[0], special=True)))
    assert exact.prepare(TEXTS[0])["ids"].tolist() == bpe.encode(TEXTS[0], special=True)


def test_a_text_without_tokens_is_refused() -> None:
    class Silent(Bytes):
        def encode(self, text: str, *, special: bool = False) -> list[int]:
            return []

    with pytest.raises(ReadError, match="returns no token"):
        TextProcessor(Silent(), 8).prepare("x")


def test_settings_tell_tokenizers_apart(bpe: BPE) -> None:
    other = BPE(size=300)
    other.fit(["quite another text"])
    marks = {fingerprint(t) for t in (bpe, other, Bytes())}
    assert len(marks) == 3
    twin = BPE(size=300)
    twin.load_state(bpe.state())
    assert TextProcessor(twin, 9).settings() == TextProcessor(bpe, 9).settings()
    assert TextProcessor(twin, 9).settings() != TextProcessor(bpe, 8).settings()
