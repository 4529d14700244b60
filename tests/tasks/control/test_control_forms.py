"""What is particular to each form: masks, ids, latents, and the options that belong to it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from sensorium.backbones.causal import Causal
from sensorium.modalities.action.tokenizers import BinTokenizer, FastTokenizer
from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer
from sensorium.tasks.common import assemble
from sensorium.tasks.control.control import Control
from sensorium.tasks.control.decoders import ChunkStatistics
from sensorium.tasks.control.decoders.cvae import divergence
from sensorium.tasks.control.decoders.vocabulary import ActionVocabulary

ALLOWED = ["parallel", "tail", "bins", "bins-tail", "fast", "fourier"]


def context_of(joined: Any, data: Any) -> Any:
    return assemble(joined.task.prompt.streams, *joined.batch(data))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_parallel_is_one_pass_of_blocks(join: Any, rows: Any, kind: str) -> None:
    """The loss is that of a context read once, then a canvas; every place sees every other."""
    joined = join("parallel", kind).eval()
    data, form = rows(), joined.task.action_decoder
    context = context_of(joined, data)
    memory = joined.backbone.prefill(context, "block")
    embeds = form.slots.expand(len(data), -1, -1)
    hidden = joined.backbone(embeds, context=memory, attention="block")
    logits = joined.backbone.logits(hidden)[..., form.map.ids]
    ids = joined.batch(data)[0].labels["target"]
    expected = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="sum")
    torch.testing.assert_close(joined.loss(data).total, expected, rtol=1e-4, atol=1e-4)
    slots = form.slots.detach().clone().requires_grad_()
    seen = joined.backbone(slots[None], context=memory_of(joined, rows(1)), attention="block")
    for place in (0, -1):
        (result,) = torch.autograd.grad(seen[0, place].sum(), slots, retain_graph=True)
        assert bool((result.abs().sum(1) > 0).all())


def memory_of(joined: Any, data: Any) -> Any:
    return joined.backbone.prefill(context_of(joined, data), "block")


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("case", ALLOWED)
def test_no_foreign_id_is_ever_said(join: Any, rows: Any, case: str, kind: str) -> None:
    """However much the decoder would like to say something else."""
    joined = join(case, kind)
    mapped = getattr(joined.task.action_decoder, "map", None)
    own_ids = set() if mapped is None else set(mapped.own)
    with torch.no_grad():
        head = copy.deepcopy(joined.backbone.head.weight)
        foreign = [i for i in range(len(head)) if i not in own_ids and i != 1]
        joined.backbone.head.weight[foreign] = 50 * torch.sign(torch.randn(len(foreign), 32))
    for one in joined.predict(rows()):
        assert all(0 <= token < joined.tokenizer.size for token in one["tokens"])


@pytest.mark.parametrize("case", ["bins", "bins-tail"])
def test_generation_is_the_most_likely_token_after_each_other(
    join: Any, rows: Any, case: str
) -> None:
    joined, data = join(case).eval(), rows(3)
    form, context = joined.task.action_decoder, context_of(join(case), data)
    generated = form.generate(context, joined.backbone)
    ids = form.map.ids[generated]
    mask = torch.ones_like(ids, dtype=torch.bool)
    hidden = joined.backbone.teacher_force(context, ids, mask, form.attention)
    assert torch.equal(joined.backbone.logits(hidden, form.map.ids).argmax(-1), generated)


def test_a_sequence_that_means_nothing_is_said_to(join: Any, rows: Any, monkeypatch: Any) -> None:
    joined = join("fast")
    whole = joined.tokenizer.encode(torch.tensor(rows(1)[0]["action"])[None])[0]
    sequences = [whole, whole[:1]]
    monkeypatch.setattr(joined.task.action_decoder, "generate", lambda *_: sequences)
    good, bad = joined.predict(rows(2))
    assert "undecodable" not in good
    assert bad["undecodable"] is True
    np.testing.assert_allclose(bad["actions"], [joined.chunk.mean] * 12, rtol=1e-6)
    metrics = joined.task.metrics()
    metrics.update([good, bad], joined.batch(rows(2))[0].references)
    assert metrics.compute()["decodable"] == 0.5


def test_added_ids_follow_the_text_s_and_tail_ids_are_the_last(join: Any) -> None:
    """BEAST: token k is the id V - 1 - k."""
    added, tail = join("parallel"), join("tail")
    size, text = added.tokenizer.size, added.backbone.tokenizer.size
    assert added.task.action_decoder.map.ids.tolist() == list(range(text, text + size))
    assert tail.task.action_decoder.map.ids.tolist() == [text - 1 - k for k in range(size)]
    assert not tail.backbone.added_token_parameters() and added.backbone.added_token_parameters()
    assert not join("fourier").backbone.added_token_parameters()
    assert not join("regressed").backbone.added_token_parameters()


@pytest.mark.parametrize("case", ["parallel", "tail", "bins"])
def test_a_mapping_that_moved_is_refused(join: Any, case: str) -> None:
    joined = join(case)
    joined.task.validate_loaded()
    joined.task.action_decoder.map.ids += 1
    with pytest.raises(ValueError, match=r"trained with actions at the ids \d+\.\.\d+, here") as e:
        joined.task.validate_loaded()
    assert "\n" not in str(e.value)


def test_a_tail_that_text_needs_is_refused(backbone: Any) -> None:
    with pytest.raises(ValueError, match="the last 200 of 259 ids, more than half; set vocabulary"):
        ActionVocabulary("tail").build(backbone, 200)
    backbone.tokenizer.eos_id = 258
    with pytest.raises(ValueError, match="among them the special id 258; set vocabulary: added"):
        ActionVocabulary("tail").build(backbone, 16)


def test_the_divergence_is_torch_s() -> None:
    mean, log_variance = torch.randn(2, 5, 3).unbind()
    result = divergence(mean, log_variance)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(result, expected)
    assert bool((result >= 0).all())
    assert divergence(torch.zeros(1, 3), torch.zeros(1, 3)) == 0


def test_the_latent_is_drawn_in_training_and_zero_in_prediction(join: Any, rows: Any) -> None:
    joined, data = join("vae"), rows()
    torch.manual_seed(0)
    drawn = {float(joined.train().loss(data).total.detach()) for _ in range(3)}
    assert len(drawn) == 3
    assert joined.eval().loss(data).total == joined.loss(data).total
    form, context = joined.task.action_decoder, context_of(joined, data)
    generated = form.generate(context, joined.backbone)
    zero = form.regress(context, joined.backbone, torch.zeros(len(data), 3))
    torch.testing.assert_close(generated, zero)
    other = form.regress(context, joined.backbone, torch.full((len(data), 3), 5.0))
    assert not torch.allclose(other, zero, atol=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.1, 10.0])
def test_the_divergence_is_logged_and_weighed(join: Any, rows: Any, weight: float) -> None:
    joined = join("vae").eval()
    joined.task.action_decoder.kl = weight
    loss = joined.loss(rows())
    assert loss.parts["kl"] >= 0
    torch.testing.assert_close(loss.total, loss.parts["l1"] + weight * loss.parts["kl"])


def test_a_diverged_model_sends_nothing(join: Any, rows: Any) -> None:
    joined = join("regressed")
    with torch.no_grad():
        joined.task.action_decoder.out.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="row 0 of the batch has control points that are not fini"):
        joined.predict(rows())


def control(tokenizer: Any, prompt: str = "<state>", **options: Any) -> Control:
    return Control(prompt=prompt, tokenizer=tokenizer, chunk=ChunkStatistics(), **options)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"latent": 4}, "latent: belongs to action_decoder: continuous, found parallel"),
        ({"frequencies": 4}, "frequencies: belongs to action_decoder: fourier, found parallel"),
        (
            {"action_decoder": "continuous", "vocabulary": "tail"},
            "vocabulary: belongs to action_decoder: autoregressive or parallel, found continuous",
        ),
        ({"action_decoder": "continuous", "kl": 1.0}, "kl: found 1.0 with latent: None"),
        ({"prompt": "go"}, "prompt: 'go' names no stream"),
        ({"prompt": "<state> {"}, "prompt: '<state> {': a brace without its partner"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line.replace("{", r"\{")):
        control(BSplineTokenizer(num_basis=5), **options)


@pytest.mark.parametrize(
    ("tokenizer", "form", "line"),
    [
        (BinTokenizer(), "continuous", "tokenizer: BinTokenizer has no control points"),
        (BSplineTokenizer(end_order=1), "parallel", "tokenizer: start_order 0 and end_order 1"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_named(tokenizer: Any, form: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        control(tokenizer, action_decoder=form)


def test_a_place_a_token_wants_a_fixed_number(join: Any, rows: Any) -> None:
    task, data = control(FastTokenizer(vocab=64, scale=4.0)), rows(40)
    for part, fitted in (("chunk", task.chunk), ("tokenizer", task.tokenizer)):
        fitted.fit([one for row in data for one in task.fit_examples(part, row)])
    backbone: Causal = join("parallel").backbone
    with pytest.raises(ValueError, match="chunks of FastTokenizer vary in length; use"):
        task.build({}, {"backbone": backbone})
