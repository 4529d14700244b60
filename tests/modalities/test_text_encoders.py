"""One contract for every text encoder, and parity with the libraries that they wrap."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from sensorium.modalities.base import Encoder, ReadError
from sensorium.modalities.text import ENCODERS
from sensorium.modalities.text._place import place
from sensorium.modalities.text.causal_lm import CausalLM
from sensorium.modalities.text.open_clip import OpenClipText
from sensorium.modalities.text.processor import TextProcessor, fingerprint
from sensorium.modalities.text.tokenizers import BPE, Bytes, Own
from sensorium.modalities.text.transformers import TransformersText
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

TEXTS = [
    "a red robot",
    "the small robot pushes a blue puck to the goal, slowly",
    "naïve <image> 猫",
]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("a test went to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.fixture(scope="module")
def bpe() -> BPE:
    made = BPE(size=300)
    made.fit(TEXTS)
    return made


def saved_tokenizer(bpe: BPE, folder: Path) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=bpe.backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)


def clip_folder(folder: Path, **changes: Any) -> str:
    """A random open_clip model in the format of `local-dir:`."""
    config = {**CLIP, **changes}
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.manual_seed(2)
    model = open_clip.create_model(f"local-dir:{folder}")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def made(part: type[Encoder], options: dict[str, Any], **fitted: Any) -> Encoder:
    """As the engine does it: resolve, then build."""
    encoder: Encoder = part(**part.resolve(options), **fitted)
    return encoder.eval()


Maker = Callable[[], Encoder]


def bert(_: Path, bpe: BPE) -> Maker:
    options = {"config": {"model_type": "bert", **SMALL}, "max_length": 64}
    return lambda: made(TransformersText, options, tokenizer=bpe)


def llama(_: Path, bpe: BPE) -> Maker:
    options = {"config": {"model_type": "llama", **SMALL}, "max_length": 64}
    return lambda: made(CausalLM, options, tokenizer=bpe)


def clip(folder: Path, _: BPE) -> Maker:
    name = clip_folder(folder)
    return lambda: made(OpenClipText, {"name": name})


MAKERS = {"transformers": bert, "causal_lm": llama, "open_clip": clip}


@pytest.fixture(params=ENCODERS)
def make(request: pytest.FixtureRequest, tmp_path: Path, bpe: BPE) -> Maker:
    maker = MAKERS[request.param](tmp_path, bpe)
    module, _, name = ENCODERS[request.param].partition(":")
    assert type(maker()) is getattr(importlib.import_module(module), name)
    return maker


def encoded(encoder: Encoder, texts: list[str], **options: Any) -> Any:
    batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
    return encoder(**batch, **options)


def test_contract(make: Maker) -> None:
    encoder = make()
    given = encoded(encoder, TEXTS)
    assert given.dim == encoder.dim == given.pooled.shape[1]
    assert given.tokens[~given.mask].eq(0).all() and (~given.mask).any()
    assert torch.equal(given.mask, given.mask.cummin(1).values) and given.mask[:, 0].all()
    assert given.grid is None
    assert len(encoder.blocks()) == 2


def test_batch_invariance(make: Maker) -> None:
    """Neighbours and padding change nothing."""
    encoder = make()
    assert encoder.batch_invariant
    whole = encoded(encoder, TEXTS)
    for row, text in enumerate(TEXTS):
        alone = encoded(encoder, [text])
        length = int(alone.mask.sum())
        assert length == int(whole.mask[row].sum())
        torch.testing.assert_close(
            alone.tokens[0, :length], whole.tokens[row, :length], rtol=1e-5, atol=2e-6
        )
        torch.testing.assert_close(alone.pooled[0], whole.pooled[row], rtol=1e-5, atol=2e-6)


def test_what_stands_in_the_padding_does_not_matter(make: Maker) -> None:
    encoder = make()
    if isinstance(encoder, OpenClipText):
        pytest.skip("open_clip finds the end of a text in the ids: its padding is its own")
    batch = encoder.collate([encoder.processor.prepare(text) for text in TEXTS])
    known = encoder(**batch)
    batch["ids"][~batch["mask"]] = 9
    torch.testing.assert_close(encoder(**batch).tokens, known.tokens, rtol=1e-5, atol=2e-6)


def test_gradients_reach_all(make: Maker) -> None:
    encoder = make()
    given = encoded(encoder, TEXTS)
    (given.tokens.square().sum() + given.pooled.square().sum()).backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_meta(make: Maker) -> None:
    real = make()
    batch = real.collate([real.processor.prepare(text) for text in TEXTS])
    with torch.device("meta"):
        encoder = make()
        given = encoder(**{key: value.to("meta") for key, value in batch.items()})
    assert all(p.is_meta for p in encoder.parameters())
    known = real(**batch)
    assert given.tokens.shape == known.tokens.shape and given.pooled.shape == known.pooled.shape


def test_state_round_trip_and_processor_travels(make: Maker) -> None:
    first, second = make(), make()
    second.load_state_dict(first.state_dict())
    known = encoded(first, TEXTS)
    assert torch.equal(encoded(second, TEXTS).tokens, known.tokens)
    twin = pickle.loads(pickle.dumps(first.processor))
    for text in TEXTS:
        sample, again = first.processor.prepare(text), twin.prepare(text)
        assert sample.keys() == again.keys()
        assert all(torch.equal(sample[key], again[key]) for key in sample)
    assert json.loads(json.dumps(twin.settings())) == first.processor.settings()


def test_resolving_twice_changes_nothing(tmp_path: Path, bpe: BPE) -> None:
    BertConfig(vocab_size=300, **SMALL).save_pretrained(tmp_path)
    for part, name in (
        (TransformersText, str(tmp_path)),
        (OpenClipText, clip_folder(tmp_path / "clip")),
    ):
        once = part.resolve({"name": name})
        assert part.resolve(json.loads(json.dumps(once))) == once


# -- parity ------------------------------------------------------------------------------------


def test_bert_parity(tmp_path: Path, bpe: BPE) -> None:
    torch.manual_seed(0)
    theirs = BertModel(BertConfig(vocab_size=304, **SMALL)).eval()
    theirs.save_pretrained(tmp_path)
    saved_tokenizer(bpe, tmp_path)
    own = Own(name=str(tmp_path))
    own.fit(())
    options = {"name": f"local-dir:{tmp_path}", "max_length": 64}
    assert TransformersText.carries_weights(options)
    ours = made(TransformersText, options, tokenizer=own)
    ours.load()

    batch = ours.collate([ours.processor.prepare(text) for text in TEXTS])
    known = theirs(batch["ids"], batch["mask"].long(), output_hidden_states=True)
    given = ours(**batch, layers=(0, -1))
    real = batch["mask"]
    torch.testing.assert_close(given.tokens[real], known.last_hidden_state[real], rtol=0, atol=1e-6)
    torch.testing.assert_close(given.pooled, known.last_hidden_state[:, 0], rtol=0, atol=1e-6)
    for layer, index in zip(given.layers, (1, -1), strict=True):
        torch.testing.assert_close(
            layer.tokens[real], known.hidden_states[index][real], rtol=0, atol=1e-6
        )


def test_llama_parity(tmp_path: Path, bpe: BPE) -> None:
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(LlamaConfig(vocab_size=304, num_key_value_heads=2, **SMALL)).eval()
    theirs.save_pretrained(tmp_path)
    ours = made(CausalLM, {"name": str(tmp_path), "max_length": 64}, tokenizer=bpe)
    ours.load()
    given = encoded(ours, TEXTS, layers=(0,))
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([bpe.encode(text, special=True)])
        known = theirs.model(ids, output_hidden_states=True)
        hidden = known.last_hidden_state[0]
        torch.testing.assert_close(given.tokens[row, : len(hidden)], hidden, rtol=0, atol=2e-6)
        torch.testing.assert_close(given.pooled[row], hidden[-1], rtol=0, atol=2e-6)
        torch.testing.assert_close(
            given.layers[0].tokens[row, : len(hidden)], known.hidden_states[1][0], rtol=0, atol=2e-6
        )


TOWERS = {
    "clip": {},
    "custom": {"custom_text": True, "quick_gelu": True},
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10.0,
        "text_cfg": {
            **CLIP["text_cfg"],
            "vocab_size": 300,
            "hf_tokenizer_name": "given by the folder",
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    },
    "coca": {
        "text_cfg": {**CLIP["text_cfg"], "embed_cls": True, "output_tokens": True},
        "vision_cfg": {**CLIP["vision_cfg"], "attentional_pool": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 1},
        "custom_text": True,
    },
    "square": {"text_cfg": {**CLIP["text_cfg"], "proj_type": "none"}, "embed_dim": 32},
}


@pytest.mark.parametrize("tower", TOWERS)
def test_open_clip_parity(tower: str, tmp_path: Path, bpe: BPE) -> None:
    saved_tokenizer(bpe, tmp_path)
    name = clip_folder(tmp_path, **TOWERS[tower])
    theirs = open_clip.create_model(name).eval()
    ours = made(OpenClipText, {"name": name})
    assert OpenClipText.carries_weights({"name": name})
    ours.load()
    texts = [TEXTS[0], TEXTS[1] * 2, "a"]
    ids = open_clip.get_tokenizer(name)(texts)
    with pytest.warns(UserWarning, match="longer than 16 tokens"):
        batch = ours.collate([ours.processor.prepare(text) for text in texts])
    assert torch.equal(batch["ids"], ids)
    given = ours(**batch)
    known = theirs.encode_text(ids, normalize=True)
    torch.testing.assert_close(nn.functional.normalize(given.pooled), known, rtol=0, atol=1e-5)
    lengths = given.lengths.tolist()
    assert lengths[2] == 3 < lengths[0] < lengths[1] == 16
    if tower in ("clip", "custom"):  # the vector is the token at the end of the text
        torch.testing.assert_close(given.tokens[0, lengths[0] - 1], given.pooled[0])


def test_open_clip_on_a_hub_model(tmp_path: Path, bpe: BPE) -> None:
    """RoBERTa in open_clip: its own configuration, its own tokenizer, its own pooling."""
    inner = tmp_path / "roberta"
    RobertaModel(RobertaConfig(vocab_size=300, pad_token_id=0, **SMALL)).save_pretrained(inner)
    saved_tokenizer(bpe, tmp_path)
    text = {
        "hf_model_name": str(inner),
        "hf_tokenizer_name": "given by the folder",
        "hf_pooler_type": "mean_pooler",
        "context_length": 32,
    }
    name = clip_folder(tmp_path, text_cfg=text)
    theirs, ours = open_clip.create_model(name).eval(), made(OpenClipText, {"name": name})
    ours.load()
    given = encoded(ours, TEXTS)
    known = theirs.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
    torch.testing.assert_close(nn.functional.normalize(given.pooled), known, rtol=0, atol=1e-5)
    with torch.device("meta"):
        meta = made(OpenClipText, {"name": name})
        ids = torch.zeros(2, 32, dtype=torch.long)
        assert meta(ids=ids, mask=ids == 0).pooled.shape == (2, 24)


def test_open_clip_by_name_with_options() -> None:
    """A built-in name, made small; no folder, no network."""
    sizes = {"embed_dim": 24, "text_cfg": {"width": 32, "heads": 2, "layers": 1}}
    ours = made(OpenClipText, {"name": "ViT-B-32", "options": sizes})
    assert ours.dim == 24 and len(ours.blocks()) == 1
    assert encoded(ours, ["a cat"]).tokens.shape == (1, 77, 24)
    assert not OpenClipText.carries_weights({"name": "ViT-B-32"})
    assert OpenClipText.carries_weights({"name": "ViT-B-32:laion2b_s34b_b79k"})
    with pytest.raises(ValueError, match=r"names no weights; known: .*ViT-B-32:laion2b_s34b_b79k"):
        ours.load()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("org/name", {"pretrained_model_name_or_path": "org/name"}),
        ("hf-hub:org/name", {"pretrained_model_name_or_path": "org/name"}),
        ("org/name@v2", {"pretrained_model_name_or_path": "org/name", "revision": "v2"}),
        ("local-dir:a@b", {"pretrained_model_name_or_path": "a@b"}),
    ],
)
def test_ways_to_write_a_place(name: str, found: dict[str, str]) -> None:
    assert place(name) == found
    options = {"name": name}
    assert CausalLM.carries_weights(options)  # it is not here, so it must be elsewhere


# -- vocabulary, length, kinds of models -----------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "roberta", **SMALL},
        {"model_type": "modernbert", **SMALL},
        {"model_type": "t5", "d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 48},
        {"model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    ],
    ids=lambda value: value["model_type"],
)
def test_many_kinds(config: dict[str, Any], bpe: BPE) -> None:
    encoder = made(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
    assert encoder.dim == 32 and len(encoder.blocks()) == 2
    whole, alone = encoded(encoder, TEXTS), encoded(encoder, TEXTS[:1])
    length = alone.tokens.shape[1]
    torch.testing.assert_close(whole.tokens[0, :length], alone.tokens[0], rtol=1e-5, atol=5e-6)
    assert torch.equal(whole.pooled, whole.tokens[:, 0])
    with torch.device("meta"):
        meta = made(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
        ids = torch.zeros(2, 7, dtype=torch.long)
        assert meta(ids=ids, mask=ids == 0).tokens.shape == (2, 7, 32)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2},
        {"model_type": "mistral", "sliding_window": 4, "num_key_value_heads": 2, **SMALL},
        {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 2},
        {
            "model_type": "mamba2",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "head_dim": 16,
            "state_size": 8,
            "n_groups": 1,
        },
    ],
    ids=lambda value: value["model_type"],
)
def test_many_causal_kinds(config: dict[str, Any], bpe: BPE) -> None:
    encoder = made(CausalLM, {"config": config, "max_length": 64}, tokenizer=bpe)
    whole, alone = encoded(encoder, TEXTS), encoded(encoder, TEXTS[:1])
    torch.testing.assert_close(whole.pooled[0], alone.pooled[0], rtol=1e-5, atol=5e-6)
    assert torch.equal(alone.pooled[0], alone.tokens[0, -1])
    with torch.device("meta"):
        meta = made(CausalLM, {"config": config, "max_length": 64}, tokenizer=bpe)
        ids = torch.zeros(2, 7, dtype=torch.long)
        assert meta(ids=ids, mask=ids == 0).pooled.shape == (2, 32)


def test_no_class_token_no_pooled(bpe: BPE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "bos_id", None)
    config = {"model_type": "bert", **SMALL}
    encoder = made(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
    assert encoded(encoder, TEXTS).pooled is None


def test_configurations_survive_json(tmp_path: Path, bpe: BPE) -> None:
    """mamba2 has an infinity in its configuration."""
    config = {"model_type": "mamba2", "num_heads": 4, "head_dim": 16, "hidden_size": 32}
    whole = CausalLM(config={**config, "num_hidden_layers": 1}, tokenizer=bpe).whole
    whole.save_pretrained(tmp_path)
    options = json.loads(json.dumps(CausalLM.resolve({"name": str(tmp_path)})))
    assert CausalLM(**options, tokenizer=bpe).whole.to_dict() == {
        **whole.to_dict(),
        "_name_or_path": options["config"].get("_name_or_path", ""),
    }
    assert not CausalLM.carries_weights(options)  # a configuration without weights


def test_a_bigger_vocabulary_is_fine_a_smaller_one_is_not(bpe: BPE) -> None:
    config = BertConfig(vocab_size=bpe.size - 1, **SMALL).to_diff_dict()
    options = {"name": "somewhere", "config": config, "max_length": 64}
    with pytest.raises(ValueError, match=f"has {bpe.size} ids, the model {bpe.size - 1} rows"):
        TransformersText(**options, tokenizer=bpe)
    TransformersText(**{**options, "config": {**config, "vocab_size": 900}}, tokenizer=bpe)


def test_the_tokenizer_decides_a_new_vocabulary(bpe: BPE) -> None:
    encoder = TransformersText(config={"model_type": "bert", **SMALL}, tokenizer=bpe, max_length=64)
    assert encoder.whole.vocab_size == bpe.size
    assert encoder.whole.pad_token_id == bpe.pad_id


@pytest.mark.parametrize(
    ("part", "options", "said"),
    [
        (TransformersText, {}, "give name .* or config"),
        (TransformersText, {"config": {"model_type": "brt"}}, "model_type 'brt', unknown"),
        (TransformersText, {"config": {"model_type": "clip"}}, "several towers"),
        (
            TransformersText,
            {"config": {"model_type": "bert", "vocab_size": 7}},
            "vocab_size 7, the",
        ),
        (TransformersText, {"config": {"model_type": "bert", **SMALL}}, "is 512, the model has 96"),
        (TransformersText, {"config": {"model_type": "roberta", **SMALL}}, "the model has 95"),
        (CausalLM, {"config": {"model_type": "t5"}}, "has an encoder of its own"),
    ],
)
def test_mistakes_are_named(part: Any, options: dict[str, Any], said: str, bpe: BPE) -> None:
    with pytest.raises(ValueError, match=said):
        part(**options, tokenizer=bpe)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    for part in (TransformersText, CausalLM):
        with pytest.raises(ValueError, match=f"no model at '{missing}'"):
            part.resolve({"name": missing})
    with pytest.raises(ValueError, match="no model 'ViT-B-33'; did you mean 'ViT-B-32'"):
        OpenClipText.resolve({"name": "ViT-B-33"})
    with pytest.raises(ValueError, match=r"ViT-B-32 has no weights 'laion'; known: .*laion2b"):
        OpenClipText.resolve({"name": "ViT-B-32:laion"})
    with pytest.raises(ValueError, match="name it ViT-B-32-quickgelu:openai"):
        OpenClipText.resolve({"name": "ViT-B-32:openai"})
    with pytest.raises(ValueError, match="no model at 'local-dir:"):
        OpenClipText.resolve({"name": f"local-dir:{missing}"})


def test_loading_what_is_not_there(tmp_path: Path, bpe: BPE) -> None:
    config = BertConfig(vocab_size=300, **SMALL)
    encoder = TransformersText(config={"model_type": "bert", **SMALL}, tokenizer=bpe, max_length=64)
    with pytest.raises(ValueError, match="carries no pretrained weights"):
        encoder.load()
    # A masked-LM's checkpoint has everything that is read; one of fewer layers does not.
    BertForMaskedLM(config).save_pretrained(tmp_path / "whole")
    made(
        TransformersText, {"name": str(tmp_path / "whole"), "max_length": 64}, tokenizer=bpe
    ).load()
    BertModel(BertConfig(vocab_size=300, **{**SMALL, "num_hidden_layers": 1})).save_pretrained(
        tmp_path / "half"
    )
    config.save_pretrained(tmp_path / "half")
    half = made(TransformersText, {"name": str(tmp_path / "half"), "max_length": 64}, tokenizer=bpe)
    with pytest.raises(ValueError, match="lacks 16 weights"):
        half.load()


def test_layers_out_of_range(bpe: BPE) -> None:
    config = {"model_type": "bert", **SMALL}
    encoder = made(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
    with pytest.raises(ValueError, match="layer 2 was asked for, found 2 layers"):
        encoded(encoder, TEXTS, layers=(2,))


# -- processor ---------------------------------------------------------------------------------


def test_a_long_text_is_cut_and_keeps_its_end(bpe: BPE) -> None:
    processor = TextProcessor(bpe, 8)
    with pytest.warns(UserWarning, match="longer than max_length 8"):
        ids = processor.prepare(TEXTS[1])["ids"].tolist()
    assert ids == [*bpe.encode(TEXTS[1], special=True)[:7], bpe.eos_id]
    exact = TextProcessor(bpe, len(bpe.encode(TEXTS[0], special=True)))
    assert exact.prepare(TEXTS[0])["ids"].tolist() == bpe.encode(TEXTS[0], special=True)


def test_a_text_without_tokens_is_refused() -> None:
    class Silent(Bytes):
        def encode(self, text: str, *, special: bool = False) -> list[int]:
            return []

    with pytest.raises(ReadError, match="gives no token"):
        TextProcessor(Silent(), 8).prepare("x")


def test_settings_tell_tokenizers_apart(bpe: BPE) -> None:
    other = BPE(size=300)
    other.fit(["quite another text"])
    marks = {fingerprint(t) for t in (bpe, other, Bytes())}
    assert len(marks) == 3
    twin = BPE(size=300)
    twin.load_state(bpe.state())
    assert TextProcessor(twin, 9).settings() == TextProcessor(bpe, 9).settings()
    assert TextProcessor(twin, 9).settings() != TextProcessor(bpe, 8).settings()
