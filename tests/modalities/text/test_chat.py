"""Chat templates of a checkpoint's own tokenizer, against transformers'."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from sensorium.modalities.text.tokenizers import BPE, Bytes, PretrainedTokenizer
from sensorium.testing.common import copy_for_worker

CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if no_thoughts is defined %}<think></think>{% endif %}{% endif %}"
)
WITH_BOS = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
STRICT = (
    "{% if messages[0].role != 'user' %}{{ raise_exception('the first message is a user''s') }}"
    "{% endif %}{{ messages[0].content }}"
)
MESSAGES = [
    {"role": "system", "content": "You describe pictures."},
    {"role": "user", "content": "What is red?\nA robot, né 猫"},
]


@pytest.fixture
def with_template(
    tmp_path: Path, bpe: BPE
) -> Callable[[str | None], tuple[PretrainedTokenizer, Any]]:
    """A fitted tokenizer with this template, and transformers' own of the same folder."""

    def make(template: str | None) -> tuple[PretrainedTokenizer, Any]:
        theirs = PreTrainedTokenizerFast(
            tokenizer_object=bpe.backend,
            pad_token="<pad>",
            bos_token="<bos>",
            eos_token="<eos>",
            additional_special_tokens=["<|start|>", "<|end|>"],
        )
        theirs.chat_template = template
        theirs.save_pretrained(tmp_path)
        ours = PretrainedTokenizer(name=str(tmp_path))
        ours.fit(())
        return ours, PreTrainedTokenizerFast.from_pretrained(tmp_path)

    return make


@pytest.mark.parametrize("template", [CHATML, WITH_BOS])
def test_text_and_ids_are_those_of_transformers(
    template: str, with_template: Callable[..., tuple[PretrainedTokenizer, Any]]
) -> None:
    ours, theirs = with_template(template)
    options: dict[str, Any] = {"add_generation_prompt": True}
    text = ours.chat(MESSAGES)
    assert text == theirs.apply_chat_template(MESSAGES, tokenize=False, **options)
    known = theirs.apply_chat_template(MESSAGES, tokenize=True, return_dict=True, **options)
    assert ours.encode_chat(text) == known["input_ids"]
    assert ours.encode(text) != known["input_ids"]  # elsewhere, what a text says is text
    assert ours.decode(ours.encode(text)) == text


def test_options_of_the_template(
    with_template: Callable[..., tuple[PretrainedTokenizer, Any]],
) -> None:
    ours, theirs = with_template(CHATML)
    text = ours.chat(MESSAGES, no_thoughts=True)
    assert text.endswith("<think></think>")
    known = theirs.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True, no_thoughts=True
    )
    assert text == known


@pytest.mark.parametrize("placeholder", ["<image>", "{question}", "\ue000\ue001"])
def test_placeholders_stay_where_they_stand(
    placeholder: str, with_template: Callable[..., tuple[PretrainedTokenizer, Any]]
) -> None:
    ours, _ = with_template(CHATML)
    messages = [{"role": "user", "content": f"{placeholder} and {placeholder}?"}]
    before, between, after = ours.chat(messages).split(placeholder)
    assert before == "<|start|>user\n" and between == " and "
    assert after == "?<|end|>\n<|start|>assistant\n"


@pytest.mark.parametrize("content", ["stop<|end|>", "<bos>", "a <|start|>system"])
def test_a_message_never_becomes_a_special_token(
    content: str, with_template: Callable[..., tuple[PretrainedTokenizer, Any]]
) -> None:
    ours, _ = with_template(CHATML)
    with pytest.raises(ValueError, match=r"chat: message 2 holds .*, a special token"):
        ours.chat([MESSAGES[0], {"role": "user", "content": content}])


def test_the_template_travels_with_the_state(
    with_template: Callable[..., tuple[PretrainedTokenizer, Any]],
) -> None:
    ours, _ = with_template(WITH_BOS)
    state = json.loads(json.dumps(ours.state()))
    again = PretrainedTokenizer(name="elsewhere")
    again.load_state(state)
    for other in (again, copy_for_worker(ours)):
        assert other.chat(MESSAGES) == ours.chat(MESSAGES)
        text = ours.chat(MESSAGES)
        assert other.encode_chat(text) == ours.encode_chat(text)
        assert other.encode("<bos>") == ours.encode("<bos>")


def test_a_tokenizer_without_a_template_keeps_its_state(
    with_template: Callable[..., tuple[PretrainedTokenizer, Any]],
) -> None:
    ours, _ = with_template(None)
    assert set(ours.state()) == {"tokenizer", "pad_id", "bos_id", "eos_id", "mask_id"}
    with pytest.raises(ValueError, match=r"tokenizer own: .* has no chat template; write the"):
        ours.chat(MESSAGES)


def test_what_cannot_be_rendered_is_one_line(
    with_template: Callable[..., tuple[PretrainedTokenizer, Any]], bpe: BPE
) -> None:
    ours, _ = with_template(STRICT)
    with pytest.raises(ValueError, match="the chat template refuses it: the first message"):
        ours.chat(MESSAGES)
    lost, _ = with_template("{{ messages[0].role }}")
    with pytest.raises(ValueError, match="chat: the template leaves out message 1"):
        lost.chat(MESSAGES[1:])
    broken, _ = with_template("{% for %}")
    with pytest.raises(ValueError, match="chat template refuses it"):
        broken.chat(MESSAGES)
    for other in (bpe, Bytes()):
        with pytest.raises(ValueError, match="has no chat template; write the prompt as one text"):
            other.chat(MESSAGES)


def test_without_a_template_there_is_no_markup(bpe: BPE) -> None:
    assert bpe.encode_chat("<bos> a red robot") == bpe.encode("<bos> a red robot")
    assert Bytes().encode_chat("<eos>") == Bytes().encode("<eos>")
