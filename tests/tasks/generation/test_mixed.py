"""Mixed sequences: heads that sample vectors, words beside numbers (UniGenX), and a second set of
weights for them (LLaMo)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.causal import Causal
from sensorium.modalities.action.decoders import DiffusionHead, FlowHead, VectorHead
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.tasks.generation.mixed import MixedSequence, placed
from sensorium.testing.context import StubContext, prepare_batch

KINDS = {"flow": FlowHead, "diffusion": DiffusionHead}


def backbone() -> Causal:
    torch.manual_seed(0)
    options = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    return Causal(tokenizer=Bytes(), name="tiny-llama", options=options)


class Truth(nn.Module):
    """The prediction that leads to one vector from any noise."""

    def __init__(self, head: VectorHead, values: Tensor) -> None:
        super().__init__()
        self.kind, self.values = type(head), values

    def forward(self, noisy: Tensor, time: Tensor, state: Tensor) -> Tensor:
        if self.kind is FlowHead:
            return (self.values - noisy) / (1 - time[:, None])
        angle = (1 - time[:, None]) * math.pi / 2 * 0.98
        return (noisy - angle.cos() * self.values) / angle.sin()


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_the_true_prediction_leads_to_the_values(kind: str, steps: int) -> None:
    head, values, noise = KINDS[kind](dim=4, numbers=3), torch.randn(5, 3), torch.randn(5, 3)
    head.denoiser = Truth(head, values)  # type: ignore[assignment]
    if (
        kind == "diffusion"
    ):  # of pure noise, the first step knows it up to the schedule's last angle
        noise = math.sin(math.pi / 2 * 0.98) * noise + math.cos(math.pi / 2 * 0.98) * values
    torch.testing.assert_close(
        head.sample(torch.zeros(5, 4), noise, steps), values, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="steps: found 0, expected at least 1"):
        KINDS[kind](dim=4, numbers=3).sample(torch.zeros(1, 4), torch.zeros(1, 3), 0)


def test_a_target_of_another_width_is_refused() -> None:
    head = FlowHead(dim=4, numbers=3)
    target = {"values": torch.zeros(2, 2, 4), "mask": torch.ones(2, 2).bool()}
    with pytest.raises(ValueError, match="set numbers: 8"):
        head.loss(Features.dense(torch.zeros(2, 1, 4)), target)


def two_modes(rows: int) -> tuple[Tensor, Tensor]:
    """States and values: a point of a circle or the one opposite, which the state does not tell."""
    angle = torch.rand(rows) * math.pi
    point = torch.stack([angle.cos(), angle.sin()], 1)
    sign = torch.randint(2, (rows, 1)) * 2.0 - 1
    return point, sign * point + 0.02 * torch.randn(rows, 2)


def energy_distance(samples: Tensor, values: Tensor) -> float:
    """Of points `[S, C]`; 0 if both are drawn from one distribution."""
    between = torch.cdist(samples, values).mean()
    return float(
        2 * between - torch.cdist(samples, samples).mean() - torch.cdist(values, values).mean()
    )


@pytest.mark.slow
def test_two_modes_are_sampled_better_than_by_bins_or_a_mean() -> None:
    """UniGenX, 2025: at an equal number of parameters a denoising head matches a density of two
    modes better than a softmax over bins; a head of the squared error lies between the modes."""
    torch.manual_seed(0)
    bins, limit = 12, 1.2
    head = FlowHead(dim=2, numbers=2, width=48, depth=2, repeats=2)

    def mlp(width: int, out: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, out),
        )

    softmax, mean = mlp(112, bins * bins), mlp(112, 2)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (head, softmax)]
    assert sizes[0] <= 1.02 * sizes[1], sizes
    optimizer = torch.optim.Adam([p for m in (head, softmax, mean) for p in m.parameters()], 3e-3)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 1500)
        state, values = two_modes(256)
        cells = ((values + limit) / (2 * limit) * bins).long().clamp(0, bins - 1)
        loss = head.errors(state, values).mean() + (mean(state) - values).square().mean()
        loss = loss + F.cross_entropy(softmax(state), cells[:, 0] * bins + cells[:, 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    distances: dict[str, float] = {"flow": 0.0, "bins": 0.0, "mean": 0.0}
    with torch.no_grad():
        for angle in torch.linspace(0.2, 3.0, 8):
            state = torch.stack([angle.cos(), angle.sin()]).expand(400, 2)
            signs = torch.randint(2, (400, 1)) * 2.0 - 1
            values = signs * state + 0.02 * torch.randn(400, 2)
            cell = torch.multinomial(softmax(state[:1]).softmax(-1)[0], 400, replacement=True)
            corner = torch.stack([cell // bins, cell % bins], 1)
            of_bins = (corner + torch.rand(400, 2)) / bins * 2 * limit - limit
            of_flow = head.sample(state, torch.randn(400, 2), 20)
            distances["flow"] += energy_distance(of_flow, values) / 8
            distances["bins"] += energy_distance(of_bins, values) / 8
            distances["mean"] += energy_distance(mean(state), values) / 8
            shares = (of_flow * state).sum(1)
            assert 0.2 < float((shares > 0).float().mean()) < 0.8, "both modes are drawn"
            assert float((shares.abs() - 1).abs().median()) < 0.1, "samples lie at the modes"
    assert distances["flow"] < 0.8 * distances["bins"] < distances["mean"], distances


ROWS = [
    {"question": "a", "name": "up", "path": [[0.8, -0.8], [0.4, 0.0], [0.2, 0.5]]},
    {"question": "b", "name": "down", "path": [[-0.8, 0.8]]},
]


def composed(**options: Any) -> tuple[MixedSequence, Causal]:
    decoder = backbone()
    task = MixedSequence(
        prompt="{question}", target=" {name}", values="path", numbers=2, width=64, **options
    )
    task.build({}, {"backbone": decoder})
    return task, decoder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_words_and_numbers_are_learned_together(kind: str) -> None:
    """Each word by softmax and each vector by the head, from one state; the control asks the other
    row's question."""
    task, decoder = composed(head=kind)
    decoder.unfreeze_added_tokens()
    batch = prepare_batch(task, ROWS, decoder=decoder)
    context = StubContext({}).on(decoder)
    optimizer = torch.optim.Adam([*task.parameters(), *decoder.parameters()], 3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = task.loss(batch, context)
        (loss.total / loss.count).backward()
        optimizer.step()
    task.eval()
    metrics, control = task.metrics(), task.metrics()
    predictions = task.predict(batch, context, max_new_tokens=12)
    metrics.update(predictions, batch.references)
    control.update(predictions[::-1], batch.references)
    scores = metrics.compute()
    assert scores["text_match"] == scores["count_match"] == 1 and scores["mae"] < 0.25, scores
    assert control.compute()["text_match"] == 0


def test_slots_hold_the_values_in_order() -> None:
    values = torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]])
    slots = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]]).bool()
    expected = torch.tensor([[0.0, 1, 0, 2], [3, 0, 0, 0]])
    assert torch.equal(placed(values, slots)[..., 0], expected)


