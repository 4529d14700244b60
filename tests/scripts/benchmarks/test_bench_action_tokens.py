"""The benchmark of action tokens: its data is what it says, and it prints a row a tokenizer."""

from __future__ import annotations

import pytest
import torch

from sensorium.scripts.benchmarks import action_tokens as bench


def test_the_gripper_switches_at_every_sample() -> None:
    gripper = bench.make_chunks(38, 20, seed=0)[..., 6]
    flips = (gripper[:, 1:] != gripper[:, :-1]).long()
    assert (flips.sum(1) == 1).all()
    assert torch.equal(flips.argmax(1), torch.arange(38) % 19)
    assert (gripper[:19] == -gripper[19:]).all()


def test_it_prints_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(chunks=76, steps=20, rounds=1, seed=0)
    lines = capsys.readouterr().out.splitlines()
    first = [line.partition("|")[0].rstrip() for line in lines if "|" in line]
    for name in bench.tokenizers():
        assert first.count(name) == 2  # what it loses, and how fast it is
    assert {"fast without BPE", "scipy"} <= set(first)
    switch = next(line for line in lines if line.startswith("bspline, switch"))
    assert " 0.00% " in switch
    assert switch.count(" 0.0%") == len(bench.FLIPS)
