"""Long signals in pieces: what an encoder that looks no further than the overlap cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sensorium.engine.model.sliding_window import WINDOWS_PER_FORWARD, encode_windowed
from sensorium.engine.model.stream import encode
from sensorium.modalities.base import Encoder, Features, Sample
from sensorium.modalities.groups import collate
from sensorium.tasks.uses import ChunkSpec

STEPS = 2


class Near(Encoder):
    """A token of two steps sees one token on each side; remembers the rows of its forwards."""

    dim, time_inputs = 4, {"steps": STEPS, "mask": STEPS}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3 * STEPS, stride=STEPS, padding=STEPS)
        self.calls: list[tuple[int, int]] = []

    def forward(self, *, steps: Tensor, mask: Tensor, **options: Any) -> Features:
        self.calls.append((len(steps), steps.shape[1] // STEPS))
        tokens = self.conv((steps * mask[..., None]).mT).mT[:, : steps.shape[1] // STEPS]
        real = mask[:, ::STEPS]
        grid = (tokens.shape[1],)
        return Features(tokens * real[..., None], real, grid=grid, spacing=(0.1,), origin=(0.05,))


def batch(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    width = STEPS * -(-max(lengths) // STEPS)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    steps = torch.randn(len(lengths), width, 3, generator=torch.Generator().manual_seed(seed))
    return {"steps": steps * mask[..., None], "mask": mask}


@pytest.fixture
def near() -> Near:
    torch.manual_seed(0)
    return Near().eval()


SPECS = [ChunkSpec(10, 4, 10), ChunkSpec(9, 3, 20), ChunkSpec(16, 2, 16)]


@pytest.mark.parametrize("lengths", [[90], [33, 90, 41, 7], [59, 1, 120], [20, 20]])
@pytest.mark.parametrize(
    "window", [ChunkSpec(10, 4, 10), ChunkSpec(9, 3, 20), ChunkSpec(16, 2, 16)]
)
def test_pieces_equal_the_whole(near: Near, lengths: list[int], window: ChunkSpec) -> None:
    inputs = batch(lengths)
    whole, pieces = near(**inputs), encode_windowed(near, inputs, {"window": window})
    assert torch.equal(pieces.mask, whole.mask)
    torch.testing.assert_close(pieces.tokens, whole.tokens)
    assert (pieces.grid, pieces.spacing, pieces.origin) == (whole.grid, whole.spacing, whole.origin)


def test_few_pieces_of_one_length_at_a_time(near: Near) -> None:
    encode_windowed(near, batch([600, 30]), {"window": ChunkSpec(12, 4, 20)})
    short, *rest = near.calls
    assert short == (1, 15)  # the row below the limit, as it is
    assert all(rows <= WINDOWS_PER_FORWARD and length == 12 for rows, length in rest)
    assert sum(rows for rows, _ in rest) == -(-(300 - 12) // 8) + 1


def test_short_signals_are_encoded_as_ever(near: Near) -> None:
    inputs = batch([30, 14])
    result = encode_windowed(near, inputs, {"window": ChunkSpec(5, 1, 15)})
    assert near.calls == [(2, 15)]
    assert torch.equal(result.tokens, near(**inputs).tokens)


def test_an_encoder_that_says_nothing_reads_the_whole(near: Near) -> None:
    near.time_inputs = {}
    encode_windowed(near, batch([100]), {"window": ChunkSpec(5, 1, 5)})
    assert near.calls == [(1, 50)]


@pytest.mark.parametrize("rows", [1, 3])
def test_neighbours_do_not_matter(near: Near, rows: int) -> None:
    lengths, window = [70, 25, 111], ChunkSpec(10, 4, 12)
    whole = encode_windowed(near, batch(lengths), {"window": window})
    inputs = batch(lengths)
    for start in range(0, 3, rows):
        part = {name: value[start : start + rows] for name, value in inputs.items()}
        result = encode_windowed(near, part, {"window": window})
        remaining = whole.tokens[start : start + rows, : result.tokens.shape[1]]
        torch.testing.assert_close(result.tokens, remaining)


def test_windows_within_groups_of_equal_shapes(near: Near) -> None:
    """Rows that are encoded apart are cut into windows all the same; hooks get their rows."""

    class Rows:
        """A hook that differs by row; the encoder only passes it on."""

        def __init__(self, rows: Sequence[int]) -> None:
            self.rows = list(rows)

        def of(self, rows: Sequence[int]) -> Rows:
            return Rows([self.rows[row] for row in rows])

    class Apart(Near):
        batch_invariant = False

        def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
            return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}

        def forward(self, **inputs: Any) -> Features:
            seen.append(inputs["layer_hooks"][0].rows)
            return super().forward(**inputs)

    seen: list[list[int]] = []
    apart, lengths = Apart().eval(), [60, 14, 60, 32]
    apart.load_state_dict(near.state_dict())
    samples = [{k: v[0] for k, v in batch([n], seed).items()} for seed, n in enumerate(lengths)]
    options = {"window": ChunkSpec(10, 4, 16), "layer_hooks": {0: Rows(range(4))}}
    result = encode(apart, collate(apart, samples), options)
    assert result.lengths.tolist() == [n // STEPS for n in lengths]
    assert {row for rows in seen for row in rows} == {0, 1, 2, 3}
    assert all({1} == set(rows) or 1 not in rows for rows in seen)
    for tokens, mask, sample in zip(result.tokens, result.mask, samples, strict=True):
        alone = near(**{k: v[None] for k, v in sample.items()}).tokens[0]
        torch.testing.assert_close(tokens[mask], alone)
