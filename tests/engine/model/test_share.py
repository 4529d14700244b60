"""Streams that share an encoder, a connector, or the stack of a decoder: there is one of each."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.embedding.embedder import fingerprint
from sensorium.engine.model import Model, build
from sensorium.engine.model.precompute import uncacheable_reason
from sensorium.engine.recipe import load_recipe, parse_recipe
from sensorium.engine.training import check
from sensorium.engine.training.optim import build_optimizer
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features

BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ENCODER = {"type": "transformers", "config": BERT, "tokenizer": {"type": "bpe", "size": 264},
           "max_length": 16}  # fmt: skip
LLAMA = {
    "type": "causal",
    "name": "tiny-llama",
    "tokenizer": {"type": "bpe", "size": 264},
    "weights": "none",
    "options": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}
ROWS = [("what barks", "a dog"), ("what purrs", "a cat"), ("what neighs", "a horse"),
        ("what moos", "a cow")]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({"query": q, "passage": p}) for q, p in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def stream(encoder: Any, connector: Any = "mean") -> dict[str, Any]:
    return {"modality": "text", "encoder": encoder, "connector": connector}


def recipe(passage: Any, query: Any = ENCODER, **sections: Any) -> dict[str, Any]:
    """A bi-encoder over questions and answers."""
    data = {"train": {"source": "json", "path": "rows.jsonl"}}
    task = {"type": "contrastive", "streams": ["query", "passage"], "dim": 8, "data": data}
    values = {"inputs": {"query": stream(query), "passage": passage}, "tasks": {"match": task}}
    return copy.deepcopy(values | {"train": {"steps": 2, "batch_size": 4}} | sections)


def made(*args: Any, **sections: Any) -> Model:
    return build(parse_recipe(recipe(*args, **sections)))


SHARED = {
    "the encoder": stream({"share": "query"}),
    "encoder and connector": stream({"share": "query"}, {"share": "query"}),
    "the stream": {"share": "query"},
}
shared = pytest.mark.parametrize("passage", SHARED.values(), ids=list(SHARED))


@shared
def test_it_is_one_module_in_one_place(passage: Any) -> None:
    model = made(passage)
    query, other = model.stream("query"), model.stream("passage")
    assert query.encoder is other.encoder
    both = passage != SHARED["the encoder"]
    assert (query.connector is other.connector) == both
    places = [c.where for c in model.components]
    assert places.count("inputs.query.encoder") == 1
    assert "inputs.passage.encoder" not in places
    assert ("inputs.passage.connector" in places) == (not both)
    parameters = list(model.parameters())
    groups = build_optimizer(model, model.plan.recipe.train).param_groups
    entries = [id(p) for group in groups for p in group["params"]]
    assert sorted(entries) == sorted(id(p) for p in parameters)
    assert len(set(entries)) == len(entries)


@shared
def test_it_is_saved_once(passage: Any, folder: Path) -> None:
    model = made(passage)
    save_run(model, folder / "run")
    with (folder / "run" / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    stored = [name for name in header if ".encoder." in name]
    names = [name for name, _ in model.stream("query").encoder.named_parameters()]
    assert len(stored) >= len(names)
    assert not [name for name in stored if name.startswith("streams.passage.")]
    again = load_model(folder / "run")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert again.stream("query").encoder is again.stream("passage").encoder
    written = load_recipe(folder / "run" / "recipe.yaml")
    assert written.to_dict()["inputs"]["passage"]["encoder"] == {"share": "query"}
    fitted = sorted(path.name for path in (folder / "run" / "fitted").glob("*.json"))
    assert fitted == ["inputs.query.encoder.tokenizer.json"]


HUB = "hf-hub:org/run"
published = pytest.mark.parametrize("weights", [HUB, "run"])


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `run` is what the hub has."""
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder / "run"))


def printed(run: Path) -> list[str]:
    """The places of the parts of which a run keeps a fingerprint only."""
    prints = json.loads((run / "fingerprints.json").read_text("utf-8"))
    return [name for name in prints if not name.endswith(".processor")]


@published
def test_a_frozen_one_has_one_fingerprint_and_one_store(
    folder: Path, hub: None, weights: str
) -> None:
    save_run(made({"share": "query"}), folder / "run")
    frozen = {**ENCODER, "weights": weights, "freeze": True}
    model = made(stream({"share": "query"}, {"share": "query"}), frozen)
    save_run(model, folder / "second")
    saved = [k for k in load_file(folder / "second" / "model.safetensors") if "encoder" in k]
    assert printed(folder / "second") == (["inputs.query.encoder"] if weights == HUB else [])
    assert bool(saved) == (weights != HUB)
    assert all(name.startswith("streams.query.encoder.") for name in saved)
    assert fingerprint(model, "query") == fingerprint(model, "passage")
    from sensorium.engine.training import train

    train(parse_recipe(recipe(stream({"share": "query"}), frozen)), folder / "third", show=False)
    assert len(list((folder / "cache" / "features").iterdir())) == 1


