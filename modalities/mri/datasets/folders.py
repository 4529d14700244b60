"""Folders of volumes: BIDS, and those of the Medical Segmentation Decathlon and nnU-Net."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...messages import did_you_mean
from ...rows import ListedRows, existing_folder

VOLUME = (".nii.gz", ".nii")


class Bids(ListedRows):
    """Rows `volume, subject, session` and the columns of `participants.tsv` of a BIDS folder.

    contrasts: suffixes of the files of `anat` (`T1w`, `[T1w, T2w, FLAIR]`), or of another folder as
    `func/bold`. Of several, `volume` is the list of them, None where one is missing; a session with
    none is left out and counted. Where a name has further entities (`acq-`, `run-`), the first
    in order is taken. derivatives: the folder below `derivatives` that holds the volumes instead.
    `n/a` in a table is None; numbers are numbers.
    """

    def __init__(
        self,
        *,
        path: str,
        contrasts: str | list[str] = "T1w",
        derivatives: str | None = None,
    ) -> None:
        top = existing_folder(path)
        base = existing_folder(str(top / "derivatives" / derivatives)) if derivatives else top
        suffixes = [contrasts] if isinstance(contrasts, str) else contrasts
        people = _participants(top / "participants.tsv")
        rows, self.ignored = [], {}
        for subject, session, folder in _sessions(base):
            name = folder.relative_to(base).as_posix()
            volumes = [_volume(folder, suffix) for suffix in suffixes]
            if not any(volumes):
                self.ignored[name] = f"has no {' or '.join(suffixes)}"
                continue
            cell: Any = volumes[0] if isinstance(contrasts, str) else volumes
            row = {"volume": cell, "subject": subject, "session": session}
            rows.append((name, {**row, **people.get(subject, {})}))
        super().__init__(rows, files=("volume",), where=str(base), group="subject")


def _sessions(base: Path) -> Iterator[tuple[str, str | None, Path]]:
    for subject in sorted(p for p in base.glob("sub-*") if p.is_dir()):
        sessions = sorted(p for p in subject.glob("ses-*") if p.is_dir())
        for folder in sessions or [subject]:
            yield subject.name, folder.name if sessions else None, folder


def _volume(folder: Path, suffix: str) -> str | None:
    kind, _, name = suffix.rpartition("/")
    files = sorted(
        file
        for ending in VOLUME
        for file in (folder / (kind or "anat")).glob(f"*_{name}{ending}")
        if file.is_file()
    )
    return str(files[0]) if files else None


def _participants(file: Path) -> dict[str, dict[str, Any]]:
    """Return the columns of each subject, `sub-01`."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    if rows and "participant_id" not in rows[0]:
        raise ValueError(f"{file}: has no column participant_id")
    people = {}
    for row in rows:
        name = row.pop("participant_id")
        people[name if name.startswith("sub-") else f"sub-{name}"] = {
            column: _value(value) for column, value in row.items() if column is not None
        }
    return people


def _value(text: str | None) -> Any:
    if text is None or text.strip() in ("", "n/a"):
        return None
    if re.fullmatch(r"[+-]?\d+", text.strip()):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


class NnUnet(ListedRows):
    """Rows `volume, mask, case` of a folder with the `dataset.json` of the Medical Segmentation
    Decathlon, which lists its files, or of nnU-Net, whose channels are separate files.

    split: `train` or `test`; a test split has no `mask`. `volume` is a list of nnU-Net's channels,
    or a file of the Decathlon with all of its channels.
    """

    def __init__(self, *, path: str, split: str = "train") -> None:
        top = existing_folder(path)
        file = top / "dataset.json"
        if not file.is_file():
            raise ValueError(f"path: found no dataset.json in {top}")
        if split not in ("train", "test"):
            raise ValueError(f"split: found {split!r}{did_you_mean(split, ('train', 'test'))}")
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}: is no JSON: {error.msg}") from error
        listed = table.get("training" if split == "train" else "test")
        channels = table.get("channel_names") or table.get("modality") or {"0": "volume"}
        if isinstance(listed, list):
            rows = list(_listed(top, listed, len(channels)))
        else:
            rows = list(_channels(top, split, len(channels), table.get("file_ending", ".nii.gz")))
        super().__init__(rows, files=("volume", "mask"), where=str(top))


def _listed(top: Path, listed: list[Any], channels: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in listed:
        image = top / (each["image"] if isinstance(each, dict) else each)
        cell: Any = {"path": str(image), "volume": "channels"} if channels > 1 else str(image)
        case = image.name.removesuffix(".gz").removesuffix(".nii")
        row = {"volume": cell, "case": case}
        if isinstance(each, dict):
            row["mask"] = str(top / each["label"])
        yield case, row


def _channels(
    top: Path, split: str, channels: int, ending: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    images = top / ("imagesTr" if split == "train" else "imagesTs")
    for first in sorted(images.glob(f"*_0000{ending}")):
        case = first.name.removesuffix(f"_0000{ending}")
        files = [images / f"{case}_{number:04d}{ending}" for number in range(channels)]
        volumes = [str(file) if file.is_file() else None for file in files]
        row: dict[str, Any] = {"volume": volumes if channels > 1 else volumes[0], "case": case}
        if split == "train":
            mask = top / "labelsTr" / f"{case}{ending}"
            row["mask"] = str(mask) if mask.is_file() else None
        yield case, row
