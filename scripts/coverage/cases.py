"""One architecture of transformers as a backbone: its recipe, random rows, the library's call.

Legend: `B` rows, `T` positions, `D` width, `V` vocabulary.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, GenerationConfig

from ...backbones.causal import Causal
from ...backbones.masked import Masked
from ...backbones.seq2seq import Seq2Seq
from ...engine.recipe import parse_recipe
from ...modalities.base import Features
from ...modalities.text.tokenizers import Bytes
from .tiny_configs import tiny_config

CLASSES = {"causal": Causal, "seq2seq": Seq2Seq, "masked": Masked}


def enliven(model: nn.Module) -> None:
    """Give every parameter a value that matters: gains near 1, nothing that begins at zero."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.normal_(std=1 / math.sqrt(max(parameter[0].numel(), 1)))
            elif "bias" in name or not parameter.any():
                parameter.normal_(std=0.1)


@torch.no_grad()
def set_running_statistics(model: nn.Module, run: Callable[[], Any]) -> None:
    """Give every batch norm a gain of 1 and the statistics of its input during `run()`.

    With mean 0 and variance 1, or with a gain that begins at zero (EfficientNet), random weights
    let the signal fade from layer to layer, until all inputs have the same features.
    """

    def measure(module: Any, inputs: tuple[Tensor, ...]) -> None:
        channels = inputs[0].detach().float().transpose(0, 1).flatten(1)
        variance = channels.var(1, correction=0)
        module.running_mean.copy_(channels.mean(1))
        module.running_var.copy_(variance.where(variance > 0, torch.ones_like(variance)))

    norms: list[Any] = [m for m in model.modules() if getattr(m, "running_var", None) is not None]
    for norm in norms:
        if getattr(norm, "weight", None) is not None:
            nn.init.ones_(norm.weight)
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    if hooks:
        run()
    for hook in hooks:
        hook.remove()


class Case:
    """One architecture. model: the backbone; reference: the library's model in it."""

    def __init__(self, kind: str, model_type: str) -> None:
        self.kind = kind
        fields = tiny_config(CONFIG_MAPPING[model_type]).to_dict()
        fields.pop("transformers_version", None)
        self.config = json.loads(json.dumps(fields, default=str))  # as a recipe holds it
        torch.manual_seed(0)
        self.attn: Any = "sdpa"
        try:
            self.model: Any = self._build()
        except ValueError as error:
            if "attn: eager" not in str(error):
                raise
            self.attn = "eager"
            self.model = self._build()
        enliven(self.model)
        self.model.eval()
        self.reference: Any = self.model.model
        # Without the options of single families, such as an end that is forced.
        self.reference.generation_config = GenerationConfig(bos_token_id=1)
        self.dim = self.model.dim

    def _build(self) -> Any:
        return CLASSES[self.kind](tokenizer=Bytes(), config=self.config, attn=self.attn)

    def random(self, *lengths: int) -> Features:
        """Return random rows of these lengths, padded with noise on the right."""
        longest = max(lengths)
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        scale = float(self.model.table.weight.std())
        return Features(torch.randn(len(lengths), longest, self.dim) * scale, mask)

    def library_logits(self, embeds: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the library's logits `[B, T, V]` of packed rows."""
        if self.kind == "seq2seq":
            inputs = {"inputs_embeds": context, "decoder_inputs_embeds": embeds.clone()}
        else:
            inputs = {"inputs_embeds": embeds.clone()}
        return self.reference(**inputs).logits

    @torch.no_grad()
    def library_runs(self) -> None:
        self.library_logits(self.random(6, 6).tokens, self.random(5, 5).tokens)

    @property
    def how(self) -> str:
        return "bidirectional" if self.kind == "masked" else "causal"

    def hidden(self, embeds: Features, context: Features | None = None, how: str = "") -> Tensor:
        """Return our hidden states of embeds after a context (seq2seq: of its encoder)."""
        how = how or self.how
        if self.kind == "seq2seq" and context is None and how != "bidirectional":
            context = self.context(len(embeds.tokens))
        return self.model(embeds.tokens, embeds.mask, context, how)

    def context(self, count: int) -> Features:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.random(*[5] * count)

    def recipe(self, **backbone: Any) -> Any:
        """Return a recipe of an image stream in front of this architecture."""
        section = {"type": self.kind, "config": self.config, "attn": self.attn}
        return parse_recipe(recipe_values(self.kind, {**section, **backbone}))


@functools.cache
def _image_stream() -> dict[str, Any]:
    encoder = {"type": "patches", "size": 16, "patch_size": 8, "dim": 16}
    return {"image": {"modality": "image", "encoder": encoder, "connector": "linear"}}


def recipe_values(kind: str, backbone: dict[str, Any]) -> dict[str, Any]:
    """Return a captioning recipe with two steps; a masked model is the encoder of a text stream."""
    settings = {"steps": 2, "batch_size": 2, "optimizer": {"type": "sgd", "lr": 1e-3}}
    data = {"train": {"source": "digits", "split": "train", "limit": 4}}
    backbone = {**backbone, "tokenizer": "bytes", "weights": "none"}
    if kind == "masked":
        text = {"modality": "text", "encoder": {"share": "backbone", "attention": "bidirectional"}}
        task = {"type": "contrastive", "streams": ["image", "caption"], "dim": 8, "data": data}
        streams = {**_image_stream(), "caption": {**text, "connector": "mean"}}
        return {
            "inputs": streams,
            "backbone": backbone,
            "tasks": {"match": task},
            "train": settings,
        }
    task = {"type": "captioning", "prompt": "<image>", "target": " {caption}", "data": data}
    return {
        "inputs": _image_stream(),
        "backbone": backbone,
        "tasks": {"caption": task},
        "train": settings,
    }