def test_adapters_are_added_once() -> None:
    model = made({"share": "query"}, {**ENCODER, "lora": {"r": 2}})
    encoder = model.stream("passage").encoder
    depth = [name.count("lora_A") for name, _ in encoder.named_modules()]
    assert max(depth) == 1
    trains = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trains and all("lora_" in name for name in trains)


def test_the_tokenizer_is_fitted_on_the_texts_of_both() -> None:
    """Not on those of the first stream alone."""
    one = made(stream(ENCODER)).stream("query").encoder
    both = made({"share": "query"}).stream("query").encoder
    assert one.processor.settings() != both.processor.settings()  # type: ignore[union-attr]


def inputs_of(model: Model, name: str) -> dict[str, Tensor]:
    encoder = model.stream(name).encoder
    texts = [row[name == "passage"] for row in ROWS]
    return encoder.collate([encoder.processor.prepare(text) for text in texts])


def vectors(model: Model, name: str) -> Tensor:
    stream = model.stream(name)
    features = stream(stream.encoder(**inputs_of(model, name)))
    assert isinstance(features, Features)
    return features.pool()


def loss_of(model: Model) -> Tensor:
    return F.cross_entropy(vectors(model, "query") @ vectors(model, "passage").T, torch.arange(4))


def test_gradients_are_the_sum_of_both_streams() -> None:
    model = made({"share": "query"})
    apart = copy.deepcopy(model)
    apart.streams["passage"] = copy.deepcopy(apart.streams["query"])
    for each in (model, apart):
        loss_of(each).backward()
    for kind in ("encoder", "connector"):
        whole = getattr(model.stream("query"), kind).named_parameters()
        one, two = (getattr(apart.stream(n), kind).parameters() for n in ("query", "passage"))
        for (name, w), a, b in zip(whole, one, two, strict=True):
            if w.grad is None:
                assert a.grad is b.grad is None, name
            else:
                torch.testing.assert_close(w.grad, a.grad + b.grad, rtol=1e-4, atol=1e-6)


def test_a_shared_encoder_is_found_by_either_name_in_a_run(folder: Path) -> None:
    save_run(made({"share": "query"}), folder / "run")
    frozen = {**ENCODER, "weights": "run", "freeze": True}
    save_run(made({"share": "query"}, frozen), folder / "second")
    expected = made({"share": "query"}, frozen).stream("query").encoder.state_dict()
    for run in ("run", "second"):
        taken = made(stream({**ENCODER, "weights": f"{run}:passage"})).stream("passage").encoder
        torch.testing.assert_close(taken.state_dict(), expected, rtol=0, atol=0)


def test_the_modality_is_the_others_unless_said() -> None:
    values = recipe({"share": "query", "modality": "text"})
    assert parse_recipe(values).inputs["passage"].modality == "text"
    assert parse_recipe(recipe({"share": "query"})).inputs["passage"].modality == "text"


BACKBONE = pytest.mark.parametrize("attention", ["causal", "bidirectional"])


def with_backbone(attention: str = "causal", backbone: Any = LLAMA, **keys: Any) -> Model:
    query = {"share": "backbone", "attention": attention, "max_length": 24, **keys}
    return made({"share": "query"}, query, backbone=backbone)


@BACKBONE
def test_the_stack_of_a_decoder_gives_its_own_hidden_states(attention: str) -> None:
    model = with_backbone(attention).eval()
    encoder, backbone = model.stream("query").encoder, model.backbone
    inputs = inputs_of(model, "query")
    features = encoder(**inputs)
    assert backbone is not None
    expected = backbone(backbone.embed(inputs["ids"]), inputs["mask"], attention=attention)
    mask = inputs["mask"]
    assert not bool(mask.all())  # rows of several lengths
    torch.testing.assert_close(features.tokens[mask], expected[mask], rtol=0, atol=1e-6)
    assert not bool(features.tokens[~mask].any())
    alone = {key: value[:1, : int(mask[0].sum())] for key, value in inputs.items()}
    torch.testing.assert_close(encoder(**alone).tokens[0], features.tokens[0][mask[0]])
    layers = encoder(**inputs, hidden_states=(0, -1)).hidden_states
    _, states = backbone(backbone.embed(inputs["ids"]), mask, attention=attention,
                         hidden_states=(0, -1))  # fmt: skip
    for layer, state in zip(layers, states, strict=True):
        torch.testing.assert_close(layer.tokens[mask], state[mask], rtol=0, atol=1e-6)


