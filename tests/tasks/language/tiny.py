"""Tiny models and texts for tests of learning from text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sensorium.backbones.base import Backbone
from sensorium.engine.recipe import ComponentPath, Section, find, plan_part
from sensorium.tasks.base import Task
from sensorium.tasks.batch import Batch, Tools
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


SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
SMALL |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL,
    "xlm-roberta": SMALL,
    "electra": {**SMALL, "embedding_size": 16},
    "deberta-v2": {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {**SMALL, "attention_dropout": 0.0, "num_attention_heads": 2},
    "eurobert": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    "xmod": {**SMALL, "languages": ["en", "de"], "default_language": "en"},
}
"""Tiny models with a masked-LM head, by their `model_type`."""


def encoder_of(kind: str = "bert", **options: Any) -> Any:
    """Return the encoder of a text stream with its masked-LM head, which reads bytes."""
    config = {"model_type": kind, **ENCODERS[kind], **options}
    values = {"type": "transformers", "config": config, "tokenizer": "bytes", "weights": "none"}
    section = Section.model_validate({**values, "lm_head": True, "max_length": 60})
    torch.manual_seed(0)
    part = find("text_encoder", "transformers", "x")
    path = ComponentPath("inputs.text.encoder")
    return plan_part(part, section, "encoder", path).build().eval()


def text_batch(
    task: Task, rows: Sequence[Mapping[str, Any]], encoder: Any, training: bool = True
) -> Batch:
    """Return the labels of rows, whose texts a context reads (`StubContext.reading`)."""
    tools = Tools({}, {"text": encoder.processor.tokenizer})
    rng = np.random.default_rng(0) if training else None
    names = [str(i) for i in range(len(rows))]
    return Batch.of("task", names, [task.prepare(row, tools, rng) for row in rows])
