"""Encoders of series: parity with transformers, and what a gap may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from encoder_cases import CASES, PATCHED, TRANSFORMER, contract, hf
from transformers import PatchTSTConfig, PatchTSTModel

from sensorium.modalities.series.encoders.patches import Patches
from sensorium.modalities.series.encoders.transformers import TransformersSeries
from sensorium.modalities.series.preprocessing import Preprocessing
from sensorium.modalities.series.read import read

RNG = np.random.default_rng(0)
CELLS = [{"values": RNG.normal(size=(2, 64)), "rate": 10.0} for _ in range(3)]


def fitted(**options: Any) -> Preprocessing:
    part = Preprocessing(**options)
    part.fit(CELLS)
    return part


def test_features_of_patchtst_are_those_of_the_library() -> None:
    encoder = TransformersSeries(
        preprocessing=fitted(normalize="none"), **hf("patchtst", **TRANSFORMER, **PATCHED)
    ).eval()
    library = PatchTSTModel(PatchTSTConfig(**TRANSFORMER, **PATCHED)).eval()
    library.load_state_dict(encoder.model.state_dict())
    raw = [read(cell) for cell in CELLS]
    features = encoder(**encoder.collate([encoder.processor.prepare(r) for r in raw]))
    past = torch.tensor(np.stack([r.values.T for r in raw]), dtype=torch.float32)
    with torch.no_grad():
        expected = library(past_values=past).last_hidden_state  # [B, C, T, D]
    assert features.grid == tuple(expected.shape[1:3])
    torch.testing.assert_close(features.tokens, expected.flatten(1, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n in CASES["series"] if n.startswith("any")][:4:3])
def test_a_checkpoint_is_read_as_the_library_wrote_it(name: str, tmp_path: Any) -> None:
    encoder = contract("series", name).encoder
    encoder.model.save_pretrained(tmp_path)
    options = TransformersSeries.resolve({"name": str(tmp_path)})
    assert TransformersSeries.has_pretrained_weights(options)
    other = TransformersSeries(preprocessing=fitted(), **options)
    other.load()
    for key, value in encoder.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[key], value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (hf("patchtst", **TRANSFORMER, **{**PATCHED, "num_input_channels": 3}), "has 3|found num"),
        (hf("bert"), "BertModel reads input_ids, expected a model of time series"),
        ({"config": {"model_type": "gone"}}, "found model_type 'gone'"),
        ({}, "found model_type None"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        TransformersSeries(preprocessing=fitted(), **options)


def test_a_model_of_a_fixed_context_names_it() -> None:
    config = hf("patchtst", **TRANSFORMER, **{**PATCHED, "context_length": 48})
    encoder = TransformersSeries(preprocessing=fitted(), **config)
    with pytest.raises(ValueError, match=r"64 samples; expected .*length: 48"):
        encoder.processor.prepare(read(CELLS[0]))
    cut = TransformersSeries(preprocessing=fitted(length=48), **config)
    assert cut.processor.prepare(read(CELLS[0]))["values"].shape == (2, 48)


def test_values_in_a_gap_change_nothing() -> None:
    """A patch without a measured value is attended by no other token."""
    encoder = Patches(preprocessing=fitted(), patch=8, dim=16, heads=2).eval()
    values = np.array(CELLS[0]["values"])
    values[:, 16:24] = np.nan
    sample = encoder.processor.prepare(read({"values": values, "rate": 10.0}))
    batch = encoder.collate([sample])
    features = encoder(**batch)
    other = {**batch, "values": batch["values"].masked_fill(~batch["observed"], 9.0)}
    rest = [token for token in range(8) if token != 2]
    torch.testing.assert_close(encoder(**other).tokens[:, rest], features.tokens[:, rest])
    assert features.spacing == (0.8,) and features.origin == (0.4,)