def test_attention_changes_what_an_earlier_token_sees() -> None:
    tokens = []
    for attention in ("causal", "bidirectional"):
        model = with_backbone(attention).eval()
        tokens.append(model.stream("query").encoder(**inputs_of(model, "query")).tokens[0, 0])
    assert not torch.allclose(*tokens, atol=1e-4)


def test_training_through_either_place_moves_both() -> None:
    model = with_backbone()
    ids = inputs_of(model, "query")["ids"]
    backbone = model.backbone
    assert backbone is not None
    settings = torch.optim.SGD(model.parameters(), lr=0.5)

    def hidden() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mask = torch.ones_like(ids, dtype=torch.bool)
            return model.stream("query").encoder(ids, mask).tokens, backbone(backbone.embed(ids))

    for loss in (lambda: loss_of(model), lambda: backbone(backbone.embed(ids)).square().mean()):
        before = hidden()
        settings.zero_grad()
        loss().backward()
        settings.step()
        after = hidden()
        torch.testing.assert_close(*after, rtol=0, atol=1e-6)
        assert all(not torch.allclose(b, a, atol=1e-4) for b, a in zip(before, after, strict=True))


def test_a_decoder_that_encodes_is_there_once(folder: Path) -> None:
    lora = {**LLAMA, "lora": {"r": 2}, "lr": 0.5}
    model = with_backbone(backbone=lora)
    assert model.stream("query").encoder is model.stream("passage").encoder
    assert model.backbone is not None
    names = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert names and all(name.count("lora_") == 1 for name in names)
    groups = build_optimizer(model, model.plan.recipe.train).param_groups
    entries = [id(p) for group in groups for p in group["params"]]
    assert len(entries) == len(set(entries))
    rates = {group["base_lr"]: len(group["params"]) for group in groups}
    assert rates[0.5] == len(names)
    save_run(model, folder / "run")
    again = load_model(folder / "run")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    saved = load_file(folder / "run" / "model.safetensors")
    every = sum(p.numel() for p in model.parameters())
    assert sum(tensor.numel() for tensor in saved.values()) == every
    fitted = [path.name for path in (folder / "run" / "fitted").glob("*.json")]
    assert fitted == ["backbone.tokenizer.json"]
    words = model.stream("query").encoder.processor.tokenizer  # type: ignore[attr-defined]
    assert len(words.encode("what barks")) < len("what barks")  # merges of the streams' own texts


@published
def test_a_frozen_decoder_encodes_once_for_all(folder: Path, hub: None, weights: str) -> None:
    save_run(with_backbone(), folder / "run")
    model = with_backbone(backbone={**LLAMA, "weights": weights, "freeze": True})
    assert uncacheable_reason(model.plan, model, "query") is None
    save_run(model, folder / "second")
    assert printed(folder / "second") == (["backbone"] if weights == HUB else [])
    saved = load_file(folder / "second" / "model.safetensors")
    stack = [n for n in saved if ".connector." not in n and not n.startswith("tasks.")]
    once = sum(p.numel() for p in model.decoder("backbone").parameters())
    assert sum(saved[name].numel() for name in stack) == (0 if weights == HUB else once)
    load_model(folder / "second")


def test_a_named_decoder_encodes_too() -> None:
    query = {"share": "teacher", "attention": "bidirectional"}
    model = made({"share": "query"}, query, decoders={"teacher": LLAMA})
    assert model.stream("query").encoder.backbone is model.decoder("teacher")


@pytest.mark.parametrize("query", [ENCODER, {"share": "backbone"}], ids=["encoder", "backbone"])
def test_a_resumed_run_has_the_losses_of_a_whole_one(shop: Any, folder: Path, query: Any) -> None:
    settings = {"steps": 4, "batch_size": 2, "checkpoint": {"every": 1}}
    stack = {"backbone": {**LLAMA, "lora": {"r": 2}}} if "share" in query else {}
    values = recipe({"share": "query"}, query, train=settings, **stack)
    values["tasks"]["match"]["data"]["train"]["path"] = str(folder / "rows.jsonl")
    shop.train(values, "whole")
    shop.cut(values, "cut", 3)
    shop.train(values, "cut", resume=True)
    assert shop.losses("cut") == shop.losses("whole")
    whole, cut = (load_file(shop.folder / n / "model.safetensors") for n in ("whole", "cut"))
    torch.testing.assert_close(cut, whole, rtol=0, atol=0)


