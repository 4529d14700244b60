"""Replaced-token detection, and answers at a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import ElectraForPreTraining

from sensorium.tasks.language.masked import MaskedAnswer, ReplacedToken
from sensorium.tasks.language.masked.replaced import sample
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.language.tiny import TEXTS, encoder_of, text_batch

ROWS: list[dict[str, Any]] = [{} for _ in TEXTS]


def task_of(width: int = 16, **options: Any) -> ReplacedToken:
    task = ReplacedToken(**options)
    torch.manual_seed(1)
    task.build({"text.encoder": 16, "generator.encoder": width}, {})
    return task


def context_of(encoder: Any, generator: Any) -> StubContext:
    return StubContext({}).reading("text", encoder, TEXTS).reading("generator", generator, TEXTS)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return encoder_of("electra"), encoder_of("bert", hidden_size=8)


def test_the_detection_is_electra_s_on_a_given_sample(pair: Any) -> None:
    encoder, task = pair[0], task_of(8)
    library = ElectraForPreTraining(encoder.whole).eval()
    library.electra.load_state_dict(encoder.encoder.state_dict())
    head: Any = library.discriminator_predictions
    head.dense.load_state_dict(task.detector[0].state_dict())
    head.dense_prediction.load_state_dict(task.detector[2].state_dict())
    context = context_of(*pair)
    _, _, text, sampled = task._generated(text_batch(task, ROWS, encoder), context, None)
    losses, _ = task.detect(context, text, sampled)
    labels = (sampled != text.ids).long()
    out = library(input_ids=sampled, attention_mask=text.mask.long(), labels=labels)
    torch.testing.assert_close(losses.mean(), out.loss, atol=1e-5, rtol=1e-5)
    ours, theirs = encoder.encoder, library.electra
    name = "encoder.layer.0.attention.self.query.weight"
    gradients = [
        torch.autograd.grad(loss, [dict(model.named_parameters())[name]])[0]
        for loss, model in ((losses.mean(), ours), (out.loss, theirs))
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_no_gradient_goes_through_the_sampling(pair: Any) -> None:
    encoder, generator = pair
    task = task_of(8)
    context = context_of(encoder, generator)
    _, _, text, sampled = task._generated(text_batch(task, ROWS, encoder), context, None)
    losses, _ = task.detect(context, text, sampled)
    losses.mean().backward()
    assert all(p.grad is None for p in generator.parameters())
    encoder.zero_grad()


def test_the_table_and_the_head_are_those_of_the_encoder(pair: Any) -> None:
    """The generator's own table is not used; that of the encoder gets its gradient."""
    encoder, generator = encoder_of("electra"), encoder_of("bert", hidden_size=8)
    task = task_of(8, weight=0.0)
    loss = task.loss(text_batch(task, ROWS, encoder), context_of(encoder, generator))
    loss.total.backward()
    assert encoder.encoder.get_input_embeddings().weight.grad is not None
    assert generator.encoder.get_input_embeddings().weight.grad is None
    assert any(p.grad is not None for p in generator.parameters())
    assert isinstance(task_of(16).down, torch.nn.Identity)


def test_a_token_that_the_generator_restores_is_an_original(pair: Any) -> None:
    encoder, generator = pair
    task, context = task_of(8), context_of(encoder, generator)
    _, _, text, _ = task._generated(text_batch(task, ROWS, encoder), context, None)
    losses, right = task.detect(context, text, text.ids)
    scores = task.detector(encoder(ids=text.ids, mask=text.mask).tokens)[..., 0][text.mask]
    torch.testing.assert_close(losses.values, torch.nn.functional.softplus(scores))
    assert torch.equal(right, scores <= 0)


def test_a_weight_of_none_leaves_the_generator_alone(pair: Any) -> None:
    batch = text_batch(task_of(8), ROWS, pair[0])
    whole, alone = (
        task_of(8, weight=weight).loss(batch, context_of(*pair)) for weight in (50.0, 0.0)
    )
    term = 50 * whole.parts["detection_loss"]
    torch.testing.assert_close(whole.total, alone.total + term, atol=1e-3, rtol=1e-5)
    assert whole.parts["replaced"] <= whole.count


