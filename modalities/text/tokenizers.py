"""Tokenizers: bytes, a byte-level BPE trained on the recipe's own text, a checkpoint's own.

`BPE`: Sennrich et al. 2016, over bytes as in GPT-2, trained by 🤗 tokenizers. The content of a text
is text: `<image>` or `<eos>` typed by somebody never becomes a special token, in any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE as BPEModel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from ..base import PositiveInt, Tokenizer
from .repo_id import parse_repo_id
from .special_pieces import protect_text

SPECIAL = ("<pad>", "<bos>", "<eos>", "<mask>")  # ids 0, 1, 2, 3
TRANSIENT = ("_backend", "_pre_tokenizer", "_markup")
"""Attributes that are rebuilt from the state."""


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8 after four special tokens. Needs no fit; ids are `byte + 4`."""

    size = len(SPECIAL) + 256
    pad_id, bos_id, eos_id, mask_id = range(len(SPECIAL))

    def __init__(self) -> None:
        """There are no options."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of a text; with `special` between `<bos>` and `<eos>`."""
        ids = [byte + len(SPECIAL) for byte in text.encode("utf-8")]
        return [self.bos_id, *ids, self.eos_id] if special else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; invalid UTF-8 (a truncated character) becomes U+FFFD."""
        raw = bytes(i - len(SPECIAL) for i in ids if len(SPECIAL) <= i < self.size)
        return raw.decode("utf-8", errors="replace")

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """There is no state."""


class _Backed(Tokenizer):
    """A tokenizer with a 🤗 backend: None until `fit` or `load_state`."""

    mask_id: int | None = None
    _backend: Backend | None = None
    _pre_tokenizer: Any = None
    _chat: Mapping[str, Any] | None = None

    @property
    def backend(self) -> Backend:
        if self._backend is None:
            name = type(self).__name__.lower()
            raise RuntimeError(f"tokenizer {name}: used before fit or load_state")
        return self._backend

    def __getattr__(self, name: str) -> Any:
        """Raise an error that explains why an attribute is missing before the fit."""
        if name in ("pad_id", "eos_id"):
            return self.backend  # raises
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # An attribute in the contract; here it is known only after `fit`.
    @property
    def size(self) -> int:  # type: ignore[override]
        return int(max(self.backend.get_vocab(with_added_tokens=True).values())) + 1

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of a text; with `special` inside the tokenizer's template."""
        return list(self.backend.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=True))

    def special_id(self, token: str) -> int | None:
        added = self.backend.get_added_tokens_decoder()
        return next((i for i, t in added.items() if t.special and t.content == token), None)

    def state(self) -> dict[str, Any]:
        """Return the text of a `tokenizer.json`, and the special ids that it does not name."""
        backend = self.backend
        guarded, backend.pre_tokenizer = backend.pre_tokenizer, self._pre_tokenizer
        text = backend.to_str()
        backend.pre_tokenizer = guarded
        ids = {key: getattr(self, key) for key in ("pad_id", "bos_id", "eos_id", "mask_id")}
        chat = {} if self._chat is None else {"chat": dict(self._chat)}
        return {"tokenizer": text, **ids, **chat}

    def load_state(self, state: Mapping[str, Any]) -> None:
        backend = Backend.from_str(state["tokenizer"])
        # A file may define truncation and padding, which are the processor's.
        backend.no_truncation()
        backend.no_padding()
        self._backend, self._pre_tokenizer = backend, backend.pre_tokenizer
        special = [state[key] for key in ("pad_id", "bos_id", "eos_id", "mask_id")]
        protect_text(backend, special)
        self.pad_id, self.eos_id = state["pad_id"], state["eos_id"]
        self.bos_id, self.mask_id = state["bos_id"], state["mask_id"]
        self._chat = state.get("chat")
        vars(self).pop("_markup", None)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled backend forgets `encode_special_tokens`: travel as the state.
        attributes = {k: v for k, v in vars(self).items() if k not in TRANSIENT}
        return {"rest": attributes, "state": None if self._backend is None else self.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state["rest"])
        if state["state"] is not None:
            self.load_state(state["state"])