def states(task: MixedSequence, decoder: Causal, path: list[list[float]]) -> Tensor:
    """The hidden states `[1, L, D]` that predict the tokens of a row with these vectors."""
    batch = prepare_batch(task, [{**ROWS[0], "path": path}], decoder=decoder)
    ids = batch.labels["ids"]
    slots = ids == -1
    embeds = task._embeds(decoder, ids, placed(batch.labels["values"], slots), slots)
    context = Features.dense(decoder.embed(torch.tensor([[97]])))
    with torch.no_grad():
        return task._run(decoder, embeds, slots, context)


def test_the_weights_of_vectors_leave_text_as_it_is() -> None:
    """LLaMo, 2026: logits of text are those of the language model alone, bit by bit, whatever the
    weights of vectors are; control: positions of vectors go through them."""
    task, decoder = composed(modality_weights=True)
    copies, path = task.second, ROWS[0]["path"]
    assert copies is not None and isinstance(path, list)
    ids = torch.randint(97, 123, (2, 6))
    alone = backbone()
    alone.add_tokens(2)
    with torch.no_grad():
        expected = alone.logits(alone(alone.embed(ids)))
    begun = states(task, decoder, path)
    plain, _ = composed()
    plain.load_state_dict({k: v for k, v in task.state_dict().items() if k[:6] != "second"})
    # as the text's own weights, of which they are copies
    torch.testing.assert_close(states(plain, decoder, path), begun, atol=1e-4, rtol=1e-4)
    for parameter in copies.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        assert torch.equal(decoder.logits(decoder(decoder.embed(ids))), expected)
        with copies.at(torch.zeros(2, 6).bool()):
            assert torch.equal(decoder.logits(decoder(decoder.embed(ids))), expected)
    after = states(task, decoder, path)
    first = int((prepare_batch(task, ROWS[:1], decoder=decoder).labels["ids"] != -1)[0, :-1].sum())
    assert torch.equal(after[:, : first + 1], begun[:, : first + 1]), "positions before a vector"
    assert not torch.allclose(after[:, first + 1 :], begun[:, first + 1 :])


@pytest.mark.parametrize("copies", [False, True])
def test_a_vector_is_sampled_without_a_look_ahead(copies: bool) -> None:
    task, decoder = composed(modality_weights=copies)
    for parameter in () if task.second is None else task.second.parameters():
        nn.init.normal_(parameter, std=0.3)
    one = states(task, decoder, [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    other = states(task, decoder, [[0.1, 0.2], [0.3, 0.4], [9.0, 9.0]])
    assert torch.equal(one[:, :-1], other[:, :-1]), "the states up to the last vector's own"
    changed = states(task, decoder, [[0.1, 0.2], [9.0, 9.0], [0.5, 0.6]])
    assert not torch.allclose(one[:, -2], changed[:, -2]), "control: an earlier one counts"
