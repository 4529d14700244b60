"""A decoder that runs in a vLLM server: it gets prompts as embeddings and returns new ids.

    vllm serve FOLDER --enable-prompt-embeds
    sensorium serve RUN --decoder http://127.0.0.1:8001

FOLDER holds the run's own decoder: the folder or hub id that the recipe names, if it is frozen, or
what `sensorium export RUN --part backbone --format hf` wrote.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from ...backbones.causal import Causal
from ...modalities.base import Features
from ...modalities.messages import shorten
from ..inference import Pipeline
from ..model import Model
from ..utils import ConfigError, RuntimeFailure

OPTIONS = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}
"""Options of transformers' `generate` and their names in vLLM's requests."""

MAX_TOKENS = 20
"""New tokens where nothing names their number, as in transformers."""


class RemoteDecoder:
    """A vLLM server. url: up to `/v1`, which may be left out. timeout: seconds of an answer."""

    def __init__(self, url: str, timeout: float = 600.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--decoder: found {url!r}, expected an address, http://HOST:PORT")
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self.timeout = timeout
        models = self._call("models")
        try:
            self.model = str(models["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise ConfigError(f"--decoder: {self.url}/models lists no model") from error

    def attach(self, pipelines: Mapping[str, Pipeline]) -> None:
        """Let the decoders of runs generate here. Raise ConfigError where one cannot: see
        `unsupported_reason`."""
        for name, pipeline in pipelines.items():
            if (reason := unsupported_reason(pipeline.model)) is not None:
                raise ConfigError(f"--decoder: {name}: {reason}")
            self._attach(pipeline.model.backbone)

    def _attach(self, backbone: Any) -> None:

        def generate(
            condition: Features, attention: Any = "causal", streamer: Any = None, **options: Any
        ) -> Tensor:
            if attention != "causal":
                raise ValueError(f"--decoder: vLLM attends causally, found {attention}")
            ids = self.generate(condition, backbone, {**backbone.generation, **options})
            if streamer is not None:
                streamer.put(ids.cpu())
                streamer.end()
            return ids

        vars(backbone)["generate"] = generate

    @torch.no_grad()
    def generate(self, condition: Features, backbone: Any, options: Mapping[str, Any]) -> Tensor:
        """Return new ids `[B, L]` after the embeddings of a condition, padded with `pad_id`."""
        tokenizer, rows = backbone.tokenizer, zip(condition.tokens, condition.mask, strict=True)
        body = {
            "model": self.model,
            "prompt_embeds": [encode(tokens[mask].to(backbone.dtype)) for tokens, mask in rows],
            "return_token_ids": True,
            **request_options(options, tokenizer.eos_id),
        }
        answer = self._call("completions", body)
        try:
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            ids = [list(choice["token_ids"]) for choice in choices]
        except (KeyError, TypeError) as error:
            raise RuntimeFailure(
                f"{self.url}: its answer has no token_ids; update vLLM to 0.10.2 or newer"
            ) from error
        if len(ids) != len(condition.tokens):
            raise RuntimeFailure(
                f"{self.url}: {len(ids)} answers for {len(condition.tokens)} prompts"
            )
        length = max(map(len, ids), default=0)
        padded = [row + [tokenizer.pad_id] * (length - len(row)) for row in ids]
        return torch.tensor(padded, dtype=torch.long, device=condition.tokens.device)

    def _call(self, route: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/{route}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            text = shorten(error.read(2000).decode("utf-8", "replace"))
            raise RuntimeFailure(f"{self.url}/{route}: {error.code}: {text}") from error
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"{self.url}/{route}: {shorten(str(error))}") from error


def encode(embeds: Tensor) -> str:
    """Return embeddings `[P, D]` as vLLM's `prompt_embeds` holds them: base64 of `torch.save`. The
    protocol leaves no other form; nothing is ever read in it here."""
    buffer = io.BytesIO()
    torch.save(embeds.detach().cpu().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def request_options(options: Mapping[str, Any], eos_id: int | None) -> dict[str, Any]:
    """Return options of `generate` as fields of vLLM's request. Raise ValueError for one that it
    has not."""
    values = {name: value for name, value in options.items() if value is not None}
    samples = values.pop("do_sample", False)
    for name in ("num_beams", "num_return_sequences"):
        if values.pop(name, 1) != 1:
            raise ValueError(f"{name}: --decoder hands requests to vLLM, which takes 1 here")
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise ValueError(
            f"{unknown[0]}: --decoder hands requests to vLLM, which takes {', '.join(OPTIONS)}"
        )
    fields = {"max_tokens": MAX_TOKENS, "temperature": 1.0}
    fields |= {OPTIONS[name]: value for name, value in values.items()}
    if not samples:
        fields["temperature"] = 0.0
    stop = {} if eos_id is None else {"stop_token_ids": [eos_id]}
    return {**fields, **stop}


def unsupported_reason(model: Model) -> str | None:
    """Return why a model's decoder cannot run in a vLLM server; None if it can."""
    backbone = model.backbone
    if not isinstance(backbone, Causal):
        kind = "no backbone" if backbone is None else f"a backbone {type(backbone).__name__}"
        return f"has {kind}; vLLM runs causal ones"
    if backbone.num_added_tokens:
        return (
            f"its decoder has {backbone.num_added_tokens} added rows, which vLLM does not know; "
            "export the backbone, and train with the exported folder's tokenizer"
        )
    if any(isinstance(module, BaseTunerLayer) for module in backbone.modules()):
        return (
            "its decoder has adapters; merge them with sensorium export --part backbone --format "
            "hf, and name that folder in a recipe"
        )
    for name in model.tasks:
        attention = getattr(model.task(name), "attention", "causal")
        if attention != "causal":
            return f"tasks.{name}.attention: is {attention}, and vLLM attends causally"
    return None
