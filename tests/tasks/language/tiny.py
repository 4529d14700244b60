"""Tiny models and texts for tests of learning from text."""

from __future__ import annotations

from typing import Any

import torch

from sensorium.backbones.base import Backbone
from sensorium.engine.recipe import ComponentPath, Section, find, plan_part
from sensorium.tasks.language import LanguageModeling

TEXTS = ["a red circle", "two small blue squares", "Привет, мир и дом", "x", "한국어 문장 하나"]
ROWS = [{"text": text} for text in TEXTS]
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
GPT_NEO = {"model_type": "gpt_neo", "hidden_size": 16, "num_layers": 2, "num_heads": 2}
GPT_NEO |= {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128}
GPT_NEO |= {"intermediate_size": 32, "window_size": 128}
CODEGEN = {**GPT2, "model_type": "codegen", "n_ctx": 128, "n_head": 4, "rotary_dim": 4}
LIBRARY = {"gpt2": GPT2, "gpt_neo": GPT_NEO, "codegen": CODEGEN}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
BERT = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT |= {"intermediate_size": 16, "max_position_embeddings": 64}


def backbone_of(kind: str, config: dict[str, Any], **options: Any) -> Backbone:
    values = {"type": kind, "config": config, "tokenizer": "bytes", "weights": "none", **options}
    section = Section.model_validate(values)
    torch.manual_seed(0)
    part = plan_part(find("backbone", kind, "x"), section, "backbone", ComponentPath("backbone"))
    backbone: Backbone = part.build().eval()
    return backbone


def built(backbone: Backbone, *names: str, **options: Any) -> LanguageModeling:
    task = LanguageModeling(objectives=dict.fromkeys(names, 1.0), **options)
    task.build({}, {"backbone": backbone})
    return task
