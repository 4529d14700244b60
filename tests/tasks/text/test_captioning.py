"""The loss of captioning is the cross entropy of the target's tokens, and of nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sensorium.modalities.base import Features
from sensorium.tasks.batch import Tools
from sensorium.tasks.text import Captioning
from sensorium.testing.context import prepare_batch
from sensorium.tests.tasks.text.captions import ROWS, make


def by_hand(encode, backbone, rows=ROWS) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Row by row and token by token, with the decoder's own cell."""
    total = torch.zeros(())
    tokenizer, features = backbone.tokenizer, encode("image")
    for i, row in enumerate(rows):
        image = features.tokens[i][features.mask[i]]
        text = tokenizer.encode(f" {row['q']} Answer:")
        target = [*tokenizer.encode(row["caption"]), tokenizer.eos_id]
        first, rest = backbone.embed(torch.tensor([2])), backbone.embed(torch.tensor(text))
        _, state = backbone.cell(torch.cat([first, image, rest])[None])
        for token in target:
            log_p = F.log_softmax(backbone.logits(state[0, 0]), -1)
            total = total - log_p[token]
            _, state = backbone.cell(backbone.embed(torch.tensor([[token]])), state)
    return total


def test_the_loss_is_the_cross_entropy_of_the_target(batch_of, encode, backbone) -> None:  # type: ignore[no-untyped-def]
    task = make()
    loss = task.loss(batch_of(task), encode.on(backbone))
    torch.testing.assert_close(loss.total, by_hand(encode, backbone))
    assert loss.total.dtype == torch.float32
    assert loss.count == sum(len(row["caption"]) + 1 for row in ROWS)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_batch_in_two_parts_gives_the_same_sums(batch_of, encode, backbone, cut) -> None:  # type: ignore[no-untyped-def]
    task = make()
    whole = task.loss(batch_of(task), encode.on(backbone))
    parts = [
        task.loss(batch_of(task, ROWS[a:b]), encode.rows(a, b).on(backbone))
        for a, b in ((0, cut), (cut, 4))
    ]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    assert sum(p.count for p in parts) == whole.count
    assert sum(p.parts["correct"] for p in parts) == whole.parts["correct"]


def test_padding_of_a_stream_changes_nothing(batch_of, encode, backbone, make_streams) -> None:  # type: ignore[no-untyped-def]
    task, image = make(), encode("image")
    noise = torch.full((4, 3, image.dim), 1e4)
    padded = Features(torch.cat([image.tokens, noise], 1), F.pad(image.mask, (0, 3), value=False))
    longer = task.loss(batch_of(task), make_streams(image=padded).on(backbone))
    torch.testing.assert_close(longer.total, task.loss(batch_of(task), encode.on(backbone)).total)


def test_the_prompt_is_read_and_not_learned(batch_of, encode, backbone) -> None:  # type: ignore[no-untyped-def]
    task, other = make(), make("<image> {q} Say it now in many more words than before:")
    a, b = (t.loss(batch_of(t), encode.on(backbone)) for t in (task, other))
    assert a.count == b.count
    assert not torch.isclose(a.total, b.total)


def test_correct_counts_the_tokens_put_first(batch_of, encode, backbone) -> None:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        backbone.out.weight.zero_()
        backbone.out.bias.zero_()[ord("e") + 3] = 1.0
    task = make()
    loss = task.loss(batch_of(task), encode.on(backbone))
    assert loss.parts["correct"] == sum(row["caption"].count("e") for row in ROWS)


def test_gradients_reach_the_stream_and_the_decoder(batch_of, encode, backbone) -> None:  # type: ignore[no-untyped-def]
    task, image = make(), encode("image")
    task.loss(batch_of(task), encode.on(backbone)).total.backward()
    assert torch.equal(image.tokens.grad.abs().sum(-1) > 0, image.mask)
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.slow
def test_it_learns_and_says_what_it_learned(batch_of, encode, make_backbone) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    backbone = make_backbone()
    task, encode = make(max_new_tokens=20), encode.rows(0, 2)
    batch = batch_of(task, ROWS[:2])
    optimizer = torch.optim.Adam(backbone.parameters(), lr=0.03)
    for _ in range(80):
        optimizer.zero_grad()
        task.loss(batch, encode.on(backbone)).total.backward(inputs=list(backbone.parameters()))
        optimizer.step()
    prediction = task.predict(batch, encode.on(backbone))
    assert prediction == [{"text": "a red circle"}, {"text": "two"}]
    assert task.predict(batch, encode.on(backbone), max_new_tokens=3)[0] == {"text": "a r"}
    metrics = task.metrics()
    metrics.update(prediction, batch.references)
    assert metrics.compute()["exact_match"] == 1.0


