"""The contract of every action tokenizer of the catalogue."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.modalities import action
from sensorium.modalities.action import ACTION
from sensorium.modalities.action.tokenizers import ActionTokenizer
from sensorium.testing.common import copy_for_worker

STEPS, DOF = 20, 3
Make = Callable[..., ActionTokenizer]


def smooth(count: int = 200, steps: int = STEPS, dof: int = DOF, seed: int = 0) -> Tensor:
    """Sums of two slow waves a joint, in several units."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.linspace(0, 1, steps)[None, :, None]
    a, b = (torch.rand(2, count, 1, dof, generator=rng) for _ in range(2))
    waves = a[0] * torch.sin(6 * u + 6 * b[0]) + a[1] * torch.sin(3 * u + 6 * b[1])
    return waves * torch.tensor([10.0 ** (d % 3) for d in range(dof)])


@pytest.fixture(params=sorted(ACTION.tokenizers))
def make(request: pytest.FixtureRequest) -> Make:
    """The class of a name of the catalogue."""
    module, _, name = ACTION.tokenizers[request.param].partition(":")
    result: Make = getattr(importlib.import_module(module), name)
    return result


@pytest.fixture
def fitted(make: Make) -> ActionTokenizer:
    built = make()
    built.fit(smooth())
    return built


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_a_round_trip(fitted: ActionTokenizer) -> None:
    chunks = smooth(seed=1)
    ids = fitted.encode(chunks)
    back = fitted.decode(ids, steps=STEPS)
    assert back.shape == chunks.shape
    assert back.dtype == torch.float32
    units = chunks.amax((0, 1)) - chunks.amin((0, 1))
    assert ((back - chunks).abs().mean((0, 1)) < 0.02 * units).all()
    assert all(
        row.dtype == torch.long and row.min() >= 0 and row.max() < fitted.size for row in ids
    )
    assert fitted.dof == DOF
    length = fitted.length(STEPS)
    assert length is None or {len(row) for row in ids} == {length}


def test_a_chunk_does_not_depend_on_its_neighbours(fitted: ActionTokenizer) -> None:
    chunks = smooth(count=5, seed=2)
    together = fitted.encode(chunks)
    alone = [fitted.encode(chunk[None])[0] for chunk in chunks]
    assert same(list(together), alone)