class BPE(_Backed):
    """Byte-level pairs, fitted on the training split; encodes any text without loss.

    size: the largest vocabulary, special tokens and 256 bytes included; after the fit, the
    vocabulary's size. Equal texts yield equal vocabularies.
    """

    def __init__(self, *, size: PositiveInt = 512) -> None:
        least = Bytes.size
        if size < least:
            raise ValueError(
                f"tokenizer bpe: size {size} is below {least} (256 bytes and "
                f"{len(SPECIAL)} special tokens); use {least} or more, or use bytes"
            )
        self.requested_size = size

    def check_example(self, example: Any) -> None:
        if not isinstance(example, str):
            raise ValueError(f"tokenizer bpe: fits on texts, found {type(example).__name__}")

    def fit(self, rows: Iterable[Any]) -> None:
        """Learn the merges of `rows`, which are texts. Raise ValueError if there are none."""
        backend = Backend(BPEModel())
        backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
        backend.decoder = ByteLevelDecoder()
        trainer = BpeTrainer(
            vocab_size=self.requested_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(_texts(rows), trainer)
        backend.post_processor = TemplateProcessing(
            single="<bos> $A <eos>",
            special_tokens=[(name, SPECIAL.index(name)) for name in ("<bos>", "<eos>")],
        )
        pad, bos, eos, mask = range(len(SPECIAL))
        ids = {"pad_id": pad, "bos_id": bos, "eos_id": eos, "mask_id": mask}
        self.load_state({"tokenizer": backend.to_str(), **ids})


class PretrainedTokenizer(_Backed):
    """A checkpoint's tokenizer, from a folder or a hub id, loaded by `fit`.

    eos: the token that ends a text, if the checkpoint names none. Padding is always masked, so
    without a padding token `pad_id` is `eos_id`. BERT and its relatives end texts with the
    separator and begin them with the class token: these are `eos_id` and `bos_id`; `bos_id` is None
    without either (T5, Qwen). A model may have more rows than `size`.
    """

    def __init__(self, *, name: str, eos: str | None = None) -> None:
        self.name, self.eos = name, eos

    def fit(self, rows: Iterable[Any]) -> None:
        """Load the tokenizer (may download); the rows are not read."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(**parse_repo_id(self.name))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"tokenizer own: none at {self.name!r}: {reason}") from error
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(
                f"tokenizer own: {self.name!r} has a {type(tokenizer).__name__} without a "
                "tokenizer.json; convert it with transformers' save_pretrained, or use bpe or bytes"
            )
        eos_id = self._end(tokenizer, backend)
        self.load_state(
            {
                "tokenizer": backend.to_str(),
                "pad_id": eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
                "bos_id": _first(tokenizer.bos_token_id, tokenizer.cls_token_id),
                "eos_id": eos_id,
                "mask_id": tokenizer.mask_token_id,
                "chat": self._template(tokenizer),
            }
        )

    @staticmethod
    def _template(tokenizer: Any) -> dict[str, Any] | None:
        """Return the chat template of a tokenizer of transformers, and the tokens that it may
        use."""
        if not tokenizer.chat_template:
            return None
        return {
            "template": tokenizer.get_chat_template(),
            "tokens": dict(tokenizer.special_tokens_map),
        }

    def chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
        """As transformers' `apply_chat_template` with `add_generation_prompt`. A content that
        holds a special token is refused: the content of a text is text."""
        if self._chat is None:
            raise ValueError(
                f"tokenizer own: {self.name!r} has no chat template; write the prompt as one text"
            )
        special = [t.content for t in self.backend.get_added_tokens_decoder().values() if t.special]
        contents = [message["content"] for message in messages]
        for number, content in enumerate(contents, 1):
            if token := next((token for token in special if token in content), None):
                raise ValueError(f"chat: message {number} holds {token}, a special token")
        try:
            (text,), _ = render_jinja_template(
                [list(messages)],
                chat_template=self._chat["template"],
                add_generation_prompt=True,
                **{**self._chat["tokens"], **options},
            )
        except (TemplateError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"chat: the chat template refuses it: {reason}") from error
        for number, content in enumerate(contents, 1):
            if content.strip() not in text:
                raise ValueError(f"chat: the template leaves out message {number}: {content!r}")
        return str(text)

    @cached_property
    def _markup(self) -> Backend:
        """The backend that parses special tokens in a text."""
        return Backend.from_str(self.backend.to_str())

    def encode_chat(self, text: str) -> list[int]:
        return list(self._markup.encode(text, add_special_tokens=False).ids)

    def _end(self, tokenizer: Any, backend: Backend) -> int:
        """Return the id that ends a text. Raise ValueError if none is named, or an unknown one
        is."""
        if self.eos is not None:
            eos_id: int | None = backend.token_to_id(self.eos)
            if eos_id is None:
                raise ValueError(
                    f"tokenizer own: {self.name!r} has no token {self.eos!r}; name one it has"
                )
            return eos_id
        end = _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
        if end is None:
            raise ValueError(
                f"tokenizer own: {self.name!r} has no end of text; "
                "name one of its tokens by eos: '...'"
            )
        return end


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


def _texts(rows: Iterable[Any]) -> Iterator[str]:
    count = 0
    for row in rows:
        if not isinstance(row, str):
            raise ValueError(f"tokenizer bpe: fits on texts, row {count} is {type(row).__name__}")
        count += 1
        yield row
    if count == 0:
        raise ValueError("tokenizer bpe: there is no text to fit on; use bytes, or give data")
