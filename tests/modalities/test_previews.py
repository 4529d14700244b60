"""What a page draws on a signal: words under their times, boxes and masks where they lie."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.engine.recipe import find, load, registered

MARKS: dict[str, tuple[Any, Any]] = {
    "words": ([["<b>", 0.1, 0.2]], None),
    "boxes": ([[-9.0, -9.0, -9.0, 9.0, 9.0, 9.0]], []),
}


@pytest.mark.parametrize("name", sorted(registered("modality")))
def test_marks_that_it_cannot_draw_are_left_alone(name: str) -> None:
    pytest.importorskip(
        {"audio": "soundfile", "mri": "monai", "mri_mask": "monai"}.get(name, "PIL")
    )
    modality = find("modality", name, "here")
    raw = load(modality.read)(load(modality.example)(np.random.default_rng(0)))
    for marks in (None, {}, MARKS):
        shown = load(modality.preview)(raw, marks)
        assert shown and "<b>" not in shown


def test_words_stand_under_their_times() -> None:
    pytest.importorskip("soundfile")
    from sensorium.modalities.audio.preview import preview
    from sensorium.modalities.audio.read import Sound
    from sensorium.modalities.audio.word_timeline import assign_rows, width

    sound = Sound(np.random.default_rng(0).normal(0, 0.1, (1, 16000)).astype(np.float32), 8000)
    words = [["one", 0.2, 0.5], ["two", 1.5, 1.9], ["late", 40.0, 41.0]]
    drawn = preview(sound, {"words": (words, None)})
    places = {text: float(x) for x, text in re.findall(r'<text x="([\d.]+)"[^>]*>(\w+)<t', drawn)}
    scale = width(sound.seconds) / sound.seconds
    assert places == {
        "one": pytest.approx(0.35 * scale, abs=0.1),
        "two": pytest.approx(1.7 * scale),
    }
    assert assign_rows([["word", 0, 0.1], ["word", 0.1, 0.2], ["word", 1.5, 1.6]], 320, 2) == [
        0,
        1,
        0,
    ]
    assert drawn.count("base64") == 2 and "<audio controls" in drawn
    assert len(preview(sound)) < 90_000


def strip(html: str) -> np.ndarray:
    (result,) = re.findall(r"base64,([^\"]+)", html)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(result))).convert("RGB")).astype(int)


def coloured(html: str, colour: tuple[int, int, int]) -> np.ndarray:
    """`[n, 2]` (row, column) of the pixels of a colour."""
    return np.argwhere((np.abs(strip(html) - np.array(colour)) < 3).all(-1))


def test_a_box_lies_where_its_mm_are() -> None:
    pytest.importorskip("monai")
    from sensorium.modalities.mri.io import oriented
    from sensorium.modalities.mri.overlay import COLOURS, HEIGHT
    from sensorium.modalities.mri.preview import preview

    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -40
    values = np.random.default_rng(0).random((1, 40, 40, 40)).astype(np.float32)
    raw = oriented(values, affine, "made")
    side = 2 * 40
    box = [8.0, -20.0, 0.0, 30.0, -4.0, 12.0]  # of a body from -41 to 39 mm
    html = preview(raw, {"boxes": ([box], None)})
    axial = coloured(html, COLOURS["predicted"])
    axial = axial[axial[:, 1] < HEIGHT]
    top, left = axial.min(0) / HEIGHT * side
    bottom, right = axial.max(0) / HEIGHT * side
    # The patient's right is on the left, and anterior is up.
    assert (39 - left, 39 - right) == pytest.approx((30, 8), abs=1.5)
    assert (39 - top, 39 - bottom) == pytest.approx((-4, -20), abs=1.5)
    assert not len(coloured(html, COLOURS["reference"])) and "orange: predicted" in html
    spot = coloured(preview(raw, {"peak": ([19.0, 0.0, 0.0], None)}), COLOURS["predicted"])
    places = spot[spot[:, 1] < HEIGHT].mean(0) / HEIGHT * side
    assert 39 - places == pytest.approx((0.0, 19.0), abs=1.5)
    far = [[8.0, -20.0, 0.0, 30.0, -4.0, 12.0], [8.0, -20.0, 30.0, 30.0, -4.0, 36.0]]
    both = coloured(preview(raw, {"boxes": (far, None)}), COLOURS["predicted"])
    assert len(both[both[:, 1] < HEIGHT]) == len(axial)  # the slice does not reach the second


def test_a_mask_of_another_grid_is_drawn_on_the_volume() -> None:
    pytest.importorskip("monai")
    from sensorium.modalities.mri.io import oriented
    from sensorium.modalities.mri.overlay import middle, shapes_of
    from sensorium.modalities.mri.preview import preview

    raw = oriented(
        np.random.default_rng(0).random((1, 20, 20, 20)).astype(np.float32), np.eye(4), "made"
    )
    small = np.zeros((1, 10, 10, 10))
    small[0, 6:8, 2:4, 7:9] = 1
    mask = oriented(small, np.diag([2.0, 2.0, 2.0, 1.0]), "mask", flat=True)
    (area,) = shapes_of(raw, {"mask": (None, mask)})
    assert middle([area], (20, 20, 20)) == pytest.approx([13, 5, 15], abs=1)
    said = {"array": small[0], "affine": np.diag([2.0, 2.0, 2.0, 1.0])}
    assert preview(raw, {"mask": (said, None)}) != preview(raw)
    assert middle([], (5, 6, 7)) == [2, 3, 3]
    empty = oriented(np.zeros((1, 10, 10, 10)), np.eye(4), "mask", flat=True)
    assert "<img" in preview(raw, {"mask": (None, empty)})


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_samples_give_back_the_control_points(degree: int) -> None:
    from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer

    rng = np.random.default_rng(0)
    chunks = np.cumsum(rng.normal(size=(40, 20, 3)), axis=1).astype(np.float32)
    chunks[..., 2] = np.where(np.arange(20) < 7, -1, 1)
    built = BSplineTokenizer(num_basis=6, degree=degree, grippers=[2])
    built.fit(chunks)
    tokens = built.encode_continuous(torch.as_tensor(chunks[:1]))
    actions = built.decode_continuous(tokens, steps=20)[0].double().numpy()
    first, second, grip = built.outlines(actions)
    assert first is not None and second is not None and grip is not None
    low, high = built.bounds()
    assert len(first.points) == 6 and len(first.knots) == 6 - degree + 1
    assert ((first.points[:, 1] >= low[0] - 1e-4) & (first.points[:, 1] <= high[0] + 1e-4)).all()
    assert np.allclose(first.curve[:: len(first.curve) // 19][:20, 1], actions[:, 0], atol=1e-4)
    assert grip.knots[:, 0] == pytest.approx([6.5 / 19])
    assert built.outlines(actions[:4])[0] is None


def test_a_tokenizers_errors_are_charts() -> None:
    from sensorium.modalities.action.tokenizers import BinTokenizer
    from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer

    built = BSplineTokenizer(num_basis=[5, 6, 5, 5, 5, 5, 5])
    built.fit(np.random.default_rng(0).normal(size=(10, 16, 7)))
    mean, largest, *others = built.charts()
    assert len(others) == 2 and len(mean.lines) == 5
    name = "joint 1, with 6"
    assert mean.marked_x[name] == 6
    known = dict(zip(built.errors()[1].num_basis, built.errors()[1].max, strict=True))
    assert dict(largest.lines[name])[6.0] == known[6]
    assert not BinTokenizer().charts()
