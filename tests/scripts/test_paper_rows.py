"""Compositions that papers name: families in pairs, and several decoders on one encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.engine.checkpoint import load_model
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.scripts.coverage.cases import enliven
from sensorium.scripts.coverage.encoder_cases import as_json
from sensorium.scripts.coverage.tiny_configs import tiny_config

DATA = {"train": {"source": "digits", "split": "train", "limit": 4}}
BART = {
    "model_type": "bart", "d_model": 32, "encoder_layers": 6, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
}  # fmt: skip


def config_of(model_type: str) -> dict[str, Any]:
    config = as_json(tiny_config(CONFIG_MAPPING[model_type]))
    del config["vocab_size"]
    return config


def recipe(encoder: dict[str, Any], tasks: list[str], **decoders: dict[str, Any]) -> dict[str, Any]:
    """A text stream that each task's decoder writes again."""
    section = {"tokenizer": "bytes", "weights": "none"}
    stream = {"modality": "text", "encoder": {**encoder, **section}, "connector": "linear"}
    write = {"type": "captioning", "prompt": "<caption>", "target": "{caption}", "data": DATA}
    return {
        "inputs": {"caption": stream},
        "decoders": {name: {**decoder, **section} for name, decoder in decoders.items()},
        "tasks": {name: {**write, "decoder": name} for name in tasks},
        "train": {"steps": 2, "batch_size": 2, "optimizer": {"type": "sgd", "lr": 1e-2}},
    }


def encoder_of(config: dict[str, Any]) -> dict[str, Any]:
    return {"type": "transformers", "config": config, "max_length": 64}


def test_an_encoder_and_a_decoder_of_one_family_compose() -> None:
    """Ettin: the same architecture reads both ways and writes from left to right."""
    decoder = {"type": "causal", "config": config_of("modernbert-decoder")}
    values = recipe(encoder_of(config_of("modernbert")), ["backbone"], backbone=decoder)
    assert check(parse_recipe(values)).components


def test_two_decoders_of_unequal_depth_write_about_one_encoder(tmp_path: Path) -> None:
    """CPT: a deep encoder, and shallow decoders that attend to it."""

    def decoder(layers: int) -> dict[str, Any]:
        return {"type": "seq2seq", "config": {**BART, "decoder_layers": layers},
                "own_encoder": False}  # fmt: skip

    values = recipe(encoder_of(BART), ["read", "write"], read=decoder(1), write=decoder(2))
    model = train(parse_recipe(values), tmp_path / "run", show=False).eval()
    assert [len(model.decoders[name].blocks()) for name in ("read", "write")] == [1, 2]
    assert not any(".encoder." in name for name, _ in model.decoders["read"].named_parameters())
    stream = model.stream("caption")
    batch = stream.encoder.collate([stream.encoder.processor.prepare(t) for t in ("one", "seven")])
    with torch.no_grad():
        features = stream.run(batch, {})
    assert len(stream.encoder.blocks()) == 6
    loaded = load_model(tmp_path / "run").eval()
    for name in ("read", "write"):
        ids = [m.decoders[name].generate(features, max_new_tokens=4) for m in (model, loaded)]
        assert torch.equal(*ids) and ids[0].shape[0] == 2


@pytest.mark.parametrize("prompt", [False, True])
def test_the_soft_prompts_of_mvp_are_read(prompt: bool) -> None:
    """MVP's task prompts are keys and values of every layer; without them the logits differ."""
    torch.manual_seed(0)
    config = config_of("mvp") | {"prompt_length": 3, "prompt_mid_dim": 8}
    model = Seq2Seq(tokenizer=Bytes(), config=config, attn="eager", options={"use_prompt": prompt})
    enliven(model)
    model.eval()
    embeds, ids = torch.randn(1, 5, 32), torch.tensor([[9, 8, 7]])
    with torch.no_grad():
        hidden = model.teacher_force(Features.dense(embeds), ids, ids > 0)
        known = torch.cat([torch.tensor([model.start_ids]), ids[:, :-1]], 1)
        expected = model.model(inputs_embeds=embeds, decoder_input_ids=known).logits
        torch.testing.assert_close(model.logits(hidden), expected, rtol=1e-4, atol=1e-4)
    prompts = [name for name, _ in model.named_parameters() if "prompt" in name]
    assert bool(prompts) == prompt


@pytest.mark.quick_share(4)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {**BART, "d_model": 24}, "own_encoder": False}, "24"),
        ({"config": BART, "own_encoder": False, "start": ["<|de|>"]}, "no token '<|de|>'"),
        ({"config": BART, "generation": {"repetition": 2.0}}, "no such option"),
        ({"config": config_of("whisper")}, "own_encoder: false"),
    ],
)
def test_mistakes_of_a_pair_are_one_line(options: dict[str, Any], message: str) -> None:
    decoder = {"type": "seq2seq", **options}
    values = recipe(encoder_of({**BART, "d_model": 32}), ["write"], write=decoder)
    if message == "24":  # the connector maps the width
        assert check(parse_recipe(values)).components
        return
    with pytest.raises(ConfigError) as error:
        check(parse_recipe(values))
    assert message in str(error.value) and "\n" not in str(error.value)
