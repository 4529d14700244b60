"""Spans that are hidden from a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensorium.modalities.text.augments.spans import SpanMask


@pytest.mark.parametrize("mask_id", [None, 103])
@pytest.mark.parametrize("length", [1, 3, 50])
def test_one_span_is_hidden_and_the_ends_stay(mask_id: int | None, length: int) -> None:
    ids, starts = torch.arange(10, 22), set()
    for seed in range(40):
        part = SpanMask(length=length, mask_id=mask_id)
        out = part({"ids": ids}, np.random.default_rng(seed))["ids"]
        again = part({"ids": ids}, np.random.default_rng(seed))["ids"]
        assert torch.equal(out, again) and out[0] == 10 and out[-1] == 21
        hidden = min(length, 9)
        if mask_id is None:
            assert len(out) == 12 - hidden
        else:
            places = (out != ids).nonzero()[:, 0]
            assert (out[places] == mask_id).all() and len(places) == hidden
            assert int(places[-1] - places[0]) == hidden - 1
        gone = sorted(set(ids.tolist()) - set(out.tolist()))
        starts.add(gone[0])
    assert len(starts) > 1
    short = {"ids": torch.tensor([1, 2, 3])}
    assert torch.equal(SpanMask()(short, np.random.default_rng(0))["ids"], short["ids"])
