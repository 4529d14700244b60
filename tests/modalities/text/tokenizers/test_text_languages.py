"""A language a row, for encoders with parameters of each language."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from sensorium.engine.recipe.streams import PromptedRead
from sensorium.modalities.base import ReadError
from sensorium.modalities.groups import collate
from sensorium.modalities.text.encoders.classifier import SequenceClassifier
from sensorium.modalities.text.read import read
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.modalities.text.transformers import TransformersText
from sensorium.tasks.common import merged_ids
from sensorium.tasks.language.masked.text import TextIds, encode_text

LANGUAGES = ["en_XX", "de_DE", "de_CH"]
CONFIG: dict[str, Any] = {
    "model_type": "xmod", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 66, "languages": LANGUAGES,
    "adapter_reduction_factor": 2,
}  # fmt: skip


def xmod(default: str | None = "de_DE") -> TransformersText:
    torch.manual_seed(0)
    config = {**CONFIG, "default_language": default}
    encoder = TransformersText(config=config, tokenizer=Bytes(), max_length=32, lm_head=True)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


def samples(encoder: TransformersText, *cells: Any) -> list[dict[str, torch.Tensor]]:
    return [encoder.processor.prepare(read(cell)) for cell in cells]


def cell(text: str, language: str) -> dict[str, str]:
    return {"text": text, "language": language}


def test_each_row_runs_in_its_language() -> None:
    encoder = xmod()
    rows = samples(encoder, cell("grüezi", "de_CH"), "haus", cell("a house", "en_XX"))
    batch = encoder.collate(rows)
    assert batch["languages"].tolist() == [2, 1, 0]  # the second by default
    features = encoder(**batch)
    expected = encoder.encoder(
        input_ids=batch["ids"],
        attention_mask=batch["mask"].long(),
        lang_ids=torch.tensor([2, 1, 0]),
    ).last_hidden_state
    expected = expected * batch["mask"][..., None]
    torch.testing.assert_close(features.tokens, expected)
    for index, row in enumerate(rows):
        alone = encoder(**encoder.collate([row])).tokens[0]
        torch.testing.assert_close(features.tokens[index, : len(alone)], alone)
    other = encoder(**encoder.collate(samples(encoder, cell("grüezi", "en_XX")))).tokens
    assert not torch.allclose(other, features.tokens[:1, : other.shape[1]], atol=1e-3)


def test_classifiers_read_them_too() -> None:
    torch.manual_seed(0)
    config = {**CONFIG, "default_language": "de_DE"}
    encoder: Any = SequenceClassifier(config=config, tokenizer=Bytes(), max_length=32)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    outputs = [
        encoder.eval()(**encoder.collate(samples(encoder, each))).tokens
        for each in ("haus", cell("haus", "de_DE"), cell("haus", "de_CH"))
    ]
    torch.testing.assert_close(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-3)


def test_masked_text_keeps_its_languages() -> None:
    """As ids of a masked text, in any group of lengths, a row has the states of its language."""
    encoder = xmod()
    rows = samples(
        encoder, cell("grüezi", "de_CH"), cell("a house", "en_XX"), cell("haus", "de_CH")
    )
    expected = encoder(**encoder.collate(rows)).tokens
    for invariant in (True, False):
        encoder.batch_invariant = invariant
        text = TextIds.of(collate(encoder, rows), encoder)
        torch.testing.assert_close(encode_text(encoder, text).tokens, expected)
        order = torch.tensor([2, 0, 1])
        part = text.of_rows(order, text.ids[order], text.mask[order], text.special[order])
        torch.testing.assert_close(encode_text(encoder, part).tokens, expected[order])


def test_a_task_that_reads_ids_alone_is_refused() -> None:
    encoder = xmod()
    with pytest.raises(ValueError, match="parameters of each language"):
        merged_ids(encoder.collate(samples(encoder, "a")), encoder.tokenizer)


def test_what_does_not_name_a_language_is_refused() -> None:
    with pytest.raises(ReadError, match="'fr_XX'; expected one of en_XX, de_DE, de_CH"):
        samples(xmod(), cell("maison", "fr_XX"))
    with pytest.raises(ReadError, match="names no language; expected one of en_XX"):
        samples(xmod(default=None), "maison")
    for bad in ({"text": "a"}, {"text": "a", "language": 3}, {"text": "a", "lang": "en_XX"}):
        with pytest.raises(ReadError, match="expected text and language"):
            read(bad)


def test_a_text_with_its_language_is_a_text() -> None:
    text: Any = read(cell("grüezi", "de_CH"))
    copied = copy.deepcopy(text)  # by what a loader worker sends it with
    assert text == copied == "grüezi" and copied.language == "de_CH"
    prompted = PromptedRead(read, "query: ")(cell("grüezi", "de_CH"))
    assert prompted == "query: grüezi" and prompted.language == "de_CH"
    assert "languages" not in TransformersText(
        config={"model_type": "bert", "hidden_size": 16, "intermediate_size": 24,
                "num_hidden_layers": 1, "num_attention_heads": 2}, tokenizer=Bytes(), max_length=32,
    ).processor.settings()  # fmt: skip
