"""Grounded alignment: options and streams that are refused, and sentences of a phantom."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.modalities.base import Features
from sensorium.modalities.mri.io import read_mask
from sensorium.modalities.mri.phantom import Phantom
from sensorium.tasks.dense.grounding import Grounding
from sensorium.tests.tasks.dense.grounded_cases import OPTIONS, case


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": "scan"}, "input, text, mask: found scan, scan, mask; name three"),
        ({"grounded_fraction": 0.0}, r"grounded_fraction: found 0\.0"),
        ({"grounded_fraction": 0.5}, "grounded_fraction: found 0.5 without group"),
        ({"negative_group": "kind"}, "negative_group: found without finding"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Grounding(**{**OPTIONS, **options})


def test_a_stream_without_a_grid_is_refused() -> None:
    batch, encode = case([[0]])
    encode.features["scan"] = Features.dense(encode("scan").tokens)
    with pytest.raises(ValueError, match="grounded: the features have no geometry"):
        Grounding(**OPTIONS).loss(batch, encode)


def test_sentences_of_a_phantom_know_their_masks() -> None:
    source = Phantom(subjects=6, sequences=("T1w", "T2w"), view="sentence", healthy=0.5, seed=3)
    series = Phantom(subjects=6, sequences=("T1w", "T2w"), healthy=0.5, seed=3)
    assert len(source) == 24 and set(source.columns) == set(source[0])
    assert len({source.key(i) for i in range(24)}) == 24
    for i in range(24):
        row, whole = source[i], series[i // 2]
        assert row["volume"] == whole["volume"] and row["study"] == whole["study"]
        assert row["sentence"] in row["report"] and row["about"] == ("lesion", "ventricles")[i % 2]
        assert source.cell_key(i, "volume") == source.cell_key(i - i % 2, "volume")
        if row["about"] == "lesion" and row["lesion"] == "yes":
            assert row["finding"] in row["sentence"]
    for column in ("sentence", "sentence_mask"):
        assert source.cell_key(0, column) != source.cell_key(1, column)
    healthy = next(r for r in map(source.__getitem__, range(0, 24, 2)) if r["lesion"] == "no")
    assert not bool(read_mask(healthy["sentence_mask"]).any())
