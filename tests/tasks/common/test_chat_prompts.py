"""A chat prompt by the template of a checkpoint's own tokenizer: its ids are transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from sensorium.modalities.text.tokenizers import BPE, PretrainedTokenizer
from sensorium.tasks.common.prompts import parse_prompt

CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SYSTEM = {"role": "system", "content": "You describe pictures."}


@pytest.fixture
def tokenizers(tmp_path: Path) -> tuple[PretrainedTokenizer, Any]:
    bpe = BPE(size=300)
    bpe.fit(["a red robot", "what is this?"])
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=bpe.backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<|start|>", "<|end|>"],
    )
    theirs.chat_template = CHATML
    theirs.save_pretrained(tmp_path)
    ours = PretrainedTokenizer(name=str(tmp_path))
    ours.fit(())
    return ours, PreTrainedTokenizerFast.from_pretrained(tmp_path)


def test_without_streams_the_ids_are_those_of_the_template(
    tokenizers: tuple[PretrainedTokenizer, Any],
) -> None:
    ours, theirs = tokenizers
    prompt = parse_prompt({"chat": [SYSTEM, {"role": "user", "content": "{question}"}]})
    ids = prompt.encode({"question": "what is this?"}, ours)
    messages = [SYSTEM, {"role": "user", "content": "what is this?"}]
    known = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert ids["prompt.0"].tolist() == known["input_ids"]


def test_a_stream_stands_between_two_texts(tokenizers: tuple[PretrainedTokenizer, Any]) -> None:
    ours, theirs = tokenizers
    prompt = parse_prompt({"chat": [{"role": "user", "content": "<image> {question}"}]})
    ids = prompt.encode({"question": "what is this?"}, ours)
    before, after = ids["prompt.0"].tolist(), ids["prompt.1"].tolist()
    assert before == theirs("<|start|>user\n", add_special_tokens=False)["input_ids"]
    rest = " what is this?<|end|>\n<|start|>assistant\n"
    assert after == theirs(rest, add_special_tokens=False)["input_ids"]


def test_what_a_row_says_is_text(tokenizers: tuple[PretrainedTokenizer, Any]) -> None:
    prompt = parse_prompt({"chat": [{"role": "user", "content": "{question}"}]})
    with pytest.raises(ValueError, match=r"message 1 holds <\|end\|>, a special token"):
        prompt.encode({"question": "stop<|end|>"}, tokenizers[0])
