"""Terms beside the decoder's likelihood: what each adds, and what it leaves alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from sensorium.tasks.language import LanguageModeling
from sensorium.tasks.language.terms import TERMS, TermInputs
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.language.tiny import GPT2, T5, backbone_of, built

NAMES = ["add", "open", "sort", "mail"]
CODES = ["a + b", "file(p)", "order(x)", "send()"]
ROWS = [{"text": text, "code": code} for text, code in zip(NAMES, CODES, strict=True)]
OPTIONS: dict[str, dict[str, Any]] = {
    "contrast": {"positive": "{code}"},
    "denoising": {},
    "detection": {},
    "matching": {"pair": "{code}"},
    "redenoising": {},
}
SECTIONS = [{"type": name, **options} for name, options in OPTIONS.items()]


@pytest.fixture(scope="module")
def pretrained() -> Any:
    return backbone_of("seq2seq", {**T5, "dropout_rate": 0.0})


@pytest.fixture
def t5(pretrained: Any) -> Any:
    """A backbone to which a task may add its sentinels."""
    return copy.deepcopy(pretrained)


def task_of(backbone: Any, *terms: dict[str, Any]) -> LanguageModeling:
    torch.manual_seed(1)  # of the added rows
    return built(backbone, "span_corruption", sentinels=4, terms=list(terms))


def loss_of(task: LanguageModeling, backbone: Any, rows: Any = ROWS) -> Any:
    batch = prepare_batch(task, rows, decoder=backbone)
    return task.loss(batch, StubContext({}).on(backbone))


def inputs_of(task: LanguageModeling, backbone: Any) -> TermInputs:
    batch = prepare_batch(task, ROWS, decoder=backbone)
    context = StubContext({}).on(backbone)
    return TermInputs.of(batch, backbone, task.marker_ids, context.generator)


@pytest.mark.parametrize("name", TERMS)
def test_a_zero_weight_removes_exactly_its_term(name: str, t5: Any) -> None:
    section = {"type": name, **OPTIONS[name]}
    backbones = [copy.deepcopy(t5) for _ in range(2)]
    plain = loss_of(task_of(backbones[0]), backbones[0])
    without = loss_of(task_of(backbones[1], {**section, "weight": 0}), backbones[1])
    torch.testing.assert_close(without.total, plain.total)
    assert set(without.parts) == set(plain.parts) == {"correct"}
    task = task_of(t5, {**section, "weight": 0.5})
    whole = loss_of(task, t5)
    assert set(whole.parts) == {"correct", f"{name}_loss"}
    expected = plain.total + 0.5 * whole.parts[f"{name}_loss"]
    torch.testing.assert_close(whole.total, expected)
    whole.total.backward()
    assert all(p.grad is not None for p in task.parameters()), "a part of the term is unused"


@pytest.mark.parametrize("name", ["denoising", "contrast"])
def test_a_term_of_the_encoder_has_no_gradient_in_the_decoder(name: str, t5: Any) -> None:
    task = task_of(t5, {"type": name, **OPTIONS[name]})
    task.terms.means(inputs_of(task, t5))[name].backward()
    stacks = {"encoder": t5.encoder.block, "decoder": t5.decoder.block}
    moved = {k: any(p.grad is not None for p in s.parameters()) for k, s in stacks.items()}
    assert moved == {"encoder": True, "decoder": False}


def test_a_corrupted_text_is_masked_replaced_and_exchanged(t5: Any) -> None:
    task: Any = task_of(t5, {"type": "denoising", "prob": 0.6})
    text = inputs_of(task, t5).text
    generator = torch.Generator().manual_seed(3)
    chosen = text.choose(0.6, generator)
    part = task.terms.parts["denoising"]
    ids, masked = part.corrupted(text, chosen, 260, generator)
    assert torch.equal(ids[~chosen], text.ids[~chosen])
    assert masked.any() and not (masked & ~chosen).any()
    changed = (ids != text.ids) & chosen & ~masked
    assert changed.any()
    assert int(ids.max()) < 260


def test_samples_are_detached_and_those_of_a_perfect_decoder_are_originals(
    t5: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(t5, {"type": "detection"}, {"type": "redenoising"})
    part: Any = task.terms.parts["detection"]
    inputs = inputs_of(task, t5)
    assert not inputs.sampled.requires_grad
    assert part.scores(inputs)[1].mean() > 0.5, "an untrained decoder draws wrong tokens"
    perfect = inputs_of(task, t5)
    ids = perfect.target[0]
    perfect.sampled = ids
    assert not part.scores(perfect)[1].any()
    mask = perfect.target[1]
    hidden = t5.teacher_force(perfect.context, ids, mask)
    torch.testing.assert_close(perfect.reread[:, :-1][mask], hidden[mask], atol=1e-5, rtol=1e-5)


def test_what_is_detected_and_written_again_depends_on_the_sample_alone(t5: Any) -> None:
    """No gradient goes through the sampling: a head that is moved by the samples alone has the same
    gradient in the decoder whether they were drawn or are data."""
    task = task_of(t5, {"type": "redenoising"})
    drawn = inputs_of(task, t5)
    data = inputs_of(task, t5)
    data.sampled = drawn.sampled.clone()
    gradients = []
    for inputs in (drawn, data):
        task.terms.means(inputs)["redenoising"].backward()
        gradients.append([p.grad.clone() for p in t5.parameters() if p.grad is not None])
        t5.zero_grad()
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-4)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """Metrics of a T5 that learned by all terms, of right rows and of rows of swapped programs."""
    config = {**T5, "d_model": 32, "d_kv": 16, "d_ff": 64, "dropout_rate": 0.0}
    backbone = backbone_of("seq2seq", config)
    task = task_of(backbone, *SECTIONS)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *task.parameters()], lr=5e-3)
    history: list[dict[str, float]] = []
    for _ in range(150):
        loss = loss_of(task, backbone)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        history.append({key: float(value / loss.count) for key, value in loss.parts.items()})
    swapped = [{**row, "code": CODES[i - 1]} for i, row in enumerate(ROWS)]
    results: dict[str, Any] = {"history": history}
    for name, rows in (("right", ROWS), ("swapped", swapped)):
        batch = prepare_batch(task, rows, decoder=backbone, training=False)
        metrics = task.metrics()
        metrics.update(task.predict(batch, StubContext({}).on(backbone)), [{}] * len(rows))
        results[name] = metrics.compute()
    return results


@pytest.mark.slow
def test_all_terms_are_learned_together_and_logged_apart(trained: dict[str, Any]) -> None:
    first, last = trained["history"][0], trained["history"][-1]
    for name in TERMS:
        assert last[f"{name}_loss"] < first[f"{name}_loss"], name
    assert {f"{name}_loss" for name in TERMS} <= set(trained["right"])


@pytest.mark.slow
def test_swapped_pairs_are_told_apart(trained: dict[str, Any]) -> None:
    right, swapped = trained["right"], trained["swapped"]
    for name in ("contrast_accuracy", "matching_accuracy"):
        assert right[name] > 0.8, (name, right)
        assert swapped[name] < 0.5, (name, swapped)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([{"type": "contrst"}], "terms.0.type: found 'contrst'; did you mean 'contrast'"),
        ([{"type": "matching"}], "terms.0.pair: is required with type: matching"),
        ([{"type": "matching", "pair": "code"}], "terms.0.pair: 'code' must be made of columns"),
        ([{"type": "denoising", "prob": 0.0}], "terms.0.prob: found 0.0"),
        ([{"type": "denoising", "weight": -1}], "terms.0.weight: found -1"),
    ],
)
def test_options_are_checked(terms: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        LanguageModeling(terms=terms)
    assert "\n" not in str(error.value)


def test_a_causal_backbone_has_no_encoder_for_a_term() -> None:
    with pytest.raises(ValueError, match="terms: contrast reads the encoder of an enc") as error:
        built(backbone_of("causal", GPT2), "causal", terms=[{"type": "contrast"}])
    assert "\n" not in str(error.value)
