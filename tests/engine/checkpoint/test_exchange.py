"""`sensorium import`: logits and vectors of the run are those of the library's own model; a run
exports as LLaVA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors
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
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
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

from sensorium.engine.checkpoint import load_model
from sensorium.engine.checkpoint.exchange import export_llava, import_model
from sensorium.engine.utils import ConfigError
from sensorium.modalities.audio.read import Sound

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(26)), "<image>"]
PAD, BOS, EOS, IMAGE = 0, 1, 2, len(WORDS) - 1
IDS = {"vocab_size": len(WORDS), "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
TEXT = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
VISION = {**TEXT, "hidden_size": 16, "num_hidden_layers": 3, "image_size": 16, "patch_size": 8}
SENTENCES = ["w3 w4", "w5 w6 w7 w8", "w9"]


def drawn(model: nn.Module) -> Any:
    """A model whose weights are so large that outputs differ."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "logit" not in name:
            nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    return model.eval()


def save_tokenizer(folder: Path, ends: bool = True) -> None:
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        pair = [("<bos>", BOS), ("<eos>", EOS)]
        backend.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=pair
        )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)


def pictures(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)) for _ in range(count)]


def loaded(kind: str, folder: Path, out: Path) -> Any:
    """The run of an imported folder, without the folder."""
    import_model(kind, folder, out)
    folder.rename(folder.with_name("gone"))
    model = load_model(out)
    folder.with_name("gone").rename(folder)
    return model


def vectors(model: Any, stream: str, raws: list[Any]) -> torch.Tensor:
    encoder = model.stream(stream).encoder
    batch = encoder.collate([encoder.processor.prepare(raw) for raw in raws])
    with torch.no_grad():
        pooled: torch.Tensor = model.stream(stream).run(batch, {}).pool()
    return pooled


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert float(b.std()) > 1e-2
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config=LlamaConfig(**TEXT, **IDS), image_token_index=IMAGE, image_seq_length=4,
    )  # fmt: skip
    folder = tmp_path / "llava"
    drawn(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    side = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side).save_pretrained(folder)
    save_tokenizer(folder, ends=False)
    return folder


def llava_logits(model: Any, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    image = torch.full((len(ids), 4), model.config.image_token_index)
    row = torch.cat([image, ids], 1)
    with torch.no_grad():
        result: torch.Tensor = model(
            input_ids=row, attention_mask=torch.ones_like(row), pixel_values=pixels
        ).logits
    return result


def run_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    stream, backbone = model.stream("image"), model.backbone
    encoder = stream.encoder
    batch = encoder.collate([encoder.processor.prepare(p) for p in pictures(len(ids))])
    with torch.no_grad():
        tokens = stream.run(batch, {}).tokens
        hidden = backbone(torch.cat([tokens, backbone.embed(ids)], 1))
        result: torch.Tensor = backbone.logits(hidden)
    return result


ROW = torch.tensor([[5, 6, 7], [8, 9, 10]])


def test_llava(llava: Path, tmp_path: Path) -> None:
    model = loaded("llava", llava, tmp_path / "run")
    theirs = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    pixels = CLIPImageProcessor.from_pretrained(llava)(pictures(2), return_tensors="pt")
    close(run_logits(model, ROW), llava_logits(theirs, pixels["pixel_values"], ROW))
    # And out again.
    export_llava(tmp_path / "run", tmp_path / "out")
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    close(llava_logits(again, pixels["pixel_values"], ROW), run_logits(model, ROW))
    assert again.config.image_token_index == IMAGE
    reread = loaded("llava", tmp_path / "out", tmp_path / "again")
    assert torch.equal(run_logits(reread, ROW), run_logits(model, ROW))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_dual_towers(kind: str, tmp_path: Path) -> None:
    folder, length = tmp_path / kind, {"max_position_embeddings": 12}
    side = {"height": 16, "width": 16}
    text = {**TEXT, **IDS, **length}
    if kind == "clip":
        config: Any = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
        theirs = drawn(CLIPModel(config))
        processor: Any = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side)
    else:
        width = {"hidden_size": 16}
        config = SiglipConfig(text_config=text | width | {"projection_size": 16},
                              vision_config=VISION | width)  # fmt: skip
        theirs = drawn(SiglipModel(config))
        processor = SiglipImageProcessor(size=side)
    theirs.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_tokenizer(folder)
    model = loaded(kind, folder, tmp_path / "run")
    rows = [[BOS, *(WORDS.index(w) for w in s.split()), EOS] for s in SENTENCES]
    longest = 12 if kind == "siglip" else max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    mask = None if kind == "siglip" else (ids != PAD).long()
    pixels = processor(pictures(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = theirs(input_ids=ids, attention_mask=mask, pixel_values=pixels)
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


def test_a_run_that_is_no_llava_says_which_part(llava: Path, tmp_path: Path) -> None:
    from sensorium.engine.checkpoint import save_run
    from sensorium.engine.model import compose, resolve_and_fit
    from sensorium.engine.recipe import load_recipe

    import_model("llava", llava, tmp_path / "run")
    values = load_recipe(tmp_path / "run").to_dict()

    def made(name: str, **connector: Any) -> Path:
        changed = {**values, "inputs": {"image": {**values["inputs"]["image"],
                                                  "connector": connector}}}  # fmt: skip
        from sensorium.engine.recipe import parse_recipe

        save_run(compose(resolve_and_fit(parse_recipe(changed))), tmp_path / name)
        return tmp_path / name

    for i, connector in enumerate(
        [{"type": "linear"}, {"type": "mlp", "norm": True}, {"type": "mlp", "hidden": 7}]
    ):
        with pytest.raises(ConfigError, match=r"inputs\.image\.connector.*LLaVA") as error:
            export_llava(made(f"run{i}", **connector), tmp_path / "out")
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_adapters_are_merged_into_an_export(llava: Path, tmp_path: Path) -> None:
    from sensorium.engine.checkpoint import save_run
    from sensorium.engine.model import compose, resolve_and_fit
    from sensorium.engine.recipe import load_recipe, parse_recipe

    import_model("llava", llava, tmp_path / "run")
    values = load_recipe(tmp_path / "run").to_dict()
    for part in (values["inputs"]["image"]["encoder"], values["inputs"]["image"]["connector"],
                 values["backbone"]):  # fmt: skip
        part["weights"] = str(tmp_path / "run")
    values["backbone"]["lora"] = {"r": 2}
    model = compose(resolve_and_fit(parse_recipe(values)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    save_run(model.eval(), tmp_path / "tuned")
    opened = export_llava(tmp_path / "tuned", tmp_path / "out")
    pixels = CLIPImageProcessor.from_pretrained(llava)(pictures(2), return_tensors="pt")
    close(llava_logits(opened, pixels["pixel_values"], ROW), run_logits(model, ROW))
    before = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    assert not torch.allclose(
        llava_logits(opened, pixels["pixel_values"], ROW),
        llava_logits(before, pixels["pixel_values"], ROW),
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [("clip", "holds a llava"), ("siglip", "holds a llava"), ("lava", "did you mean 'llava'"),
     ("sentence-transformers", "modules.json"), ("wav2vec2-ctc", "has no CTC head")],
)  # fmt: skip
def test_a_folder_of_another_kind_is_one_line(
    kind: str, message: str, llava: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        import_model(kind, llava, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="there is no such folder"):
        import_model("clip", tmp_path / "nowhere", tmp_path / "run")