def test_saved_and_loaded_is_equal(fitted: ActionTokenizer, tmp_path: Path) -> None:
    chunks = smooth(seed=3)
    ids = fitted.encode(chunks)
    fitted.save(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    twins = [
        type(fitted).load(tmp_path),
        ActionTokenizer.load(tmp_path),
        copy.deepcopy(fitted),
        copy_for_worker(fitted),
    ]
    for twin in twins:
        assert type(twin) is type(fitted)
        assert (twin.size, twin.dof) == (fitted.size, fitted.dof)
        assert same(twin.encode(chunks), ids)
        assert torch.equal(twin.decode(ids, steps=STEPS), fitted.decode(ids, steps=STEPS))


def test_two_files_of_two_tokenizers_are_never_loaded_as_one(
    make: Make, fitted: ActionTokenizer, tmp_path: Path
) -> None:
    """Killed between its two files, a second `save` leaves one of each."""
    fitted.save(tmp_path / "first")
    other = make(dof=DOF)
    other.fit(iter(3 * smooth(seed=9).numpy()))
    other.save(tmp_path / "second")
    arrays = "signal_tokenizer.safetensors"
    first, second = ((tmp_path / name / arrays).read_bytes() for name in ("first", "second"))
    if first == second:
        return  # no array of its own
    (tmp_path / "first" / arrays).write_bytes(second)
    with pytest.raises(ValueError, match="two files are of two tokenizers"):
        ActionTokenizer.load(tmp_path / "first")


def test_a_state_goes_into_another(make: Make, fitted: ActionTokenizer) -> None:
    other = make()
    other.load_state(fitted.state())
    assert same(other.encode(smooth()), fitted.encode(smooth()))
    with pytest.raises(ValueError, match=f"has {DOF}, these options use 5"):
        make(dof=5).load_state(fitted.state())


def test_rows_are_read_once_and_in_any_form(make: Make, fitted: ActionTokenizer) -> None:
    def once() -> Iterator[np.ndarray]:
        yield from smooth().numpy()

    def pairs() -> Iterator[tuple[list[list[float]], list[bool]]]:
        yield from ((chunk.tolist(), [False] * STEPS) for chunk in smooth())

    for rows in (once(), pairs(), smooth().numpy(), list(smooth())):
        other = make(dof=DOF)
        other.fit(rows)
        assert same(other.encode(smooth()), fitted.encode(smooth()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(fitted: ActionTokenizer, make: Make, bad: float) -> None:
    chunks = smooth(count=3)
    chunks[1, 4, 2] = bad
    message = f"actions: chunk 1 has {bad} at step 4, joint 2; expected finite numbers"
    with pytest.raises(ValueError, match=message):
        fitted.encode(chunks)
    with pytest.raises(ValueError, match=message):
        make().fit(chunks)
    padding = torch.arange(STEPS).expand(3, -1) >= 4
    chunks[:, 5:] = bad
    chunks[1, 4, 2] = bad
    assert len(fitted.encode(chunks, padding=padding)) == 3


@pytest.mark.parametrize("shape", [(2, STEPS, DOF + 1), (2, STEPS, DOF - 1), (STEPS, DOF)])
def test_another_dof_is_refused(fitted: ActionTokenizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"expected \[B, steps, {DOF}\]"):
        fitted.encode(torch.zeros(shape))


def test_bad_rows_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="no chunk of actions"):
        make().fit(iter(()))
    with pytest.raises(ValueError, match=r"chunk 1 is \(20, 4\), expected \[steps, 3\]"):
        make().fit([np.zeros((20, 3)), np.zeros((20, 4))])
    with pytest.raises(ValueError, match=r"chunk 0 is \(20, 3\), expected \[steps, 4\]"):
        make(dof=4).fit([np.zeros((20, 3))])
    with pytest.raises(ValueError, match="chunk 0 is no array of numbers"):
        make().fit([[["left", "right"]]])
    with pytest.raises(ValueError, match="every chunk is padding alone"):
        make().fit([(np.zeros((20, 3)), np.ones(20, bool))])


def test_a_chunk_of_padding_alone_is_refused(fitted: ActionTokenizer) -> None:
    padding = torch.zeros(3, STEPS, dtype=torch.bool)
    padding[2] = True
    with pytest.raises(ValueError, match="padding: chunk 2 has no real sample"):
        fitted.encode(smooth(count=3), padding=padding)
    with pytest.raises(ValueError, match=rf"padding: found \(3, 5\).*expected \(3, {STEPS}\)"):
        fitted.encode(smooth(count=3), padding=padding[:, :5])


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_a_foreign_id_is_refused(fitted: ActionTokenizer, wrong: int) -> None:
    ids = fitted.encode(smooth(count=2))
    ids[1][3] = wrong
    with pytest.raises(ValueError, match=rf"ids: found {wrong}, expected ids in \[0, "):
        fitted.decode(ids, steps=STEPS)


def test_used_before_the_fit(make: Make) -> None:
    for built in (make(), make(dof=DOF)):
        with pytest.raises(ValueError, match="used before fit"):
            built.encode(smooth())
        with pytest.raises(ValueError, match="used before fit"):
            built.state()


def test_a_folder_without_one_is_refused(fitted: ActionTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no whole tokenizer of signals"):
        ActionTokenizer.load(tmp_path)
    fitted.save(tmp_path)
    other = next(
        kind
        for path in ACTION.tokenizers.values()
        if (kind := getattr(action, path.partition(":")[2])) is not type(fitted)
    )
    with pytest.raises(ValueError, match=f"saved by {type(fitted).__name__}"):
        other.load(tmp_path)


def test_a_constant_joint_stays(make: Make) -> None:
    chunks = smooth()
    chunks[:, :, 1] = 0.25
    built = make()
    built.fit(chunks)
    back = built.decode(built.encode(chunks), steps=STEPS)
    assert torch.isfinite(back).all()
    torch.testing.assert_close(back[:, :, 1], chunks[:, :, 1], atol=1e-6, rtol=0)


def test_an_empty_batch(fitted: ActionTokenizer) -> None:
    ids = fitted.encode(torch.zeros(0, STEPS, DOF))
    assert len(ids) == 0
    assert fitted.decode(ids, steps=STEPS).shape == (0, STEPS, DOF)
    assert fitted.decode([], steps=STEPS).shape == (0, STEPS, DOF)


@pytest.mark.parametrize("dof", [0, -1])
def test_no_joints_are_refused(make: Make, dof: int) -> None:
    with pytest.raises(ValueError, match=f"dof: found {dof}, expected at least 1"):
        make(dof=dof)


def test_autocast_changes_nothing(fitted: ActionTokenizer) -> None:
    chunks = smooth()
    with torch.autocast("cpu", torch.bfloat16):
        ids = fitted.encode(chunks)
        back = fitted.decode(ids, steps=STEPS)
    assert same(ids, fitted.encode(chunks))
    assert torch.equal(back, fitted.decode(ids, steps=STEPS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(fitted: ActionTokenizer) -> None:
    chunks = smooth()
    padding = (torch.arange(STEPS) >= 15).expand(len(chunks), -1)
    for options in ({}, {"padding": padding}):
        ids = fitted.encode(chunks.cuda(), **options)
        back = fitted.decode(ids, steps=STEPS)
        assert all(row.is_cuda for row in ids)
        assert back.is_cuda
        expected = fitted.decode(fitted.encode(chunks, **options), steps=STEPS)
        # A number on the edge of a bin may fall on its other side.
        assert (back.cpu() - expected).abs().mean() < 1e-3 * expected.abs().mean()


def test_the_package_gives_the_classes() -> None:
    for path in ACTION.tokenizers.values():
        assert issubclass(getattr(action, path.partition(":")[2]), ActionTokenizer)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = action.Nothing
