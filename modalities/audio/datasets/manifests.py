"""Recordings as toolkits of speech list them: Kaldi's data folders, NeMo's manifests.

A cell is a path, or a path with a segment in seconds; nothing is opened here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...paths import read_lines
from ...rows import ListedRows, existing_folder, table_lines


class Kaldi(ListedRows):
    """Rows `audio, text, speaker, words` of a data folder with `wav.scp`.

    `text` has the transcripts, `segments` the parts of recordings that are utterances, `utt2spk`
    the speakers; each may be missing, and so is its column then. Paths are taken from `root`, by
    default the folder. lower: transcripts in small letters. Raise ValueError for a recording that
    is the output of a command: write it to a file first.
    """

    def __init__(self, *, path: str, root: str | None = None, lower: bool = False) -> None:
        folder = existing_folder(path)
        if not (folder / "wav.scp").is_file():
            raise ValueError(f"path: found no wav.scp in {folder}, expected Kaldi's data folder")
        base = existing_folder(root) if root is not None else folder
        recordings = dict(_recordings(folder / "wav.scp", base))
        cells = _segments(folder / "segments", recordings)
        columns = {
            name: dict(_pairs(folder / file))
            for name, file in (("text", "text"), ("speaker", "utt2spk"))
            if (folder / file).is_file()
        }
        rows = [(name, _row(name, cell, columns, lower)) for name, cell in cells.items()]
        if "text" in columns:
            untold = [name for name, row in rows if row["text"] is None]
            self.ignored = dict.fromkeys(untold, "has no line in text")
            rows = [(name, row) for name, row in rows if row["text"] is not None]
        group = "speaker" if "speaker" in columns else None
        super().__init__(rows, files=("audio",), where=str(folder), group=group)


def _recordings(file: Path, base: Path) -> Iterator[tuple[str, str]]:
    for number, (name, source) in table_lines(file, 2, "a name and a file"):
        if source.endswith("|"):
            raise ValueError(
                f"{file}, line {number}: {name} is the output of a command; write it to a file"
            )
        if ".ark:" in source:
            raise ValueError(
                f"{file}, line {number}: {name} is in an archive; copy it out with wav-copy"
            )
        yield name, str(base / source)


def _segments(file: Path, recordings: dict[str, str]) -> dict[str, Any]:
    """Return the cell of each utterance: a recording, or a part of one."""
    if not file.is_file():
        return dict(recordings)
    form = "utterance, recording, start and end"
    cells: dict[str, Any] = {}
    for number, (name, recording, start, end) in table_lines(file, 4, form):
        if recording not in recordings:
            raise ValueError(f"{file}, line {number}: wav.scp has no recording {recording!r}")
        try:
            span = {"start": float(start), "end": float(end)}
        except ValueError:
            raise ValueError(f"{file}, line {number}: found {start} {end}, expected s") from None
        last = {} if span["end"] < 0 else {"end": span["end"]}  # -1 is the recording's end
        cells[name] = {"path": recordings[recording], "start": span["start"], **last}
    return cells


def _pairs(file: Path) -> Iterator[tuple[str, str]]:
    for line in read_lines(file):
        name, _, value = line.strip().partition(" ")
        if name:
            yield name, value.strip()


def _row(name: str, cell: Any, columns: dict[str, dict[str, str]], lower: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"audio": cell}
    row |= {column: values.get(name) for column, values in columns.items()}
    if row.get("text") is not None:
        row["text"] = row["text"].lower() if lower else row["text"]
        row["words"] = len(row["text"].split())
    return row


class Manifest(ListedRows):
    """Rows `audio, text, seconds` and the other fields of NeMo's manifests: a JSON object a line
    with `audio_filepath`, `duration`, `text`, perhaps `offset`.

    path: a manifest, or a list of them. Paths are taken from the manifest's folder. A line with
    `offset` is that part of the file.
    """

    def __init__(self, *, path: str | list[str]) -> None:
        rows: list[tuple[str, dict[str, Any]]] = []
        files = [
            Path(p).expanduser().absolute() for p in ([path] if isinstance(path, str) else path)
        ]
        for file in files:
            if not file.is_file():
                raise ValueError(f"path: there is no file {file}")
            prefix = f"{file.stem}#" if len(files) == 1 else f"{file.parent.name}/{file.stem}#"
            rows += [(f"{prefix}{n}", row) for n, row in _lines(file)]
        speaker = "speaker" if any("speaker" in row for _, row in rows) else None
        super().__init__(rows, files=("audio",), where=str(files[0]), group=speaker)


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: is no JSON: {error.msg}") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("audio_filepath"), str):
            raise ValueError(f"{where}: has no audio_filepath, expected a line of NeMo's manifest")
        name = str(file.parent / fields.pop("audio_filepath"))
        duration, offset = fields.pop("duration", None), fields.pop("offset", None)
        cell: Any = name
        if offset is not None:
            cell = {"path": name, "start": float(offset)}
            cell |= {} if duration is None else {"end": float(offset) + float(duration)}
        yield number, {"audio": cell, **fields, "seconds": duration}
