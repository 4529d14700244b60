"""A reference language model weights the tokens of captions: what it expects counts less."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from torch.nn import functional as F

from sensorium.tasks.common import assemble
from sensorium.tests.tasks.text.captions import ROWS, make


def with_reference(encode, backbone, reference):  # type: ignore[no-untyped-def]
    context = encode.on(backbone)
    context.decoders["reference"] = reference
    return context


def test_a_reference_weights_tokens_by_what_it_does_not_expect(  # type: ignore[no-untyped-def]
    batch_of, encode, backbone, make_backbone
) -> None:
    """By hand, from the probabilities of the reference on the texts alone."""
    torch.manual_seed(1)
    reference = make_backbone().requires_grad_(False)
    task, plain = make(reference="reference", reference_power=2.0), make()
    batch = batch_of(task)
    loss = task.loss(batch, with_reference(encode, backbone, reference))
    probabilities, losses = [], []
    tokenizer, features = backbone.tokenizer, encode("image")
    for i, row in enumerate(ROWS):
        image = features.tokens[i][features.mask[i]]
        text = torch.tensor(tokenizer.encode(f" {row['q']} Answer:"))
        for decoder, into, seen in ((reference, probabilities, []), (backbone, losses, [image])):
            start, prompt = decoder.embed(torch.tensor([2])), decoder.embed(text)
            _, state = decoder.cell(torch.cat([start, *seen, prompt])[None])
            for token in [*tokenizer.encode(row["caption"]), tokenizer.eos_id]:
                log_p = F.log_softmax(decoder.logits(state[0, 0]), -1)[token]
                into.append(log_p.exp() if decoder is reference else -log_p)
                _, state = decoder.cell(decoder.embed(torch.tensor([[token]])), state)
    weights = (1 - torch.stack(probabilities)) ** 2
    expected = (weights / weights.mean() * torch.stack(losses)).sum()
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == plain.loss(batch, encode.on(backbone)).count


@pytest.mark.parametrize("uniform", [True, False])
def test_a_uniform_reference_and_a_power_of_zero_change_nothing(  # type: ignore[no-untyped-def]
    batch_of, encode, backbone, make_backbone, uniform: bool
) -> None:
    reference = make_backbone().requires_grad_(False)
    if uniform:
        reference.out.weight.zero_()
        reference.out.bias.zero_()
    task = make(reference="reference", reference_power=1.0 if uniform else 0.0)
    loss = task.loss(batch_of(task), with_reference(encode, backbone, reference))
    torch.testing.assert_close(loss.total, make().loss(batch_of(task), encode.on(backbone)).total)


@pytest.mark.slow
def test_words_that_only_the_picture_tells_weigh_more(  # type: ignore[no-untyped-def]
    batch_of, encode, backbone, make_backbone
) -> None:
    """A reference that has learned the captions of other pictures: what all of them share weighs
    less than what differs."""
    torch.manual_seed(0)
    rows = [{"q": "", "caption": f"a {word} here"} for word in ("cat", "dog", "sun", "toy")]
    reference = make_backbone()
    task = make(reference="reference")
    batch = batch_of(task, rows)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        context = assemble(("image",), batch, encode.on(reference), texts_only=True)
        ids, mask = batch.labels["target"], batch.label_masks["target"]
        hidden = reference.teacher_force(context, ids, mask, "causal")
        F.cross_entropy(reference.logits(hidden).flatten(0, 1), ids.flatten()).backward()
        optimizer.step()
    reference.requires_grad_(False)
    positions = batch.label_masks["target"].flatten().nonzero().squeeze(1)
    weights = task._weights(batch, with_reference(encode, backbone, reference), positions)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    first_letter = weights.view(4, -1)[:, 2]  # "a ?": which animal it is
    assert (first_letter[:, None] > weights.view(4, -1)[:, 6:]).all()


def test_a_reference_is_another_decoder_of_the_same_vocabulary(batch_of, encode, backbone) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="reference: found backbone, which writes"):
        make(reference="backbone")
    other = copy.deepcopy(backbone)
    other.tokenizer = types.SimpleNamespace(size=7)
    task = make(reference="reference")
    with pytest.raises(ValueError, match="reference: reference has a tokenizer of 7 ids"):
        task.loss(batch_of(task), with_reference(encode, backbone, other))