def test_samples_follow_the_logits() -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log().expand(4000, 3)
    ids = sample(logits, torch.rand(4000, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(ids, minlength=3) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.03, rtol=0)


def test_a_prediction_scores_generator_and_detection(pair: Any) -> None:
    task = task_of(8)
    rows = task.predict(text_batch(task, ROWS, pair[0], False), context_of(*pair))
    metrics = task.metrics()
    metrics.update(rows, ROWS)
    values = metrics.compute()
    assert {"loss", "accuracy", "detection_loss", "detection_accuracy"} <= set(values)
    assert 0 <= values["detection_accuracy"] <= 1
    for index, text in enumerate(TEXTS):
        alone = (
            StubContext({}).reading("text", pair[0], [text]).reading("generator", pair[1], [text])
        )
        (row,) = task.predict(text_batch(task, ROWS[:1], pair[0], False), alone)
        whole, single = (r["scores"]["detection"]["nll"] for r in (rows[index], row))
        assert single == pytest.approx(whole, rel=1e-4)
    with pytest.raises(ValueError, match="generator: names 'text'"):
        ReplacedToken(generator="text")


# --- answers at a mask ------------------------------------------------------------------------

CHOICES = ["x", "y", "z"]


def answers_of(encoder: Any, labels: str = "xyzxy", **options: Any) -> Any:
    task = MaskedAnswer(choices=CHOICES, cloze=": <mask>!", **options)
    batch = text_batch(task, [{"label": label} for label in labels], encoder)
    return task, batch, StubContext({}).reading("text", encoder, TEXTS)


def test_answers_are_the_tokens_at_the_mask() -> None:
    """Of the library's head, restricted to the allowed ones; they sum to one, and nothing in the
    task has a parameter."""
    encoder = encoder_of()
    task, batch, context = answers_of(encoder)
    assert not list(task.parameters())
    predictions, tokenizer = task.predict(batch, context), encoder.processor.tokenizer
    ids = [tokenizer.encode(choice)[0] for choice in CHOICES]
    total = 0.0
    for text, prediction, label in zip(TEXTS, predictions, "xyzxy", strict=True):
        body = [*tokenizer.encode(f"{text}: "), tokenizer.mask_id, *tokenizer.encode("!")]
        row = torch.tensor([[tokenizer.bos_id, *body, tokenizer.eos_id]])
        logits = encoder.model(input_ids=row).logits[0, 1 + len(tokenizer.encode(f"{text}: "))]
        expected = logits[ids].softmax(-1)
        shares = torch.tensor([prediction["probabilities"][choice] for choice in CHOICES])
        torch.testing.assert_close(shares, expected.detach(), atol=1e-5, rtol=1e-4)
        assert float(shares.sum()) == pytest.approx(1)
        assert prediction["label"] == CHOICES[int(shares.argmax())]
        target = ids[CHOICES.index(label)]
        total -= float(logits.log_softmax(-1)[target].detach())
    loss = task.loss(batch, context)
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-4)
    assert int(loss.count) == 5


def test_it_answers_untrained_and_learns() -> None:
    encoder = encoder_of()
    task, batch, context = answers_of(encoder, "xyxyx", plain_share=0.3)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    for _ in range(25):
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    metrics = task.metrics()
    labels = [{"label": label} for label in "xyxyx"]
    metrics.update(task.predict(batch, context), labels)
    values = metrics.compute()
    assert values["accuracy"] > values["chance"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choices": ["a"]}, "choices: found a, expected two different or more"),
        ({"choices": ["a", "b"], "cloze": "no mask"}, "cloze: found 'no mask'"),
        ({"choices": ["a", "b"], "plain_share": 1.0}, "plain_share: found 1.0"),
    ],
)
def test_options_of_answers_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        MaskedAnswer(**options)
    assert "\n" not in str(error.value)


def test_an_answer_of_several_tokens_and_an_unknown_label_are_refused() -> None:
    encoder = encoder_of()
    task = MaskedAnswer(choices=["yes", "no"])
    batch = text_batch(task, [{"label": "yes"}] * 5, encoder)
    with pytest.raises(ValueError, match="choices: 'yes' is 3 tokens, expected one"):
        task.predict(batch, StubContext({}).reading("text", encoder, TEXTS))
    with pytest.raises(ValueError, match="label: found 'maybe', expected yes, no"):
        text_batch(task, [{"label": "maybe"}], encoder)
