"""Denoising: oracles, thresholds, what never changes, pruning, verification, the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sensorium.tasks.diffusion.sampler import Canvas, Denoised, Predict, SamplerConfig, sample

SIZE, MASK, EOS = 30, 29, 1


def canvas(rows: Sequence[Sequence[int]], fixed: bool = True, least: int = 0) -> Canvas:
    """Rows of ids; `MASK` is open, anything else was given."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], True, EOS)
    real = torch.arange(ids.shape[1]) < torch.tensor([len(r) for r in rows])[:, None]
    open_ = (ids == MASK) & real
    known = (real & ~open_) if fixed else torch.zeros_like(real)
    return Canvas(ids, real, open_, known, torch.full((len(rows),), least))


class Oracle:
    """Knows the truth; how sure it is of each place is said. Remembers what it was shown."""

    def __init__(self, rows: Sequence[Sequence[int]], sure: Tensor | float = 0.999) -> None:
        ids = [torch.tensor(r) for r in rows]
        self.truth = torch.nn.utils.rnn.pad_sequence(ids, True, EOS)
        self.sure = torch.as_tensor(sure).expand(self.truth.shape)
        self.seen: list[Tensor] = []
        self.asked: list[Tensor] = []

    def __call__(self, ids: Tensor, real: Tensor, requested: Tensor) -> Tensor:
        self.seen.append(ids.clone())
        self.asked.append(requested.clone())
        width = ids.shape[1]
        share = self.sure[:, :width][requested][:, None]
        others = (1 - share) / (SIZE - 1)
        result = others.expand(-1, SIZE).scatter(
            1, self.truth[:, :width][requested][:, None], share
        )
        return result.log()


def run(predict: Predict, start: Canvas, **rule: float | int | None) -> Denoised:
    return sample(start, predict, SamplerConfig(mask_id=MASK, eos_id=EOS, **rule))  # type: ignore[arg-type]


def test_an_oracle_needs_one_pass_and_the_canvas_shrinks_to_the_text() -> None:
    truth = [[5, 6, 7, EOS, EOS, EOS, EOS, EOS], [8, 9, 10, 11, 12, EOS, EOS, EOS]]
    result = run(Oracle(truth), canvas([[MASK] * 8] * 2))
    assert result.ids == [[5, 6, 7], [8, 9, 10, 11, 12]]
    assert result.passes == [1, 1] and result.canvas == [3, 5]


def test_threshold_nought_is_one_pass_and_above_one_a_token_a_pass() -> None:
    truth = [[5, 6, 7, 8, 9, 10]]
    shaky = torch.linspace(0.3, 0.6, 6)
    assert run(Oracle(truth, shaky), canvas([[MASK] * 6]), threshold=0.0).passes == [1]
    slow = Oracle(truth, shaky)
    result = run(slow, canvas([[MASK] * 6]), threshold=1.1)
    assert result.passes == [6] and result.ids == truth
    assert [int(expected.sum()) for expected in slow.asked] == [6, 5, 4, 3, 2, 1]
    order = [int(a.int().sub(b.int()).argmax()) for a, b in pairwise(slow.asked)]
    assert order == [5, 4, 3, 2, 1]  # the surest first


def test_what_was_revealed_never_changes() -> None:
    """A predictor that changes its mind at every pass."""
    generator = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []

    def fickle(ids: Tensor, real: Tensor, requested: Tensor) -> Tensor:
        seen.append(ids.clone())
        return torch.randn(int(requested.sum()), SIZE - 1, generator=generator)

    run(fickle, canvas([[MASK] * 12, [MASK] * 9]), threshold=0.2)
    assert len(seen) > 3
    for before, after in pairwise(seen):
        width = after.shape[1]
        fixed = before[:, :width] != MASK
        assert torch.equal(after[fixed], before[:, :width][fixed])


