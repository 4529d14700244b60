"""The tokenizer and context length of an open_clip model.

Legend: `N` the model's context length, in tokens.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip.tokenizer
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from ..base import Processor, Sample
from ..text_processor import CutCounter
from .repo_id import LOCAL
from .special_pieces import protect_text


class OpenClipTextProcessor(Processor):
    """`{"ids": long [N], "mask": bool [N]}`: always the whole context, as open_clip runs it.

    The tokenizer is open_clip's own, built from `text_cfg` when the first text comes. A longer
    text is cut as open_clip cuts it, before its end of text, and counted. The content of a text is
    text: a typed `<end_of_text>` or `</s>` is no special token.
    """

    def __init__(self, name: str, text_cfg: dict[str, Any]) -> None:
        if text_cfg.get("tokenizer_mode"):
            raise ValueError(
                f"open_clip: {name!r} wants tokenizer_mode {text_cfg['tokenizer_mode']!r}, which "
                "puts tokens behind the padding; choose another model"
            )
        self.name, self.text_cfg = name, text_cfg
        self.cut = CutCounter()
        self.length: int = text_cfg.get("context_length", 77)  # open_clip's default

    @cached_property
    def tokenizer(self) -> Any:
        return build_tokenizer(self.name, self.text_cfg, local=True)

    def prepare(self, raw: str) -> Sample:
        ids = self.tokenizer([raw])[0]
        real = self._real(ids)
        if real == self.length and self._real(self._longer(raw)) > self.length:
            self.cut.add(f"the context of {self.length} tokens", raw)
        return {"ids": ids, "mask": torch.arange(len(ids)) < real}

    def _longer(self, raw: str) -> torch.Tensor:
        ids: torch.Tensor = self.tokenizer([raw], context_length=self.length + 1)[0]
        return ids

    def _real(self, ids: torch.Tensor) -> int:
        """Return the number of tokens before the padding."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        pad, end = (0, None) if inner is None else (inner.pad_token_id, inner.eos_token_id)
        other = (ids != pad).nonzero()
        count = int(other[-1]) + 1 if len(other) else 0
        # Some (SigLIP) pad with the end of text itself: the first of them is a token.
        return min(count + 1, len(ids)) if pad == end else count

    def settings(self) -> dict[str, Any]:
        keys = ("context_length", "tokenizer_kwargs")
        inner = getattr(self.tokenizer, "tokenizer", None)
        learned = "" if inner is None else inner.backend_tokenizer.to_str()
        return {
            **{key: self.text_cfg.get(key) for key in keys},
            "kind": type(self.tokenizer).__name__,
            "tokenizer": hashlib.sha256(learned.encode()).hexdigest(),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "tokenizer"}


def build_tokenizer(name: str, text_cfg: dict[str, Any], *, local: bool) -> Any:
    """Return open_clip's tokenizer of a model. local: only from files on this machine."""
    length, tokenizer_options = (
        text_cfg.get("context_length", 77),
        text_cfg.get("tokenizer_kwargs", {}),
    )
    source = text_cfg.get("hf_tokenizer_name")
    if not source:
        return _plain_simple(SimpleTokenizer(context_length=length, **tokenizer_options))
    if name.startswith(LOCAL):  # as open_clip: a folder brings its own
        source = str(Path(name.removeprefix(LOCAL)))
    tokenizer = HFTokenizer(
        source, context_length=length, local_files_only=local, **tokenizer_options
    )
    inner = tokenizer.tokenizer
    inner.split_special_tokens = True
    if getattr(inner, "backend_tokenizer", None) is not None:
        protect_text(inner.backend_tokenizer, inner.all_special_ids)
    return tokenizer


def _plain_simple(tokenizer: Any) -> Any:
    """Remove from the pattern the alternatives that match special tokens in a text."""
    special = "|".join(tokenizer.decoder[i] for i in tokenizer.all_special_ids)
    pattern = tokenizer.pat.pattern
    if not pattern.startswith(f"{special}|"):
        raise RuntimeError("open_clip: its tokenizer has another pattern; expected version 3")
    re: Any = open_clip.tokenizer.re  # not Python's own: it knows \p{L}
    tokenizer.pat = re.compile(pattern.removeprefix(f"{special}|"), re.IGNORECASE)
    return tokenizer
