"""Checkpoints of T5's family with an output table beside the input table (T5 1.1, Flan-T5, mT5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes

FIELDS = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
FIELDS |= {"vocab_size": 260, "decoder_start_token_id": 0, "tie_word_embeddings": False}


def logits_of(model: Seq2Seq) -> torch.Tensor:
    ids, target = torch.tensor([[5, 90, 91, 92]]), torch.tensor([[7, 80, 81]])
    context = Features.dense(model.embed(ids))
    hidden = model.teacher_force(context, target, torch.ones_like(target, dtype=torch.bool))
    return model.logits(hidden).detach()


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5"])
def test_both_tables_of_a_checkpoint_are_read(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The logits are the library's, before and after the decoder's own tensors are loaded again."""
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **FIELDS)).save_pretrained(
        tmp_path
    )
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(260, 16)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **FIELDS}))
    library: Any = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    caplog.clear()

    options = Seq2Seq.resolve({"name": str(tmp_path)})
    model = Seq2Seq(tokenizer=Bytes(), **options)
    model.load()
    assert not caplog.records
    again = Seq2Seq(tokenizer=Bytes(), **options)
    again.load_state_dict(model.state_dict())
    expected = library(
        input_ids=torch.tensor([[5, 90, 91, 92]]), labels=torch.tensor([[7, 80, 81]])
    ).logits
    for each in (model.eval(), again.eval()):
        torch.testing.assert_close(logits_of(each), expected.detach(), atol=1e-5, rtol=1e-5)
        assert each.head.weight is not each.table.weight
