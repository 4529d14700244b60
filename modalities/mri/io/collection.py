"""The files of a folder or a zip, and the volume that they hold."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path, PurePath
from typing import Any

from ...base import ReadError
from .dicom import Member
from .files import files

IGNORED = ("thumbs.db", "desktop.ini", "dicomdir")
MAC = "__MACOSX"
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of files that hold a whole volume."""


def folder_members(path: Path) -> list[Member]:
    """Return the files in a folder and below; what systems leave behind (`._name`, `.DS_Store`,
    `__MACOSX`, `Thumbs.db`) is none."""
    paths = sorted(p for p in path.rglob("*") if p.is_file())
    return [(str(p), p) for p in paths if not ignored(p.relative_to(path))]


def folder_cells(path: Path) -> list[Path]:
    """Return the cells of a folder: its files, where some of them hold whole volumes, without those
    that a header names; else the folder, which holds the slices of one."""
    paths = [file for _, file in folder_members(path) if isinstance(file, Path)]
    if not any(file.name.lower().endswith((*VOLUMES, ".hdr", ".hdr.gz", ".zip")) for file in paths):
        return [path]
    referenced = {
        other.absolute()
        for file in paths
        if not file.name.lower().endswith((".img", ".img.gz"))
        for other in files(file)[1:]
    }
    return [file for file in paths if file.absolute() not in referenced]


def zip_members(path: Path, source: object, content: Any = None) -> list[Member]:
    """Return the files of an archive, read; those of `folder_members`. content: a file object, in
    place of the path. Raise ReadError."""
    try:
        with zipfile.ZipFile(path if content is None else content) as archive:
            names = sorted(n for n in archive.namelist() if not n.endswith("/"))
            names = [name for name in names if not ignored(PurePath(name))]
            return [(f"{source}/{name}", archive.read(name)) for name in names]
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise ReadError(source, f"the archive is damaged ({error})", "a whole zip") from error


def ignored(path: PurePath) -> bool:
    """Return True for files that an operating system writes beside others."""
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or MAC in path.parts or path.name.lower() in IGNORED


def single_volume(members: list[Member], source: object, series: Any) -> Member | None:
    """Return the one member that is a whole volume; None where the collection is of DICOM
    files. Raise ReadError where it holds several, or one beside DICOM files."""
    volumes = [m for m in members if m[0].lower().endswith(VOLUMES)]
    headers = [m for m in members if m[0].lower().endswith((".hdr", ".hdr.gz"))]
    volumes += [m for m in headers if _image_of(m[0]) in {name.lower() for name, _ in members}]
    if not volumes or series is not None:
        return None
    listed = ", ".join(PurePath(name).name for name, _ in volumes[:4])
    if len(volumes) > 1:
        others = " and others" if len(volumes) > 4 else ""
        raise ReadError(
            source, f"holds {len(volumes)} volumes: {listed}{others}", "the path of one"
        )
    if any(_has_dicom_magic(content) for _, content in members):
        raise ReadError(source, f"holds DICOM files and {listed}", "the path of one, or series")
    return volumes[0]


def _image_of(name: str) -> str:
    return re.sub(r"\.hdr(\.gz)?$", r".img\1", name.lower())


def _has_dicom_magic(content: Path | bytes) -> bool:
    if isinstance(content, bytes):
        return content[128:132] == b"DICM"
    with content.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