class TestSeveralReferences:
    row = {"q": "", "caption": [f"caption {n}" for n in range(5)]}

    def test_all_are_kept_and_fitted_on(self, batch_of) -> None:  # type: ignore[no-untyped-def]
        task = make(target="{caption}.")
        expected = [f"caption {n}." for n in range(5)]
        assert batch_of(task, [self.row]).references[0]["references"] == expected
        texts = task.fit_examples("backbone.tokenizer", self.row)
        assert list(texts) == ["  Answer:", *expected]

    def chosen(self, backbone, rng) -> str:  # type: ignore[no-untyped-def]
        example = make().prepare(self.row, Tools({"backbone": backbone.tokenizer}), rng)
        return backbone.tokenizer.decode(example.labels["target"].tolist())

    def test_training_draws_one_with_the_row_s_generator(self, backbone) -> None:  # type: ignore[no-untyped-def]
        chosen = [self.chosen(backbone, np.random.default_rng(seed)) for seed in range(40)]
        assert set(chosen) == set(self.row["caption"])
        assert chosen == [self.chosen(backbone, np.random.default_rng(seed)) for seed in range(40)]

    def test_evaluation_takes_the_first(self, backbone) -> None:  # type: ignore[no-untyped-def]
        assert self.chosen(backbone, None) == "caption 0"

    @pytest.mark.parametrize(
        ("target", "row", "words"),
        [
            ("{caption}", {"q": "", "caption": []}, "'caption' is empty"),
            ("{caption} {b}", {"q": "", "caption": ["x"], "b": ["y"]}, "'caption' and 'b' hold"),
            ("{caption}", {"q": "", "caption": ["x", None]}, "'caption' is empty"),
        ],
    )
    def test_lists_that_cannot_be_used_are_named(self, batch_of, target, row, words) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match=words):
            batch_of(make(target=target), [row])


def test_what_nobody_captioned_can_be_asked_but_not_learned(batch_of, encode, backbone) -> None:  # type: ignore[no-untyped-def]
    task = make(max_new_tokens=2)
    batch = batch_of(task, [{"q": "what?"}] * 4, list("abcd"))
    assert len(task.predict(batch, encode.on(backbone))) == 4
    with pytest.raises(ValueError, match=r"row 'a': .*'\{caption\}'"):
        task.loss(batch, encode.on(backbone))
    with pytest.raises(ValueError, match="no reference"):
        task.metrics().update([{"text": "x"}], batch.references[:1])


def test_references_are_json(batch_of) -> None:  # type: ignore[no-untyped-def]
    references = batch_of(make()).references
    assert json.loads(json.dumps(references)) == references


def test_the_streams_and_columns_are_the_templates(batch_of) -> None:  # type: ignore[no-untyped-def]
    task = make("<b> <a> <b> {q} {x:.1f}", target="{caption} {q}")
    assert tuple(task.streams) == ("b", "a")
    assert task.columns() == ("q", "x", "caption")
    assert batch_of(task, task.example_rows()).references[0]["references"]


def test_a_prompt_without_streams_is_text_to_text(backbone, make_streams) -> None:  # type: ignore[no-untyped-def]
    task = make("{q} Answer:", max_new_tokens=2)
    batch = prepare_batch(task, ROWS, decoder=backbone)
    ctx = make_streams().on(backbone)
    loss = task.loss(batch, ctx)
    total = torch.zeros(())
    for row in ROWS:
        prompt = [2, *backbone.tokenizer.encode(f"{row['q']} Answer:")]
        target = [*backbone.tokenizer.encode(row["caption"]), 1]
        hidden, _ = backbone.cell(backbone.embed(torch.tensor(prompt + target[:-1]))[None])
        logits = backbone.logits(hidden[0, len(prompt) - 1 :])
        total = total + F.cross_entropy(logits, torch.tensor(target), reduction="sum")
    torch.testing.assert_close(loss.total, total)
    assert len(task.predict(batch, ctx)) == len(ROWS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": "<image> {q"}, "prompt: .* character 9"),
        ({"prompt": "<image>", "target": "a {b"}, "target: .* character 3"),
        ({"prompt": "<image>", "target": "<image>"}, "target: .* without streams"),
        ({"prompt": "<image>", "target": "yes"}, r"such as \{caption\}"),
    ],
)
def test_a_wrong_option_is_named(options, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words) as error:
        Captioning(**options)
    assert "\n" not in str(error.value)


def test_it_asks_for_a_decoder(batch_of, encode) -> None:  # type: ignore[no-untyped-def]
    task = make()
    with pytest.raises(ValueError, match="`backbone` section"):
        task.loss(batch_of(task), encode)
    with pytest.raises(ValueError, match="`backbone` section"):
        prepare_batch(task, ROWS)


def test_more_texts_than_rows_are_refused(batch_of, encode, backbone, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(backbone, "generate", lambda *a, **k: torch.ones(8, 2, dtype=torch.long))
    task = make()
    with pytest.raises(ValueError, match="8 texts, expected one of 4 rows"):
        task.predict(batch_of(task), encode.on(backbone))
