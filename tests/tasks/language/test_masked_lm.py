"""Masked language modelling on encoders of text streams: losses of the library, and its parts."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch

from sensorium.modalities.base import Features
from sensorium.tasks.language.masked import MaskedLM, MaskRule, TextIds
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.language.tiny import ENCODERS, TEXTS, encoder_of, text_batch

ROWS: list[dict[str, Any]] = [{} for _ in TEXTS]


def task_of(**options: Any) -> MaskedLM:
    task = MaskedLM(**options)
    torch.manual_seed(1)
    task.build({"text": 16, "text.encoder": 16}, {})
    return task


def context_of(encoder: Any, **features: Features) -> StubContext:
    return StubContext(features).reading("text", encoder, TEXTS)


@pytest.fixture(scope="module")
def bert() -> Any:
    return encoder_of("bert")


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("kind", ENCODERS)
def test_the_loss_and_gradient_are_the_library_s(kind: str) -> None:
    encoder = encoder_of(kind)
    task, context = task_of(), context_of(encoder)
    encoded = task.encode(text_batch(task, ROWS, encoder), context, context.generator)
    labels = encoded.text.ids.masked_fill(~encoded.chosen, -100)
    out = encoder.model(
        input_ids=encoded.corrupted, attention_mask=encoded.text.mask.long(), labels=labels
    )
    loss = task.loss(text_batch(task, ROWS, encoder), context_of(encoder))
    assert loss.count == int(encoded.chosen.sum())
    torch.testing.assert_close(loss.total / loss.count, out.loss, atol=1e-5, rtol=1e-5)
    table = encoder.encoder.get_input_embeddings().weight
    gradients = [torch.autograd.grad(x, [table])[0] for x in (loss.total / loss.count, out.loss)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_chosen_tokens_are_ordinary_and_as_many_as_asked() -> None:
    ids = torch.randint(4, 260, (400, 200))
    ids[:, 0], ids[:, -1] = 1, 2
    special = ids < 4
    text = TextIds(ids, torch.ones_like(special), special)
    generator = torch.Generator().manual_seed(0)
    chosen = text.choose(0.15, generator)
    assert not (chosen & special).any()
    assert float(chosen.sum() / (~special).sum()) == pytest.approx(0.15, abs=0.0015)
    corrupted = text.corrupt(chosen, MaskRule(), 3, 260, generator)
    assert torch.equal(corrupted[~chosen], ids[~chosen])
    masked = (corrupted == 3)[chosen].float().mean()
    same = (corrupted == ids)[chosen].float().mean()
    assert (float(masked), float(same)) == pytest.approx((0.8, 0.1), abs=0.02)


def test_a_short_text_has_a_chosen_token_and_an_empty_one_none() -> None:
    ids = torch.tensor([[1, 7, 2], [1, 2, 0]])
    special = ids < 4
    chosen = TextIds(ids, ids > 0, special).choose(1e-6, torch.Generator().manual_seed(0))
    assert chosen.tolist() == [[False, True, False], [False, False, False]]


def test_an_evaluation_masks_by_the_text_alone(bert: Any) -> None:
    task = task_of()
    whole = task.predict(text_batch(task, ROWS, bert, False), context_of(bert))
    for index, text in enumerate(TEXTS):
        alone = StubContext({}).reading("text", bert, [text])
        (row,) = task.predict(text_batch(task, ROWS[:1], bert, False), alone)
        assert row["scores"]["masked"]["nll"] == pytest.approx(
            whole[index]["scores"]["masked"]["nll"], rel=1e-4
        )


def test_conditions_move_the_prediction_and_not_the_encoder(bert: Any) -> None:
    """LangSAMP: the states are those of the text, the loss is the language's."""
    task = task_of(conditions={"language": ["de", "sw"]})
    results = {}
    for language in ("de", "sw"):
        batch = text_batch(task, [{"language": language}] * len(TEXTS), bert)
        encoded = task.encode(batch, context_of(bert), torch.Generator().manual_seed(0))
        results[language] = encoded.features.tokens, task.loss(batch, context_of(bert)).total
    assert torch.equal(results["de"][0], results["sw"][0])
    assert not torch.equal(results["de"][1], results["sw"][1])
    assert not any("condition" in name for name in bert.state_dict())
    with pytest.raises(ValueError, match=r"language: found 'dee', .* did you mean 'de'") as error:
        text_batch(task, [{"language": "dee"}], bert)
    assert "\n" not in str(error.value)


