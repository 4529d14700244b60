"""`sensorium import`: logits and vectors of the run are those of the library's own model; a run
exports as LLaVA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    GenerationConfig,
    LlamaConfig,
    LlamaModel,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from sensorium.modalities.audio.read import Sound
from sensorium.tests.engine.checkpoint.exchange.exchange_cases import (
    BOS,
    EOS,
    IDS,
    PAD,
    ROW,
    TEXT,
    VISION,
    WORDS,
    close,
    drawn,
    loaded,
    pictures,
    save_tokenizer,
)

SENTENCES = ["w3 w4", "w5 w6 w7 w8", "w9"]


def vectors(model: Any, stream: str, raws: list[Any]) -> torch.Tensor:
    encoder = model.stream(stream).encoder
    batch = encoder.collate([encoder.processor.prepare(raw) for raw in raws])
    with torch.no_grad():
        pooled: torch.Tensor = model.stream(stream).run(batch, {}).pool()
    return pooled


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_dual_towers(kind: str, tmp_path: Path) -> None:
    folder, length = tmp_path / kind, {"max_position_embeddings": 12}
    side = {"height": 16, "width": 16}
    text = {**TEXT, **IDS, **length}
    if kind == "clip":
        config: Any = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
        theirs = drawn(CLIPModel(config))
        processor: Any = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side)
    elif kind == "siglip2":
        vision = {**VISION, "hidden_size": 16, "num_patches": 16, "patch_size": 8}
        # transformers' tokenizer of this family adds a mask token
        shared = {"hidden_size": 16, "projection_size": 16, "vocab_size": len(WORDS) + 1}
        config = Siglip2Config(text_config=text | shared, vision_config=vision)
        theirs = drawn(Siglip2Model(config))
        processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    else:
        width = {"hidden_size": 16}
        config = SiglipConfig(text_config=text | width | {"projection_size": 16},
                              vision_config=VISION | width)  # fmt: skip
        theirs = drawn(SiglipModel(config))
        processor = SiglipImageProcessor(size=side)
    theirs.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_tokenizer(folder)
    model = loaded(kind.removesuffix("2"), folder, tmp_path / "run")
    rows = [[BOS, *(WORDS.index(w) for w in s.split()), EOS] for s in SENTENCES]
    longest = max(map(len, rows)) if kind == "clip" else 12
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    if kind == "siglip2":  # transformers gives the family's own normalizer to any tokenizer
        encoder: Any = model.stream("text").encoder
        ids = encoder.collate([encoder.processor.prepare(s) for s in SENTENCES])["ids"]
    mask = (ids != PAD).long() if kind == "clip" else None
    pixels = processor(pictures(), return_tensors="pt")
    with torch.no_grad():
        out = theirs(input_ids=ids, attention_mask=mask, **pixels)
    normal = nn.functional.normalize
    image, sentence = vectors(model, "image", pictures()), vectors(model, "text", SENTENCES)
    close(normal(image, dim=-1), out.image_embeds)
    close(normal(sentence, dim=-1), out.text_embeds)
    task: Any = model.task("align")
    logits = normal(image, dim=-1) @ normal(sentence, dim=-1).T * task.log_scale.exp()
    close(logits + (0 if task.bias is None else task.bias), out.logits_per_image)


LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A", "'"]


def test_wav2vec2_ctc(tmp_path: Path) -> None:
    folder = tmp_path / "ctc"
    config = Wav2Vec2Config(
        **TEXT, vocab_size=len(LETTERS), pad_token_id=0, bos_token_id=1, eos_token_id=2,
        conv_dim=(8, 8), conv_kernel=(10, 8), conv_stride=(5, 4), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )  # fmt: skip
    theirs = drawn(Wav2Vec2ForCTC(config))
    theirs.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    extractor.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(LETTERS)}))
    names = {"unk_token": "<unk>", "word_delimiter_token": "|", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    model = loaded("wav2vec2-ctc", folder, tmp_path / "run")
    waves = [np.random.default_rng(i).standard_normal(1600 + 400 * i).astype("f4") for i in (0, 1)]
    values = extractor(waves, sampling_rate=16000, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = theirs(**values).logits
    stream, task = model.stream("audio"), model.task("transcribe")
    batch = stream.encoder.collate(
        [stream.encoder.processor.prepare(Sound(wave[None], 16000)) for wave in waves]
    )
    with torch.no_grad():
        features = stream.run(batch, {})
        result = task.heads["head"](features).tokens
    tokenizer = task.tokenizer
    classes = [3, 1, 2, *(LETTERS.index("|" if c == " " else c) for c in tokenizer._letters), 0]
    close(result[features.mask], expected[..., classes][features.mask])
    assert tokenizer.encode("TEA A") and tokenizer.decode(tokenizer.encode("TEA A")) == "TEA A"
    assert task.blank == len(LETTERS) - 1


@pytest.mark.parametrize("forced", [False, True])
def test_whisper(forced: bool, tmp_path: Path) -> None:
    """The logits of a transcript, and the transcript that the library's `generate` writes."""
    folder = tmp_path / "whisper"
    config = WhisperConfig(
        d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8,
        max_source_positions=100, max_target_positions=16, decoder_start_token_id=BOS, **IDS,
        begin_suppress_tokens=None, suppress_tokens=None,
    )  # fmt: skip
    theirs = drawn(WhisperForConditionalGeneration(config))
    options: dict[str, Any] = {
        "decoder_start_token_id": BOS, "suppress_tokens": [7, 8], "begin_suppress_tokens": [EOS],
        "no_timestamps_token_id": 10, "eos_token_id": EOS, "pad_token_id": PAD,
        "return_timestamps": False, "forced_decoder_ids": [[1, 5], [2, 6]],
    }  # fmt: skip
    if not forced:
        del options["forced_decoder_ids"]
        options |= {"lang_to_id": {"<|en|>": 5, "<|de|>": 6}, "language": "<|de|>"}
        options |= {"task_to_id": {"transcribe": 9, "translate": 11}, "task": "transcribe"}
        options |= {"is_multilingual": True}
    theirs.generation_config = GenerationConfig(**options)
    start = [BOS, 5, 6, 10] if forced else [BOS, 6, 9, 10]
    theirs.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    extractor.save_pretrained(folder)
    save_tokenizer(folder)
    model = loaded("whisper", folder, tmp_path / "run")
    waves = [np.random.default_rng(i).standard_normal(8000 + 4000 * i).astype("f4") for i in (0, 1)]
    values = extractor(waves, sampling_rate=16000, return_tensors="pt")
    stream, backbone = model.stream("audio"), model.backbone
    batch = stream.encoder.collate(
        [stream.encoder.processor.prepare(Sound(wave[None], 16000)) for wave in waves]
    )
    with torch.no_grad():
        context = stream.run(batch, {})
        hidden = backbone.teacher_force(context, ROW, torch.ones_like(ROW, dtype=torch.bool))
        decoder_ids = torch.cat([torch.tensor([start] * 2), ROW[:, :-1]], 1)
        expected = theirs(**values, decoder_input_ids=decoder_ids).logits[:, len(start) - 1 :]
        written = theirs.generate(**values, max_new_tokens=8, do_sample=False)
    close(backbone.logits(hidden), expected)
    ids = backbone.generate(context, max_new_tokens=8, do_sample=False)
    rows = [[i for i in row if i not in (PAD, EOS, *start)] for row in written.tolist()]
    assert [[i for i in row if i not in (PAD, EOS, *start)] for row in ids.tolist()] == rows
    assert all(rows) and rows[0] != rows[1] and not {7, 8} & {i for row in rows for i in row}


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_sentence_transformers(pooling: str, tmp_path: Path) -> None:
    folder = tmp_path / "st"
    causal = pooling == "lasttoken"
    config: Any = (LlamaConfig if causal else BertConfig)(**TEXT, **IDS, max_position_embeddings=32)
    theirs = drawn((LlamaModel if causal else BertModel)(config))
    theirs.save_pretrained(folder)
    save_tokenizer(folder)
    key = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}.get(pooling, pooling)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    if pooling == "mean":
        parts.insert(2, ("2_Dense", "Dense"))
    module = "sentence_transformers.models."
    rows = [{"idx": i, "path": p, "type": f"{module}{t}"} for i, (p, t) in enumerate(parts)]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(
        {"word_embedding_dimension": 24, f"pooling_mode_{key}": True}))  # fmt: skip
    dense = torch.randn(10, 24)
    if pooling == "mean":
        (folder / "2_Dense").mkdir()
        settings = {"in_features": 24, "out_features": 10, "bias": False,
                    "activation_function": "torch.nn.modules.linear.Identity"}  # fmt: skip
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
        save_file({"linear.weight": dense}, folder / "2_Dense" / "model.safetensors")
    model = loaded("sentence-transformers", folder, tmp_path / "run")
    expected = []
    for sentence in SENTENCES:
        ids = torch.tensor([[BOS, *(WORDS.index(w) for w in sentence.split()), EOS]])
        with torch.no_grad():
            hidden = theirs(input_ids=ids).last_hidden_state[0]
        pools = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0)}
        expected.append(pools.get(pooling, hidden[-1]))
    vector = torch.stack(expected)
    vector = vector @ dense.T if pooling == "mean" else vector
    close(vectors(model, "query", SENTENCES), vector)
    assert model.stream("passage").encoder is model.stream("query").encoder
