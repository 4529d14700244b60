"""Every encoder of every modality meets the contract that `sensorium.testing` checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from encoder_cases import CASES, EACH, TEXTS, UNUSED, examples

from sensorium.engine.recipe import find, registered
from sensorium.modalities.text.open_clip import OpenClipText
from sensorium.testing.encoders import check_encoder


@pytest.mark.quick_share(12)
@pytest.mark.parametrize(("modality", "name"), EACH)
def test_an_encoder_meets_the_contract(modality: str, name: str) -> None:
    kind, options = CASES[modality][name]
    check_encoder(
        find(f"{modality}_encoder", kind, "here"),
        modality=modality,
        examples=examples(modality),
        unused=UNUSED.get(name, ()),
        **options,
    )


def test_the_text_tower_of_open_clip_does(tmp_path: Path, save_clip: Callable[..., str]) -> None:
    check_encoder(OpenClipText, modality="text", examples=TEXTS, name=save_clip(tmp_path))


def test_every_encoder_has_a_case() -> None:
    tried = {f"{modality}/{kind}" for modality in CASES for kind, _ in CASES[modality].values()}
    assert tried | {"text/open_clip"} == set(registered("encoder"))