def test_a_docked_stream_is_seen_by_the_text(bert: Any) -> None:
    task = task_of(before=["image"])
    tokens = torch.randn(len(TEXTS), 3, 16)
    mask = torch.tensor([[True, True, i % 2 == 0] for i in range(len(TEXTS))])
    batch = text_batch(task, ROWS, bert)

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        return task.loss(batch, context_of(bert, image=Features(tokens, mask))).total

    assert not torch.equal(loss(tokens), loss(tokens.flip(0)))
    padding = tokens + 9 * (~mask)[..., None]
    torch.testing.assert_close(loss(tokens), loss(padding))
    long = Features.dense(torch.randn(len(TEXTS), 60, 16))
    with pytest.raises(ValueError, match=r"embeddings, the model has 64 positions"):
        task.loss(batch, context_of(bert, image=long))
    wide = Features.dense(torch.randn(len(TEXTS), 3, 8))
    with pytest.raises(ValueError, match="its streams are 8 wide, the text's embeddings 16"):
        task.loss(batch, context_of(bert, image=wide))


def test_the_unigram_baseline_counts_ordinary_tokens(bert: Any) -> None:
    task, context = task_of(), context_of(bert)
    batch = text_batch(task, ROWS, bert, False)
    task.predict(batch, context)
    batch.streams["text"] = {"main": context.samples["text"]}
    metrics = task.unigram_metrics([batch], [batch])
    counts = Counter(byte for text in TEXTS for byte in text.encode())
    total = sum(counts.values())
    odds = torch.tensor([(n + 1) / (total + 260) for n in counts.values()])
    weights = torch.tensor(list(counts.values())) / total
    assert metrics["unigram_loss"] == pytest.approx(float(-(weights * odds.log()).sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_prob": 1.0}, "mask_prob: found 1.0"),
        ({"random_prob": 0.7, "keep_prob": 0.7}, "random_prob and keep_prob: found 0.7 and 0.7"),
        ({"before": ["text"]}, "before: names 'text', the text itself"),
        ({"weight": 0.0}, "weight: is 0 and there is no pretext"),
        ({"conditions": {"language": []}}, "conditions.language: found no value"),
        ({"pretext": [{"type": "wek"}]}, "pretext.0.type: found 'wek'; did you mean 'weak'"),
        ({"pretext": [{"type": "weak", "windw": 1}]}, "pretext.0.windw: .* did you mean 'window'"),
        ({"pretext": [{"type": "condenser"}]}, "pretext.0.early: is required with type: condenser"),
        ({"pretext": [{"type": "weak", "window": -1}]}, "pretext.0.window: found -1"),
        ({"pretext": [{"type": "weak", "weight": -1}]}, "pretext.0.weight: found -1"),
        ({"pretext": [{"type": "future", "layers": 0}]}, "pretext.0.layers: found 0 with 4 tokens"),
        ({"pretext": [{"type": "sections", "columns": {}}]}, "pretext.0.columns: is empty"),
        ({"pretext": [{"type": "visible"}], "before": ["image"]}, "visible reads the text alone"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        MaskedLM(**options)
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_a_mask_is_refused_in_one_line(bert: Any) -> None:
    encoder = copy.copy(bert)
    encoder.processor = copy.copy(bert.processor)
    encoder.processor.tokenizer = copy.copy(bert.processor.tokenizer)
    encoder.processor.tokenizer.mask_id = None
    task = task_of()
    with pytest.raises(ValueError, match="its tokenizer has no mask token") as error:
        task.loss(text_batch(task, ROWS, encoder), context_of(encoder))
    assert "\n" not in str(error.value)
