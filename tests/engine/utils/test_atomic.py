"""Whoever writes a file leaves the old one or the new one, whole, and names a disk that refuses."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import write_faults as faults

from sensorium.engine.cache.shard import pack, write_shard
from sensorium.engine.checkpoint import read_tensors, write_tensors
from sensorium.engine.recipe import Recipe, load_recipe, parse_recipe
from sensorium.engine.rollout.video import write_video
from sensorium.engine.utils import (
    ConfigError,
    RunLogger,
    RuntimeFailure,
    atomic_path,
    check_folder,
    check_writable,
    remove_parts,
    try_folder,
    write_json,
    write_page,
    write_text,
)


def recipe(value: int) -> Recipe:
    task = {"type": "classification", "input": "image", "target": "word"}
    stream = {"modality": "image", "encoder": "patches"}
    return parse_recipe(
        {"inputs": {"image": stream}, "tasks": {"t": task}, "train": {"seed": value}}
    )


def log(path: Path, value: int) -> None:
    if not path.exists():
        write_text(path, "".join(f'{{"step": {step}}}\n' for step in (1, 2, 3, 4)))
    RunLogger(path.parent).rewind(value)


def video(path: Path, value: int) -> None:
    write_video(path, [np.full((8, 8, 3), value, np.uint8)] * 2, 5)


def shard(path: Path, value: int) -> None:
    written = write_shard(path.parent, [pack("key", {"x": np.full(3, value)})])
    written.replace(path)


WRITERS: dict[str, tuple[str, Callable[[Path, int], Any], Callable[[Path], Any]]] = {
    "text": ("a.txt", lambda p, v: write_text(p, str(v)), lambda p: int(p.read_text())),
    "json": ("a.json", lambda p, v: write_json(p, {"v": v}), lambda p: json.loads(p.read_text())),
    "recipe": ("recipe.yaml", lambda p, v: recipe(v).write(p), load_recipe),
    "page": (
        "page.html",
        lambda p, v: write_page(
            p, "contact_sheet.html.j2", title=str(v), query="", note="", hits=[]
        ),
        lambda p: p.read_text().index("</html>"),
    ),
    "tensors": (
        "a.safetensors",
        lambda p, v: write_tensors(p, {"x": torch.full((4,), v)}),
        lambda p: read_tensors(p),
    ),
    "log": ("metrics.jsonl", log, lambda p: [json.loads(x) for x in p.read_text().splitlines()]),
    "video": ("a.gif", video, lambda p: p.read_bytes().index(b"GIF")),
    "shard": ("a.safetensors", shard, read_tensors),
}
"""Whoever writes a file: its name, how version 1 or 2 of it is written, how it is read."""


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_is_one_line(name: str, tmp_path: Path) -> None:
    file, write, read = WRITERS[name]
    path = tmp_path / file
    number, ended = 0, False
    while not ended:
        number += 1
        path.unlink(missing_ok=True)
        write(path, 1)
        read(path)
        before = path.read_bytes()
        with faults.fault_at(number, tmp_path, faults.refuse, faults.GROWING) as fault:
            try:
                write(path, 2)
            except RuntimeFailure as error:
                (line,) = str(error).splitlines()
                assert "the disk is full" in line and str(tmp_path) in line
                assert path.read_bytes() == before
        ended = fault.count < number
        assert [p.name for p in tmp_path.iterdir()] == [file], "something is left behind"
        read(path)
    assert number > 1, "nothing was refused"


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_leaves_one_whole_file(name: str, tmp_path: Path) -> None:
    file, write, read = WRITERS[name]
    path = tmp_path / file
    write(path, 1)
    if name != "log":
        write(path, 2)  # whatever is imported is imported before the processes part
    number, killed = 0, True
    while killed:
        number += 1
        path.unlink(missing_ok=True)
        write(path, 1)

        def work(at: int = number) -> None:
            with faults.fault_at(at, tmp_path, faults.die):
                write(path, 2)

        code = faults.in_child(work)
        killed = code == -9
        assert killed or code == 0
        read(path)
        remove_parts(tmp_path)
        left = {p for p in tmp_path.iterdir() if p.name.startswith(".")}
        assert not left
    assert number > 2


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(name: str, umask: int, tmp_path: Path) -> None:
    file, write, _ = WRITERS[name]
    old = os.umask(umask)
    try:
        write(tmp_path / file, 1)
        write(tmp_path / file, 2)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o666 & ~umask


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    link = tmp_path / "a.txt"
    link.symlink_to(tmp_path / "large" / "a.txt")
    write_text(link, "new")
    assert link.is_symlink() and (tmp_path / "large" / "a.txt").read_text() == "new"


def test_what_is_no_file_is_written_in_place() -> None:
    write_text(Path(os.devnull), "nothing")
    assert not Path(os.devnull).is_file()


def test_an_error_of_the_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be_written_are_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out: .* is a folder; name a file in it"):
        check_writable(tmp_path, "--out")
    with pytest.raises(ConfigError, match=r"--out: the folder .*no does not exist; make it first"):
        check_writable(tmp_path / "no" / "x.jsonl", "--out")
    with pytest.raises(ConfigError, match=r"--out: the folder .*file is a file"):
        check_writable(tmp_path / "file" / "x.jsonl", "--out", make=True)
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "file" / "run", "--out")
    check_writable(tmp_path / "no" / "x.jsonl", "--out", make=True)
    check_folder(tmp_path / "a" / "b", "--out")
    assert not (tmp_path / "a").exists()


def test_a_folder_is_tried_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_folder(tmp_path / "a" / "b", "--out")
    assert not list(tmp_path.iterdir())

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConfigError, match=r"^--out: .* cannot be written to: the disk is full"):
        try_folder(tmp_path, "--out")
    assert not list(tmp_path.iterdir())