def test_check_says_what_is_shared() -> None:
    report = check(parse_recipe(recipe({"share": "query"})))
    stages = {stage.where: stage for stage in report.components}
    assert stages["inputs.passage.encoder"].note == "shares inputs.query.encoder"
    assert stages["inputs.passage.encoder"].parameters == 0
    report = check(parse_recipe(recipe(
        {"share": "query"}, {"share": "backbone"}, backbone=LLAMA)))  # fmt: skip
    total = sum(stage.parameters for stage in report.components)
    assert total == sum(p.numel() for p in with_backbone().parameters())


IMAGE = {"modality": "image", "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 8},
         "connector": "linear"}  # fmt: skip

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown stream": (
        {"passage": stream({"share": "qery"})},
        r"passage\.encoder\.share: found 'qery', expected another .*did you mean 'query'",
    ),
    "an unknown stream, whole": (
        {"passage": {"share": "qery"}},
        r"inputs\.passage\.share: found 'qery', .*did you mean 'query'",
    ),
    "no name": ({"passage": {"share": ["query"]}}, r"passage\.share: found \['query'\], expected"),
    "nothing": (
        {"passage": stream({"share": None})},
        r"passage\.encoder\.type: is required",
    ),
    "a decoder, whole": (
        {"passage": {"share": "backbone"}},
        r"passage\.share: .*the layers of a decoder are shared by encoder: \{share",
    ),
    "itself": ({"passage": stream({"share": "passage"})}, r"passage shares passage, a circle"),
    "itself, whole": ({"passage": {"share": "passage"}}, r"passage\.share: found 'passage'"),
    "a circle": (
        {"query": stream({"share": "passage"}), "passage": stream({"share": "query"})},
        r"query\.encoder\.share: query shares passage shares query, a circle",
    ),
    "a circle, whole": (
        {"query": {"share": "passage"}, "passage": {"share": "query"}},
        r"inputs\.query\.share: query and passage share each other",
    ),
    "a chain": (
        {"passage": stream({"share": "query"}), "third": stream({"share": "passage"})},
        r"third\.encoder\.share: passage shares the encoder of query; say share: query",
    ),
    "a chain, whole": (
        {"passage": {"share": "query"}, "third": {"share": "passage"}},
        r"inputs\.third\.share: passage is shared itself; say share: query",
    ),
    "a type beside it": (
        {"passage": stream({"share": "query", "type": "transformers"})},
        r"passage\.encoder\.type: stands beside share: query; say it in inputs\.query\.encoder",
    ),
    "freezing beside it": (
        {"passage": stream({"share": "query", "freeze": True})},
        r"passage\.encoder\.freeze: stands beside share: query",
    ),
    "an option beside it": (
        {"passage": stream({"share": "query", "max_length": 8})},
        r"passage\.encoder\.max_length: stands beside share: query",
    ),
    "a connector beside a stream": (
        {"passage": {"share": "query", "connector": "mean"}},
        r"passage\.connector: stands beside share: query, which is short for encoder and",
    ),
    "a connector that is none": (
        {
            "query": {"modality": "text", "encoder": ENCODER},
            "passage": stream({"share": "query"}, {"share": "query"}),
        },
        r"passage\.connector\.share: found 'query', expected another stream with a section",
    ),
    "lora beside a decoder": (
        {"passage": stream({"share": "backbone", "lora": {"r": 2}})},
        r"passage\.encoder\.lora: stands beside share: backbone; say it in backbone",
    ),
    "an option of no decoder's": (
        {"passage": stream({"share": "backbone", "pooling": "mean"})},
        r"passage\.encoder\.pooling: .*no such option",
    ),
    "an attention that is none": (
        {"passage": stream({"share": "backbone", "attention": "both"})},
        r"passage\.encoder\.attention: found 'both'",
    ),
    "a decoder as a connector": (
        {"passage": stream(ENCODER, {"share": "backbone"})},
        r"passage\.connector\.share: backbone is a decoder",
    ),
    "a decoder of pictures": (
        {"passage": {**IMAGE, "encoder": {"share": "backbone"}}},
        r"passage\.encoder\.share: a decoder reads text, and the modality of inputs\.passage gives",
    ),
    "a connector of another width": (
        {"passage": {**IMAGE, "connector": {"share": "query"}}, "backbone": None},
        r"passage\.connector: inputs\.query\.connector takes tokens of width 16, the encoder .* 8",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake: str) -> None:
    inputs, line = MISTAKES[mistake]
    values = recipe(stream(ENCODER), backbone=LLAMA)
    values |= {} if "backbone" not in inputs else {"backbone": inputs["backbone"]}
    values["inputs"] |= {k: copy.deepcopy(v) for k, v in inputs.items() if k != "backbone"}
    values["tasks"]["match"]["streams"] = list(values["inputs"])
    with pytest.raises(ConfigError, match=line) as error:
        build(parse_recipe(values))
    assert "\n" not in str(error.value)
