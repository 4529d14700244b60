"""Families that papers name: each composes tiny, and computes what its library computes."""

from __future__ import annotations

import pytest

from sensorium.scripts.coverage import decoders, encoders

CAUSAL = [
    "llama",
    "granite",
    "gpt_bigcode",
    "opt",
    "gpt_neo",
    "gptj",
    "phi",
    "mixtral",
    "qwen3_moe",
    "deepseek_v3",
    "modernbert-decoder",
    "bert",
    "roberta",
    "xlm-roberta",
    "xmod",
    "electra",
    "codegen",
    "mamba2",
    "rwkv",
    "xlstm",
    "zamba",
    "zamba2",
    "jamba",
    "bamba",
    "falcon_h1",
    "gemma3_text",
    "qwen3",
    "qwen3_5_text",
]
PAIRS = ["bart", "t5", "mt5", "mvp", "led", "longt5", "t5gemma", "t5gemma2", "encoder-decoder"]
MASKED = ["bert", "roberta", "xlm-roberta", "xmod", "modernbert", "electra", "deberta-v2"]
ENCODERS = [
    "text/canine",
    "text/eurobert",
    "audio/wav2vec2",
    "audio/whisper",
    "audio/moonshine",
    "vision/dinov2",
    "vision/dinov3_vit",
    "vision/siglip2_vision_model",
    "vision/qwen2_vl",
    "vision/llava",
    "vision/timesformer",
    "vision/videomae",
    "vision/vivit",
]
ROWS = [
    *(f"causal/{name}" for name in CAUSAL),
    *(f"seq2seq/{name}" for name in PAIRS),
    *(f"masked/{name}" for name in MASKED),
    *ENCODERS,
]
STEPS = {
    "causal": ("logits", "causal"),
    "seq2seq": ("logits", "causal", "generate", "teacher_forcing"),
    "masked": ("logits",),
    "encoder": ("forward", "library_tokens"),
}


@pytest.mark.quick_share(5)
@pytest.mark.parametrize("row", ROWS)
def test_a_named_family_composes(row: str) -> None:
    kind = row.partition("/")[0]
    module = decoders if kind in decoders.NAMES else encoders
    results: dict[str, str] = {}
    steps = STEPS.get(kind, STEPS["encoder"])
    module.examine(row, results.__setitem__, steps)
    assert results == dict.fromkeys(("build", "library", *steps), "ok")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("causal/reformer", "attends to later positions"),
        ("causal/xlnet", "attends to later positions"),
        ("causal/gemma3n_text", "reads the ids of its tokens at every layer"),
        ("masked/convbert", "mixes tokens with the padding"),
        ("masked/yoso", "mixes tokens with the padding"),
        ("masked/mra", "lets no position see another"),
    ],
)
def test_what_would_be_silently_wrong_is_refused_by_name(row: str, reason: str) -> None:
    results: dict[str, str] = {}
    decoders.examine(row, results.__setitem__, ())
    assert list(results) == ["build"]
    assert results["build"].startswith("refused") and reason in results["build"]
    assert row.partition("/")[2] in results["build"]
