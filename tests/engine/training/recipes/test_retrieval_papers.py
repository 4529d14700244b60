"""Papers of contrastive text encoders at toy size, with their controls."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.engine.evaluation import evaluate
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
}
ENGLISH = ["house", "water", "tree", "bread", "night", "stone", "horse", "letter"]
GERMAN = ["haus", "wasser", "baum", "brot", "nacht", "stein", "pferd", "brief"]


def encoder(kind: str = "bert", dropout: float = 0.0, **options: Any) -> dict[str, Any]:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = {"model_type": kind, **TINY, **rates}
    return {
        "type": "transformers",
        "config": config,
        "tokenizer": "bytes",
        "max_length": 32,
        **options,
    }


def data(runner: Any, rows: list[dict[str, Any]], name: str = "rows") -> dict[str, Any]:
    path = runner.folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": "json", "path": str(path)}


def recipe(rows: dict[str, Any], steps: int, text: dict[str, Any], **task: Any) -> dict[str, Any]:
    section = {"type": "contrastive", "streams": ["query", "passage"], "dim": 32, **task}
    return {
        "inputs": {
            "query": {"modality": "text", "encoder": text, "connector": "mean"},
            "passage": {"share": "query"},
        },
        "tasks": {"search": {**section, "data": {"train": rows, "test": rows}}},
        "train": {"steps": steps, "batch_size": 8, "optimizer": {"lr": 0.01}, "log_every": 1},
    }


def recall(model: Any) -> float:
    return evaluate(model, input_ablation=False)["search"]["recall@1"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_translations_of_words_find_each_other(runner: Any, kind: str) -> None:
    """Lexical specialization: induction of a bilingual lexicon, both ways; a control that is not
    trained, and one that learns words that do not belong together."""
    pairs = [{"query": a, "passage": b} for a, b in zip(ENGLISH, GERMAN, strict=True)]
    values = recipe(data(runner, pairs), 60, encoder(kind), temperature=0.1)
    untrained = recall(build(parse_recipe(values)).eval())
    trained = recall(runner.train(values, "run"))
    assert trained > untrained + 0.3
    if kind == "bert":
        wrong = [{"query": a, "passage": b} for a, b in zip(ENGLISH, GERMAN[::-1], strict=True)]
        shuffled = recipe(data(runner, wrong, "wrong"), 60, encoder(), temperature=0.1)
        shuffled["tasks"]["search"]["data"]["test"] = values["tasks"]["search"]["data"]["test"]
        assert recall(runner.train(shuffled, "wrong")) < trained - 0.3


@pytest.mark.slow
def test_a_text_beside_itself_trains_an_encoder(runner: Any) -> None:
    """Mirror-BERT: identity pairs, a span hidden in one copy, and dropout; other wordings of a
    text then lie nearer. Without dropout and spans a pair has the cosine 1 from the beginning."""
    texts = [f"the {w} is {c}" for w in ENGLISH for c in ("old", "new", "far")]
    rows = data(runner, [{"text": text} for text in texts])
    rows["columns"] = {"query": "text", "passage": "text"}
    values = recipe(rows, 40, encoder(dropout=0.1), temperature=0.1)
    passage = {"type": "span_mask", "length": 5}
    values["inputs"]["passage"] |= {"augment": passage}
    values["train"]["optimizer"] = {"lr": 0.003}
    words = [text.split() for text in texts]
    variants = [
        {"query": t, "passage": f"{w[3]} {w[1]}"} for t, w in zip(texts, words, strict=True)
    ]
    values["tasks"]["search"]["data"]["test"] = data(runner, variants, "variants")
    untrained = recall(build(parse_recipe(values)).eval())
    assert recall(runner.train(values, "run")) > untrained + 0.15
    plain = recipe(rows, 1, encoder(), temperature=0.1)
    model = build(parse_recipe(plain)).train()
    batch = model.stream("query").encoder.collate(
        [model.stream("query").encoder.processor.prepare(text) for text in texts[:3]]
    )
    first, second = (model.stream(n).run(batch, {}).pool() for n in ("query", "passage"))
    torch.testing.assert_close(torch.cosine_similarity(first, second), torch.ones(3))


def test_a_queue_of_translations_trains_beside_masked_words(runner: Any) -> None:
    """InfoXLM: an XLM-R encoder, a momentum queue over parallel sentences, and masked LM."""
    pairs = [{"query": a, "passage": b} for a, b in zip(ENGLISH, GERMAN, strict=True)]
    rows = data(runner, pairs)
    text = encoder("xlm-roberta", lm_head=True)
    values = recipe(rows, 6, text, temperature=0.1, queue_size=6, queue_momentum=0.9)
    values["tasks"]["words"] = {"type": "masked_lm", "stream": "query", "data": {"train": rows}}
    model = runner.train(values, "run")
    assert {task for _, task, _ in runner.losses("run")} == {"search", "words"}
    assert type(model.stream("query").encoder.encoder).__name__ == "XLMRobertaModel"
    queue = model.task("search").queue
    assert int((queue.rows != 0).sum()) == 6


@pytest.mark.slow
def test_a_small_student_learns_the_retriever_s_space(runner: Any) -> None:
    """INDUS: a RoBERTa retriever, and a smaller RoBERTa that is distilled from it."""
    texts = [{"small": f"{a} {b}", "large": f"{a} {b}"} for a in ENGLISH for b in GERMAN[:2]]
    rows = data(runner, texts)
    frozen = encoder("roberta", freeze=True)
    small = encoder("roberta")
    small["config"] = {**small["config"], "hidden_size": 16}
    values = {
        "inputs": {
            "small": {"modality": "text", "encoder": small, "connector": "mean"},
            "large": {"modality": "text", "encoder": frozen, "connector": "mean"},
        },
        "tasks": {
            "distill": {
                "type": "distill_embedding",
                "student": "small",
                "teacher": "large",
                "loss": "cosine",
                "data": {"train": rows, "test": rows},
            }
        },
        "train": {"steps": 60, "batch_size": 8, "optimizer": {"lr": 0.01}, "log_every": 1},
    }
    before = evaluate(build(parse_recipe(values)).eval(), input_ablation=False)["distill"]
    after = evaluate(runner.train(values, "run"), input_ablation=False)["distill"]
    assert after["cosine"] > before["cosine"] + 0.2
    assert after["small_to_large_recall@1"] > before["small_to_large_recall@1"]


def test_late_interaction_moves_to_another_language_by_its_adapter(runner: Any) -> None:
    """ColBERT-XM: MaxSim on a modular encoder, trained in one language with adapters frozen; one
    key chooses another language's at test. Equal adapters, as control, give equal vectors."""
    text = encoder("xmod", train_only={"pattern": r"^(?!.*adapter_modules)"})
    languages = {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"}
    text["config"] = {**text["config"], **languages, "adapter_reduction_factor": 2}
    pairs = [{"query": w, "passage": f"the {w}"} for w in ENGLISH]
    values = recipe(data(runner, pairs), 15, text, similarity="maxsim", temperature=1.0)
    values["inputs"]["query"]["connector"] = "linear"
    before = build(parse_recipe(values)).state_dict()
    trained = runner.train(values, "run")
    after = trained.state_dict()
    changed = {n for n in after if not torch.equal(after[n], before[n])}
    assert changed and not any("adapter_modules" in name for name in changed)
    assert recall(trained) > recall(build(parse_recipe(values)).eval())
    values["inputs"]["query"]["encoder"]["config"]["default_language"] = "de_DE"
    german = build(parse_recipe(values)).eval()
    german.load_state_dict(after)

    def tokens(model: Model) -> Tensor:
        stream = model.eval().stream("query")
        words = [stream.encoder.processor.prepare(word) for word in ENGLISH]
        return stream.run(stream.encoder.collate(words), {}).tokens

    english = tokens(trained)
    assert not torch.allclose(tokens(german), english, atol=1e-4)
    same = {n: after[n.replace("adapter_modules.de_DE", "adapter_modules.en_XX")] for n in after}
    german.load_state_dict(same)
    torch.testing.assert_close(tokens(german), english)


def test_adapters_alone_go_on_with_masked_words(runner: Any) -> None:
    """Swiss German: the adapters of one language of a modular encoder learn masked words; the
    shared weights and the other language's adapters stay bit for bit."""
    text = encoder("xmod", lm_head=True, train_only={"pattern": r"adapter_modules\.de_CH"})
    languages = {"languages": ["de_DE", "de_CH"], "default_language": "de_CH"}
    text["config"] = {**text["config"], **languages, "adapter_reduction_factor": 2}
    rows = data(runner, [{"query": word} for word in GERMAN])
    values = {
        "inputs": {"query": {"modality": "text", "encoder": text, "connector": "linear"}},
        "tasks": {"words": {"type": "masked_lm", "stream": "query", "data": {"train": rows}}},
        "train": {"steps": 30, "batch_size": 6, "log_every": 1, "optimizer": {"lr": 0.02}},
    }
    before = build(parse_recipe(values)).state_dict()
    after = runner.train(values, "run").state_dict()
    encoder_names = [name for name in after if ".encoder." in name]
    changed = {name for name in encoder_names if not torch.equal(after[name], before[name])}
    assert changed and all("adapter_modules.de_CH" in name for name in changed)
    losses = [loss for *_, loss in runner.losses("run")]
    assert sum(losses[-5:]) < sum(losses[:5])
