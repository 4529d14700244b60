"""What a user of the verbs reads on stderr: our lines, and nothing of the libraries'."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from sensorium.modalities.text.tokenizers import BPE

OURS = re.compile(
    r"step \d+: |kept the weights of step |\[\d/\d\] |error: |warning: |tasks\.[\w.]+: [\d,]+ rows$"
    r"|[\w@]+: (With “|Shuffling “|Whether the model uses |The metrics |Scored one by one)"
)
"""How a line of ours begins. A warning is ours too: the console gives it one line."""

CHILD = """
import sys
from sensorium.__main__ import main

for words in sys.stdin.read().splitlines():
    sys.stderr.write(f"$ {words}\\n")
    sys.stderr.flush()
    sys.argv = ["sensorium", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""

LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LAYERS |= {"intermediate_size": 16}
VISION = {**LAYERS, "image_size": 16, "patch_size": 8}
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"]


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[str, Path]:
    """Folders of transformers, each with weights beside the part that is used."""
    bpe = BPE(size=300)
    bpe.fit(WORDS)
    state = json.loads(bpe.state()["tokenizer"])
    (tmp_path / "bpe.json").write_text(json.dumps(state))
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "bpe.json"), **names
    )
    ids = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    clip = transformers.CLIPConfig(
        text_config={**LAYERS, **ids}, vision_config=VISION, projection_dim=8
    )
    models = {
        "clip": transformers.CLIPModel(clip),
        "bert": transformers.BertForMaskedLM(transformers.BertConfig(**LAYERS, **ids)),
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(**LAYERS, **ids)),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    size = {"shortest_edge": 16}
    transformers.CLIPImageProcessor(size=size, crop_size=16).save_pretrained(tmp_path / "clip")
    return {name: tmp_path / name for name in models}


def recipe(checkpoints: dict[str, Path], rows: Path) -> dict[str, Any]:
    """Pretrained towers, a pretrained decoder with adapters, converted rows, workers, a cache."""
    tokenizer = {"type": "pretrained", "name": str(checkpoints["llama"])}
    picture = {"type": "transformers", "name": str(checkpoints["clip"]), "freeze": True}
    hint = {"type": "transformers", "name": str(checkpoints["bert"]), "max_length": 16}
    splits = {"train": "train[:16]", "validation": "train[16:20]", "test": "train[20:]"}
    data = {k: {"source": "json", "path": str(rows), "split": v} for k, v in splits.items()}
    task = {
        "type": "captioning",
        "prompt": "<image> <hint>:",
        "target": " {word}",
        "max_new_tokens": 2,
        "data": data,
    }
    return {
        "inputs": {
            "image": {"modality": "image", "encoder": picture, "connector": "mlp"},
            "hint": {"modality": "text", "encoder": {**hint, "tokenizer": tokenizer}},
        },
        "backbone": {
            "type": "causal",
            "name": str(checkpoints["llama"]),
            "tokenizer": tokenizer,
            "lora": {"r": 2},
        },
        "tasks": {"caption": task},
        "train": {"steps": 2, "batch_size": 4, "num_workers": 2, "validate": {"every": 1}},
    }


@pytest.mark.slow
def test_stderr_holds_only_our_lines(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    pictures = [tmp_path / f"{i}.png" for i in range(24)]
    for i, picture in enumerate(pictures):
        Image.new("RGB", (20, 16), (10 * i, 0, 0)).save(picture)
    rows = tmp_path / "rows.jsonl"
    words = [(f"{WORDS[i % 10]} {WORDS[i // 10]}", WORDS[-i % 10]) for i in range(24)]
    cells = [
        {"image": str(picture), "hint": hint, "word": word}
        for picture, (hint, word) in zip(pictures, words, strict=True)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in cells))
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipe(checkpoints, rows)))
    verbs = [
        "check tiny.yaml",
        "train tiny.yaml --out run",
        "evaluate run",
        f"generate run {pictures[0]} hint=one",
        "report run",
    ]
    env = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="\n".join(verbs),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line[2:] for line in lines if line.startswith("$ ")] == verbs
    others = [line for line in lines if not line.startswith("$ ") and not OURS.match(line)]
    assert others == []
