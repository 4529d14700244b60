"""Language modelling: losses of the library, refusals, and a training through a recipe."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sensorium.backbones.base import Backbone
from sensorium.backbones.configs import CAUSAL, SEQ2SEQ
from sensorium.tasks.batch import Tools
from sensorium.tasks.language import OBJECTIVES, LanguageMetrics, LanguageModeling, Markers
from sensorium.tasks.language.packing import first_fit
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.language.tiny import GPT2, LIBRARY, ROWS, T5, backbone_of, built


def loss_of(task: LanguageModeling, backbone: Backbone, rows: Any = ROWS) -> tuple[float, int]:
    context = StubContext({}).on(backbone)
    loss = task.loss(prepare_batch(task, rows, decoder=backbone), context)
    return float(loss.total.detach()), int(loss.count)


@pytest.fixture(scope="module")
def gpt2() -> Backbone:
    return backbone_of("causal", GPT2)


@pytest.mark.parametrize("kind", LIBRARY)
def test_the_causal_loss_and_gradient_are_the_library_s(kind: str) -> None:
    backbone: Any = backbone_of("causal", LIBRARY[kind], attn="eager")
    task = built(backbone, "causal")
    batch = prepare_batch(task, ROWS, decoder=backbone)
    loss = task.loss(batch, StubContext({}).on(backbone))
    (gradient,) = torch.autograd.grad(loss.total / loss.count, [backbone.table.weight])
    ids = torch.cat([batch.labels["source"], batch.labels["target"]], 1)
    real = torch.cat([batch.label_masks["source"], batch.label_masks["target"]], 1)
    out = backbone.model(
        input_ids=ids, attention_mask=real.long(), labels=ids.masked_fill(~real, -100)
    )
    torch.testing.assert_close(loss.total / loss.count, out.loss, atol=1e-5, rtol=1e-5)
    (expected,) = torch.autograd.grad(out.loss, [backbone.table.weight])
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", LIBRARY)
def test_the_loss_of_infilling_is_that_of_the_whole_row(kind: str) -> None:
    """With the added rows for its sentinels, source and target are one row to the library."""
    backbone: Any = backbone_of("causal", LIBRARY[kind], attn="eager")
    task = built(backbone, "causal", "span_corruption", "fill_in_the_middle", sentinels=9)
    batch = prepare_batch(task, ROWS[:1], decoder=backbone, training=False)
    for name in task.objectives:
        source, target = (
            Markers.resolve(ids, task.marker_ids)
            for ids in (batch.labels[f"source.{name}"], batch.labels[f"target.{name}"])
        )
        row = backbone.embed(torch.cat([source, target], 1))
        hidden = backbone.decoder(inputs_embeds=row).last_hidden_state[:, source.shape[1] - 1 : -1]
        expected = F.cross_entropy(backbone.logits(hidden)[0], target[0], reduction="sum")
        context = StubContext({}).on(backbone)
        (prediction,) = task.predict(batch, context)
        nll = prediction["scores"][name]["nll"]
        assert nll == pytest.approx(float(expected.detach()), rel=1e-5)
        losses, _ = task._scores(batch, context, f".{name}")
        gradients = [
            torch.autograd.grad(x.sum(), [backbone.table.weight])[0] for x in (losses, expected)
        ]
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_the_loss_of_spans_is_t5s() -> None:
    backbone: Any = backbone_of("seq2seq", {**T5, "dropout_rate": 0.0})
    task = built(backbone, "span_corruption", sentinels=9)
    batch = prepare_batch(task, ROWS, decoder=backbone)
    loss = task.loss(batch, StubContext({}).on(backbone))
    model = copy.deepcopy(backbone.model)
    table = model.get_input_embeddings().weight.data
    rows = {key: value.data for key, value in backbone.new_rows.items()}
    head = model.get_output_embeddings().weight.data
    model.resize_token_embeddings(len(table) + 9, mean_resizing=False)
    model.get_input_embeddings().weight.data = torch.cat([table, rows["input"]])
    output = rows.get("output", rows["input"])
    model.config.pad_token_id = backbone.tokenizer.pad_id
    model.config.decoder_start_token_id = backbone.start_ids[0]
    model.get_output_embeddings().weight.data = torch.cat([head, output])
    source, target = (
        torch.where(ids < 0, len(table) - 1 - ids, ids)
        for ids in (batch.labels["source"], batch.labels["target"])
    )
    assert int(target.max()) >= len(table), "no sentinel"
    out = model(
        input_ids=source,
        attention_mask=batch.label_masks["source"].long(),
        labels=target.masked_fill(~batch.label_masks["target"], -100),
    )
    torch.testing.assert_close(loss.total / loss.count, out.loss, atol=1e-5, rtol=1e-5)
    gradients = [
        torch.autograd.grad(x, [each.decoder.block[0].layer[1].EncDecAttention.k.weight])[0]
        for x, each in ((loss.total / loss.count, backbone.model), (out.loss, model))
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_a_built_in_decoder_begins_near_the_loss_of_chance(kind: str) -> None:
    builtin = {"causal": CAUSAL, "seq2seq": SEQ2SEQ}[kind]
    for name in builtin:
        backbone = backbone_of(kind, builtin[name])
        total, count = loss_of(built(backbone, "prefix"), backbone)
        assert total / count < math.log(backbone.tokenizer.size) + 1, name


def test_a_prefix_of_no_token_is_causal(gpt2: Backbone) -> None:
    one = [{"text": "x"}, {"text": "y"}]
    losses = [loss_of(built(gpt2, name), gpt2, one) for name in ("causal", "prefix")]
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_mixture_of_one_is_the_objective(name: str) -> None:
    backbone = backbone_of("causal", GPT2)
    alone = loss_of(built(backbone, name, sentinels=5), backbone)
    task = LanguageModeling(objectives={name: 3.0}, sentinels=5)
    task.marker_ids = torch.arange(9) + backbone.table.num_embeddings
    assert loss_of(task, backbone) == alone


def test_weights_are_the_shares_of_rows(gpt2: Backbone) -> None:
    task = LanguageModeling(objectives={"causal": 3.0, "prefix": 1.0})
    tools, rng = Tools({"backbone": gpt2.tokenizer}), np.random.default_rng(0)
    row = {"text": "abcdefghij" * 4}
    sources = [len(task.prepare(row, tools, rng).labels["source"]) for _ in range(1000)]
    assert sources.count(1) / 1000 == pytest.approx(0.75, abs=0.05)


def test_the_loss_of_a_batch_is_the_sum_of_its_rows(gpt2: Backbone) -> None:
    task = built(gpt2, "causal", attention="prefix")
    rows = [loss_of(task, gpt2, [row]) for row in ROWS]
    total, count = loss_of(task, gpt2)
    assert total == pytest.approx(sum(loss for loss, _ in rows), rel=1e-4)
    assert count == sum(count for _, count in rows)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_evaluation_depends_on_the_text_alone(name: str, gpt2: Backbone) -> None:
    task, tools = LanguageModeling(objectives={name: 1.0}), Tools({"backbone": gpt2.tokenizer})
    first, again = (task.prepare(ROWS[1], tools, None).labels for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [task.prepare(ROWS[1], tools, np.random.default_rng(3)).labels for _ in range(2)]
    assert torch.equal(drawn[0]["target"], drawn[1]["target"])


def test_scores_are_those_of_the_loss_and_of_greedy_decoding(gpt2: Backbone) -> None:
    task = built(gpt2, "causal")
    rows = [{"text": "a red circle"}, {"text": "word"}, {"text": "two words"}]
    context = StubContext({}).on(gpt2)
    predictions = task.predict(prepare_batch(task, rows, decoder=gpt2, training=False), context)
    scores = [prediction["scores"]["causal"] for prediction in predictions]
    total, count = loss_of(task, gpt2, rows)
    assert sum(s["nll"] for s in scores) == pytest.approx(total, rel=1e-4)
    assert [s["tokens"] for s in scores] == [len(r["text"]) + 1 for r in rows]
    assert ["last_word" in s for s in scores] == [True, False, True]
    result = task.metrics()
    result.update(predictions, rows)
    metrics = result.compute()
    assert metrics["loss"] == pytest.approx(total / count, rel=1e-4)
    assert metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-3)


def test_the_metrics_are_by_token_and_objective() -> None:
    metrics = LanguageMetrics({"causal": 1.0, "ul2": 3.0})
    one = {"causal": {"nll": 2.0, "tokens": 1, "last_word": True}, "ul2": {"nll": 4.0, "tokens": 2}}
    two = {"causal": {"nll": 2.0, "tokens": 3, "last_word": False}}
    two["ul2"] = {"nll": 0.0, "tokens": 2}
    metrics.update([{"scores": one}, {"scores": two}], [{}, {}])
    result = metrics.compute()
    assert (result["causal_loss"], result["ul2_loss"], result["loss"]) == (1.0, 1.0, 1.0)
    assert result["last_word_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": {}}, "objectives: is empty"),
        ({"objectives": {"casual": 1.0}}, "did you mean 'causal'"),
        ({"objectives": {"ul2": 0.0}}, "objectives.ul2: found 0.0, expected a weight above 0"),
        ({"noise_density": 1.0}, "noise_density: found 1.0"),
        ({"mean_span": 0.5}, "mean_span: found 0.5, expected at least 1"),
        ({"sentinels": 1}, "sentinels: found 1, expected at least 2"),
        ({"max_length": 0}, "max_length: found 0, expected at least 1"),
        ({"text": "words"}, "text: 'words' must be made of columns"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        LanguageModeling(**options)
    assert "\n" not in str(error.value)


def test_an_empty_text_and_one_longer_than_the_positions(gpt2: Backbone) -> None:
    task = built(gpt2, "causal")
    with pytest.raises(ValueError, match="text: is empty"):
        prepare_batch(task, [{"text": ""}], decoder=gpt2)
    with pytest.raises(ValueError, match="128 positions, found 201"):
        loss_of(task, gpt2, [{"text": "y" * 200}])
    assert loss_of(built(gpt2, "causal", max_length=100), gpt2, [{"text": "y" * 200}])[1] == 101


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_encoder_decoder_needs_something_to_encode(name: str) -> None:
    backbone = backbone_of("seq2seq", T5)
    if OBJECTIVES[name].encoder:
        total, count = loss_of(built(backbone, name, sentinels=5), backbone)
        assert math.isfinite(total) and count > 0
        return
    with pytest.raises(ValueError, match=f"`{name}` leaves the encoder .* use prefix, span_corr"):
        built(backbone, name)


@pytest.mark.parametrize("kind", ["gpt2", "codegen"])
@pytest.mark.parametrize("length", [1, 70, 500])
def test_packing_changes_no_loss_and_no_gradient(kind: str, length: int) -> None:
    """In rows of one text, of some, and of all."""
    losses = []
    for pack in (None, length):
        backbone: Any = backbone_of("causal", LIBRARY[kind], attn="eager")
        task = built(backbone, "causal", "span_corruption", sentinels=9, pack=pack)
        batch = prepare_batch(task, ROWS, decoder=backbone)
        loss = task.loss(batch, StubContext({}).on(backbone))
        (gradient,) = torch.autograd.grad(loss.total, [backbone.table.weight])
        losses.append((loss.total, gradient, loss.count, loss.parts["correct"]))
    torch.testing.assert_close(losses[1], losses[0], atol=2e-4, rtol=1e-4)


def test_first_fit_fills_rows_and_loses_no_text() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 120, 500).tolist()
    rows = first_fit(lengths, 100)
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert all(sum(lengths[i] for i in row) <= 100 or len(row) == 1 for row in rows)
    fitting = sum(length for length in lengths if length <= 100)
    assert sum(len(row) > 1 or lengths[row[0]] <= 100 for row in rows) < 1.2 * fitting / 100


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({"attention": "prefix"}, {}, "pack: takes `attention: causal`"),
        ({}, {"kind": "seq2seq", "config": T5}, "pack: an encoder-decoder has no one row"),
    ],
)
def test_packing_that_cannot_be(config: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backbone = backbone_of(**({"kind": "causal", "config": GPT2} | options))
        built(backbone, "span_corruption", pack=50, **config)
