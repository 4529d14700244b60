"""Frames of the videos of LeRobot data sets: each is the one of its time stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sensorium.modalities.action.datasets import LeRobot
from sensorium.modalities.base import ReadError
from sensorium.modalities.image.read import read as read_picture
from sensorium.tests.modalities.action.datasets import lerobot_cases
from sensorium.tests.modalities.action.datasets.lerobot_cases import (
    CAMERA,
    FPS,
    LAYOUTS,
    PLACES,
    film,
    grey,
    layouts,
    table,
    v30,
)


@layouts
def test_frames_of_videos_are_those_of_their_times(layout: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    source = LeRobot(path=str(LAYOUTS[layout](tmp_path / "arm", videos=True)))
    for i, (e, t) in enumerate(PLACES):
        cell = source[i][CAMERA]
        pixels = np.asarray(cell)
        assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
        assert abs(int(pixels.mean()) - grey(e, t)) < 8, (e, t)
        assert np.array_equal(np.asarray(read_picture(cell)), pixels)
    without = LeRobot(path=str(tmp_path / "arm"), videos=False)
    assert CAMERA not in without.columns and without.fingerprint() != source.fingerprint()
    with pytest.raises(ValueError, match="frames of a video, expected numbers"):
        source.column_array(CAMERA)


@pytest.mark.parametrize("drift", [0.0, 0.1 / FPS, -0.1 / FPS])
def test_stamps_that_drift_show_no_neighbour(
    drift: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface/lerobot#3177: `from_timestamp` is a sum of floats, here wrong by more than a
    frame at the end; and the second video file begins again at 0."""
    pytest.importorskip("av")
    count, length = 24, 2
    monkeypatch.setattr(lerobot_cases, "LENGTHS", (length,) * count)
    monkeypatch.setattr(lerobot_cases, "grey", lambda episode, t: 20 * ((2 * episode + t) % 12))
    folder = v30(tmp_path / "arm", videos=True)
    place = folder / "meta/episodes/chunk-000/file-000.parquet"
    described = parquet.read_table(place).to_pydict()
    video = f"videos/{CAMERA}/chunk-000/file-{{:03d}}.mp4"
    for file, inside in enumerate((range(12), range(12, count))):
        film(folder / video.format(file), inside)
        for number, episode in enumerate(inside):
            stamp = number * (length / FPS + drift)
            described[f"videos/{CAMERA}/from_timestamp"][episode] = stamp
            described[f"videos/{CAMERA}/file_index"][episode] = file
    table(pa.table(described), place)
    source = LeRobot(path=str(folder))
    for i in range(count * length):
        pixels = np.asarray(source[i][CAMERA])
        assert abs(int(pixels.mean()) - lerobot_cases.grey(*divmod(i, length))) < 9, i


def test_stamps_with_a_gap_between_episodes_stand(tmp_path: Path) -> None:
    """Frames of episodes that are not listed lie between those that are."""
    pytest.importorskip("av")
    folder = v30(tmp_path / "arm", videos=True)
    place = folder / "meta/episodes/chunk-000/file-000.parquet"
    described = parquet.read_table(place).to_pydict()
    described[f"videos/{CAMERA}/from_timestamp"] = [0.0, 0.6]
    table(pa.table(described), place)
    assert LeRobot(path=str(folder))[4][CAMERA].time == 0.6


@layouts
def test_a_video_that_ends_too_early(layout: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    folder = LAYOUTS[layout](tmp_path / "arm", videos=True)
    source = LeRobot(path=str(folder))
    video = source[0][CAMERA].path
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), "u1"))))
        container.mux(stream.encode())
    assert np.asarray(source[1][CAMERA]).shape == (32, 32, 3)
    with pytest.raises(ReadError, match=r"mp4 at 0\.3000 s: the video ends before this time"):
        np.asarray(source[3][CAMERA])
    video.write_bytes(video.read_bytes()[:100])
    with pytest.raises(ReadError, match="broken or truncated"):
        np.asarray(source[0][CAMERA])
    video.unlink()
    with pytest.raises(ReadError, match="there is no such file"):
        np.asarray(source[0][CAMERA])
    with pytest.raises(ValueError, match=r"mp4: there is no such file"):
        LeRobot(path=str(folder))
