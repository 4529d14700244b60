"""Tokenizers: no text is lost, specials stay special, a state is all that a run needs."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sensorium.modalities.base import Tokenizer
from sensorium.modalities.text import TEXT
from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.tokenizers import BPE, Bytes, PretrainedTokenizer
from sensorium.testing.common import copy_for_worker

TEXTS = ["a handwritten seven, thin and slanted", "a handwritten two, bold", "<image> naïve 猫"] * 4
STRANGE = ["", " ", "\n\t\r\x00", "e\u0301 é ﬁ", "👩‍🚀"]
TYPED = "say <eos> or <image> or <pad><bos> literally"


def trained() -> BPE:
    bpe = BPE(size=320)
    bpe.fit(TEXTS)
    return bpe


def spelled() -> Characters:
    characters = Characters()
    characters.fit([*TEXTS, TYPED, *STRANGE])
    return characters


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's own tokenizer, in transformers' format: byte-level, with template."""
    path = tmp_path_factory.mktemp("own")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(trained().state()["tokenizer"]),
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        mask_token="<mask>",
        additional_special_tokens=["<image>"],
    )
    fast("warm", padding="max_length", truncation=True, max_length=4)  # saved with the file
    fast.save_pretrained(path)
    return path


def own(folder: Path) -> PretrainedTokenizer:
    built = PretrainedTokenizer(name=str(folder))
    built.fit(())
    return built


MAKERS: dict[str, Callable[[Path], Tokenizer]] = {
    "bpe": lambda _: trained(),
    "bytes": lambda _: Bytes(),
    "characters": lambda _: spelled(),
    "pretrained": own,
}


@pytest.fixture(params=[name for name in TEXT.tokenizers if name != "nucleotides"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    built = MAKERS[request.param](folder)
    module, _, name = TEXT.tokenizers[request.param].partition(":")
    assert type(built) is getattr(importlib.import_module(module), name)
    return built


@pytest.mark.parametrize("text", [*TEXTS[:3], TYPED, *STRANGE])
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.size for i in ids)
    special = tokenizer.encode(text, special=True)
    assert special == [tokenizer.bos_id, *ids, tokenizer.eos_id]
    assert tokenizer.decode([*special, tokenizer.pad_id]) == text


@pytest.mark.parametrize("tokenizer", [trained(), Bytes()], ids=["bpe", "bytes"])
@given(text=st.text())
@settings(deadline=None, max_examples=200)
def test_any_text_round_trips(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_typed_specials_stay_text(tokenizer: Tokenizer) -> None:
    specials = {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}
    assert len(specials) == 3
    assert not specials & set(tokenizer.encode(TYPED))


def test_state_is_enough(tokenizer: Tokenizer, tmp_path: Path) -> None:
    state = json.loads(json.dumps(tokenizer.state()))
    fresh = (
        PretrainedTokenizer(name="not/there")
        if isinstance(tokenizer, PretrainedTokenizer)
        else type(tokenizer)()
    )
    fresh.load_state(state)
    for twin in (fresh, copy_for_worker(tokenizer), copy.deepcopy(tokenizer)):
        assert twin.encode(TYPED, special=True) == tokenizer.encode(TYPED, special=True)
        assert twin.state() == tokenizer.state()
        assert (twin.size, twin.pad_id, twin.eos_id) == (
            tokenizer.size,
            tokenizer.pad_id,
            tokenizer.eos_id,
        )


def test_batch(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer.encode_batch(["a handwritten seven", "a"], special=True)
    assert mask.sum(1).tolist() == [
        len(tokenizer.encode(t, special=True)) for t in ("a handwritten seven", "a")
    ]
    assert (ids[~mask] == tokenizer.pad_id).all() and (~mask).any()


def test_ids_outside_the_vocabulary_are_no_text(tokenizer: Tokenizer) -> None:
    """A backbone's added tokens have ids behind the tokenizer's."""
    ids = tokenizer.encode("two")
    assert tokenizer.decode([tokenizer.size + 3, *ids, tokenizer.size]) == "two"


def test_bpe_is_deterministic_and_shorter_than_bytes() -> None:
    assert trained().state() == trained().state()
    assert Bytes.size < trained().size <= 320
    assert len(trained().encode(TEXTS[0])) < len(Bytes().encode(TEXTS[0])) / 2


@pytest.mark.parametrize("tokenizer", [BPE(), Characters(), PretrainedTokenizer(name="not/there")])
def test_used_before_fit(tokenizer: Tokenizer) -> None:
    uses: list[Callable[[], object]] = [
        lambda: tokenizer.size,
        lambda: tokenizer.encode("a"),
        lambda: tokenizer.decode([5]),
        tokenizer.state,
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="used before fit or load_state"):
            use()


def test_bpe_refuses() -> None:
    with pytest.raises(ValueError, match="size 100 is below 260"):
        BPE(size=100)
    with pytest.raises(ValueError, match="no text to fit on"):
        BPE().fit([])
    with pytest.raises(ValueError, match="row 1 is int"):
        BPE().fit(["a", 3])


def test_own_equals_transformers(folder: Path) -> None:
    theirs, ours = AutoTokenizer.from_pretrained(folder), own(folder)
    for text in TEXTS[:2]:
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text, special=True) == theirs(text).input_ids
    assert ours.size == len(theirs)
    assert (ours.pad_id, ours.bos_id, ours.eos_id, ours.mask_id) == (
        theirs.pad_token_id,
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.mask_token_id,
    )


def word_pieces(tmp_path: Path, **names: str) -> str:
    """BERT's kind: `[CLS] text [SEP]`, lower case."""
    vocab = {w: i for i, w in enumerate(["[UNK]", "[CLS]", "[SEP]", "a", "cat", "##s"])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **names)
    fast.save_pretrained(tmp_path)
    return str(tmp_path)


def test_own_of_berts_kind(tmp_path: Path) -> None:
    built = PretrainedTokenizer(name=word_pieces(tmp_path, cls_token="[CLS]", sep_token="[SEP]"))
    built.fit(())
    assert built.encode("A cats", special=True) == [1, 3, 4, 5, 2]
    assert (built.bos_id, built.eos_id) == (1, 2)
    assert built.pad_id == built.eos_id  # it has no padding token
    assert built.mask_id is None


def test_own_without_an_end(tmp_path: Path) -> None:
    name = word_pieces(tmp_path)
    with pytest.raises(ValueError, match="has no end of text; name one"):
        PretrainedTokenizer(name=name).fit(())
    with pytest.raises(ValueError, match="has no token '<end>'"):
        PretrainedTokenizer(name=name, eos="<end>").fit(())
    built = PretrainedTokenizer(name=name, eos="[SEP]")
    built.fit(())
    assert built.eos_id == built.pad_id == 2 and built.bos_id is None


def test_own_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer own: none at"):
        PretrainedTokenizer(name=str(tmp_path / "nothing")).fit(())


def test_characters_are_what_the_training_texts_hold() -> None:
    built = Characters()
    built.fit(["Go", "on"])
    assert (built.encode("GOON"), built.decode(built.encode("GOON"))) == ([3, 5, 5, 4], "goon")
    with pytest.raises(ValueError, match="'stop' holds 'p', 's', 't', which none of the 3"):
        built.encode("stop")
    with pytest.raises(ValueError, match="no text to fit on"):
        Characters().fit(["", ""])
    with pytest.raises(ValueError, match="row 1 is int"):
        Characters().fit(["a", 3])
    remaining = Characters(lower=False)
    remaining.fit(["Go", "on"])
    assert remaining.decode(remaining.encode("Goo")) == "Goo"