def test_only_open_places_are_asked_for() -> None:
    truth = [[5, 6, 7, 8, EOS]]
    oracle = Oracle(truth)
    result = run(oracle, canvas([[5, MASK, 7, MASK, MASK]]))
    assert result.ids == [[5, 6, 7, 8]] and result.passes == [1]
    assert oracle.asked[0].tolist() == [[False, True, False, True, True]]


def test_a_prior_that_is_the_truth_needs_no_pass() -> None:
    truth = [[5, 6, 7, EOS]]
    assert run(Oracle(truth), canvas(truth)).passes == [0]
    checked = run(Oracle(truth), canvas(truth), remask_below=0.3)
    assert checked.passes == [1] and checked.ids == [[5, 6, 7]]


def test_a_wrong_prior_is_masked_again_once_and_only_where_verified() -> None:
    truth = [[5, 6, 7, EOS]]
    trusted = run(Oracle(truth), canvas([[5, 20, 7, MASK]]))
    assert trusted.ids == [[5, 20, 7]] and trusted.passes == [1]
    oracle = Oracle(truth)
    result = run(oracle, canvas([[5, 20, 7, MASK]]), remask_below=0.3)
    assert result.ids == [[5, 6, 7]] and result.passes == [2]
    assert oracle.seen[1].tolist() == [[5, MASK, 7]]
    doubting = Oracle([[9, 9, 9, 9]], 0.2)  # believes nothing, reveals one place a pass
    assert run(doubting, canvas([[5, 6, 7, 8]]), remask_below=1.0).passes == [5]


def test_the_canvas_is_cut_at_an_end_that_is_sure_and_not_too_early() -> None:
    truth = [[5, EOS, 7, 8, EOS, EOS]]
    result = run(Oracle(truth), canvas([[MASK] * 6], least=3))
    assert result.canvas == [4] and EOS not in result.ids[0] and result.ids[0][2:] == [7, 8]
    shaky = torch.tensor([[0.95, 0.6, 0.5, 0.4, 0.3, 0.3]])
    unsure = run(Oracle([[5, EOS, 7, 8, 9, 9]], shaky), canvas([[MASK] * 6]))
    assert unsure.ids == [[5]] and unsure.passes == [2] and unsure.canvas == [6]


def test_rows_leave_when_they_are_decided() -> None:
    truth = [[5, 6, EOS, EOS], [7, 8, 9, 10]]
    sure = torch.tensor([[0.99] * 4, [0.5, 0.6, 0.7, 0.8]])
    oracle = Oracle(truth, sure)
    result = run(oracle, canvas([[MASK] * 4] * 2))
    assert result.passes == [1, 4] and result.ids == [[5, 6], [7, 8, 9, 10]]
    assert not oracle.asked[1][0].any()


def test_batches_give_what_rows_alone_give() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = [[MASK] * n for n in (3, 9, 6)]
    truth = [torch.randint(2, 28, (len(r),), generator=generator).tolist() for r in rows]
    sure = torch.rand(3, 9, generator=generator) * 0.9 + 0.1
    whole = run(Oracle(truth, sure), canvas(rows), threshold=0.5)
    for i, row in enumerate(rows):
        alone = run(Oracle([truth[i]], sure[i : i + 1, : len(row)]), canvas([row]), threshold=0.5)
        assert (alone.ids[0], alone.passes[0]) == (whole.ids[i], whole.passes[i])


@pytest.mark.parametrize("steps", [1, 3, 4, 10])
def test_a_number_of_steps_reveals_by_the_schedule(steps: int) -> None:
    oracle = Oracle([list(range(5, 15))], torch.linspace(0.2, 0.4, 10))
    result = run(oracle, canvas([[MASK] * 10]), steps=steps)
    assert result.passes == [steps] and result.ids == [list(range(5, 15))]
    left = [int(expected.sum()) for expected in oracle.asked]
    assert left[0] == 10 and (steps != 4 or left == [10, 7, 4, 2])


def test_what_is_left_is_revealed_when_passes_run_out() -> None:
    result = run(Oracle([[5] * 20], 0.2), canvas([[MASK] * 20]), max_passes=3)
    assert result.passes == [3] and result.ids == [[5] * 20]
