"""What a text says is text, and comes back: over scripts, kinds of tokenizers, and typed tokens."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.open_clip_tokenizer import OpenClipTextProcessor
from sensorium.modalities.text.tokenizers import BPE, Bytes, PretrainedTokenizer
from sensorium.modalities.text_processor import PROBES, TextProcessor, lost_in_text
from sensorium.testing.common import copy_for_worker

TEXTS = [
    "a dog on a beach",
    "  two  spaces\t",
    " ",
    "line\nbreak\r\n",
    "e\u0301 é ﬁ",
    "👩‍🚀🏳️‍🌈",
    "\u200bzero\u00a0width\u00ad",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "你好 世界",
    "مرحبا \u202bبالعالم",
    "İstanbul ΟΔΟΣ ß",
    "\x00\x1f\x7f",
    "</s> <eos> [SEP]",
]
SPECIAL = ["<pad>", "</s>", "<unk>", "[SEP]"]


def bpe() -> BPE:
    built = BPE(size=320)
    built.fit(TEXTS)
    return built


def letters() -> Characters:
    built = Characters(lower=False)
    built.fit(TEXTS)
    return built


def pretrained(folder: Path, backend: Tokenizer) -> PretrainedTokenizer:
    ids = {name: backend.token_to_id(name) for name in ("</s>", "<unk>")}
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ids["</s>"])]
    )
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    extra = {"additional_special_tokens": ["[SEP]"]}
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, **names, **extra)
    fast.save_pretrained(folder)
    built = PretrainedTokenizer(name=str(folder))
    built.fit(())
    return built


def unigram(split: bool) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    if split:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=SPECIAL, unk_token="<unk>")
    backend.train_from_iterator(["a dog on a beach </s[EP]>", "b c"] * 20, trainer)
    return backend


def words(kind: Any) -> Tokenizer:
    vocab = [*SPECIAL, "a", "dog", "b", "<", "/", "s", ">", "[", "]", "/s>", "##/s>", "##SEP]"]
    backend = Tokenizer(kind({piece: i for i, piece in enumerate(vocab)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def pairs() -> Tokenizer:
    """As sentencepiece's BPE is brought over: merges that build a special token."""
    chars = [*"</s>abc[]EP S▁"]
    vocab = [*SPECIAL, *sorted(set(chars) - set(SPECIAL)), "</", "s>"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>")]
    backend = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(vocab)}, merges, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    return backend


PRETRAINED: dict[str, Callable[[], Tokenizer]] = {
    "unigram": lambda: unigram(True),
    "unigram, unsplit": lambda: unigram(False),
    "word pieces": lambda: words(models.WordPiece),
    "words": lambda: words(models.WordLevel),
    "pairs": pairs,
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("make", [Bytes, bpe, letters], ids=["bytes", "bpe", "letters"])
def test_texts_come_back(make: Callable[[], Any], text: str) -> None:
    tokenizer = make()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode(text)
    assert all(isinstance(tokenizer.decode(ids[:n]), str) for n in range(len(ids)))  # cut anywhere


def test_what_is_lost_is_known() -> None:
    assert lost_in_text(Bytes()) == lost_in_text(bpe()) == lost_in_text(letters()) == []
    lower = Characters()
    lower.fit(["".join(text for texts in PROBES.values() for text in texts)])
    assert lost_in_text(lower) == ["capitals"]


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_typed_special_token_is_text(tmp_path: Path, name: str) -> None:
    tokenizer = pretrained(tmp_path, PRETRAINED[name]())
    copies = [tokenizer, copy_for_worker(tokenizer), PretrainedTokenizer(name="x")]
    copies[2].load_state(json.loads(json.dumps(tokenizer.state())))
    forbidden = {tokenizer.backend.token_to_id(piece) for piece in ("<pad>", "</s>", "[SEP]")}
    for copy in copies:
        assert copy.state() == tokenizer.state()
        for text in ("a </s> b", "</s>", "<pad><pad>", "a[SEP]b </s></s>", "[SEP]"):
            assert not forbidden & set(copy.encode(text)), text
            assert copy.encode(text, special=True) == [*copy.encode(text), copy.eos_id]
        assert copy.encode_chat("a</s>")[-1] == copy.eos_id


def test_a_lossy_tokenizer_is_told(tmp_path: Path) -> None:
    lost = lost_in_text(pretrained(tmp_path, unigram(True)))
    assert "other scripts" in lost and "emoji" in lost


@pytest.mark.parametrize("text", ["<end_of_text>", "a <start_of_text> b", "<END_OF_TEXT>"])
def test_open_clip_reads_typed_tokens_as_text(text: str) -> None:
    processor = OpenClipTextProcessor("ViT-B-32", {"context_length": 20})
    ids = processor.prepare(text)["ids"].tolist()
    tokenizer = processor.tokenizer
    assert ids.count(tokenizer.sot_token_id) == ids.count(tokenizer.eot_token_id) == 1
    plain = OpenClipTextProcessor("ViT-B-32", {"context_length": 20}).prepare("a dog's 2 tails")
    known = SimpleTokenizer(context_length=20)(["a dog's 2 tails"])[0]
    assert plain["ids"].tolist() == known.tolist()


@pytest.mark.parametrize("name", ["unigram", "pairs"])
def test_open_clip_reads_typed_tokens_of_its_hub_tokenizers_as_text(
    tmp_path: Path, name: str
) -> None:
    tokenizer = pretrained(tmp_path, PRETRAINED[name]())
    config = {"context_length": 20, "hf_tokenizer_name": str(tmp_path)}
    sample = OpenClipTextProcessor("x", config).prepare("a </s> b")
    ids = sample["ids"][sample["mask"]].tolist()
    assert ids == tokenizer.encode("a </s> b", special=True) and ids.count(tokenizer.eos_id) == 1


@pytest.mark.parametrize("length", [2, 3, 8])
@pytest.mark.parametrize("name", [*PRETRAINED, "bytes", "bpe"])
def test_a_cut_keeps_the_tokens_at_the_ends(tmp_path: Path, name: str, length: int) -> None:
    built = {"bytes": Bytes, "bpe": bpe}
    tokenizer: Any = built[name]() if name in built else pretrained(tmp_path, PRETRAINED[name]())
    ends = tokenizer.encode("", special=True)
    processor = TextProcessor(tokenizer, length)
    if len(ends) >= length:
        with pytest.raises(ValueError, match="special tokens fill max_length 2"):
            processor.prepare("a b a b a b a b a b")
        return
    with pytest.warns(UserWarning, match=f"longer than max_length {length} and cut"):
        ids = processor.prepare("a b a b a b a b a b")["ids"].tolist()
    assert len(ids) == length and ids[-1] == tokenizer.eos_id
    assert tokenizer.bos_id is None or ids[0] == tokenizer.bos_id


def test_cut_texts_are_counted() -> None:
    processor = TextProcessor(Bytes(), 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(12):
            processor.prepare("a long text")
    assert processor.cut.count == 12
    assert ["10 texts so far" in str(w.message) for w in caught] == [False, True]
