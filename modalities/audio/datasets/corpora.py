"""Recorded speech in its published form: LibriSpeech's folders, Common Voice's tables.

Both have `audio` as a path, so that a damaged file is a row like any other, and is reported by
its reader.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import soundfile

from ...base import Source
from ...paths import read_lines, stamp


class _Files(Source):
    """Rows that each name one sound file. clips: (file, the row's other columns). speaker: the
    column of the speaker."""

    speaker: ClassVar[str] = "speaker"

    def __init__(self, top: Path, clips: list[tuple[Path, dict[str, Any]]]) -> None:
        self.top, self.clips = top, clips
        self.columns = ("audio", *clips[0][1])
        if "seconds" not in self.columns:
            self.columns = (*self.columns, "seconds")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file, cells = self.clips[index]
        row = {"audio": str(file), **cells}
        return row if "seconds" in row else {**row, "seconds": _seconds(file)}

    @property
    def groups(self) -> Sequence[object]:
        """The speaker of each row, if the table names speakers."""
        return [cells.get(self.speaker) for _, cells in self.clips] if self._has_speakers else ()

    @property
    def _has_speakers(self) -> bool:
        return self.speaker in self.columns

    def key(self, index: int) -> str:
        return self.clips[index][0].relative_to(self.top).as_posix()

    def named_cell(self, index: int, column: str) -> Any:
        return self.clips[index][0] if column == "audio" else None

    def fingerprint(self) -> str:
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for file, cells in self.clips:
            digest.update(f"{stamp(file)}|{cells}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


class LibriSpeech(_Files):
    """Rows `audio, text, speaker, chapter, words, seconds` of `<path>[/<split>]/*/*/*.trans.txt`.

    split: `train-clean-100`, `dev-clean`, `test-other`... lower: the transcripts, which are in
    capitals, in small letters. Raise ValueError if there are no transcripts.
    """

    def __init__(self, *, path: str, split: str | None = None, lower: bool = False) -> None:
        top = _folder(path, split)
        tables = sorted(top.rglob("*.trans.txt"))
        if not tables:
            raise ValueError(f"path: found no *.trans.txt under {top}, expected LibriSpeech's own")
        super().__init__(top, [row for table in tables for row in _transcripts(table, lower)])


class CommonVoice(_Files):
    """Rows `audio, text, words, seconds` and the other columns of `<path>/<split>.tsv`.

    path: a language's folder, with `clips` in it. split: `train`, `dev`, `test`, `validated`...
    seconds: of `clip_durations.tsv` where it is there. Raise ValueError for a table that is none.
    """

    speaker = "client_id"

    def __init__(self, *, path: str, split: str) -> None:
        top = _folder(path, None)
        table = top / f"{split}.tsv"
        if not table.is_file():
            tables = ", ".join(sorted(file.stem for file in top.glob("*.tsv"))) or "none"
            raise ValueError(f"split: found no {table}, expected one of its tables: {tables}")
        rows = list(_table(table, ("path", "sentence")))
        if not rows:
            raise ValueError(f"split: found no rows in {table}, expected at least one")
        lengths = _lengths(top)
        super().__init__(top, [_clip(top, row, lengths) for row in rows])


def _folder(path: str, split: str | None) -> Path:
    top = Path(path).expanduser().absolute()
    folder = top / split if split else top
    if not folder.is_dir():
        inside = sorted(p.name for p in top.iterdir() if p.is_dir()) if top.is_dir() else []
        cure = f"; it holds {', '.join(inside[:8])}" if inside else ""
        where = "split" if top.is_dir() else "path"
        raise ValueError(f"{where}: found no folder {folder}, expected one{cure}")
    return folder


def _transcripts(table: Path, lower: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the utterances of a chapter: `1272-128104-0000 MISTER QUILTER IS ...`, a line each."""
    for number, line in enumerate(read_lines(table), 1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        parts = name.split("-")
        if len(parts) != 3 or not text:
            raise ValueError(
                f"path: found {line[:60]!r} in {table}, line {number}, expected "
                "speaker-chapter-number and a text"
            )
        transcript = text.lower() if lower else text
        yield (
            table.parent / f"{name}.flac",
            {
                "text": transcript,
                "speaker": parts[0],
                "chapter": parts[1],
                "words": len(transcript.split()),
            },
        )


def _table(file: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield rows of tab-separated values in which a quotation mark is nothing special."""
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = [name for name in columns if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"split: found no column {missing[0]!r} in {file}, expected {', '.join(columns)}"
            )
        for number, row in enumerate(reader, 2):
            if None in row or any(row[name] is None for name in columns):
                raise ValueError(
                    f"split: found a row of another width in {file}, line {number}, expected "
                    f"{len(reader.fieldnames or [])} values"
                )
            yield row


def _clip(top: Path, row: dict[str, str], lengths: dict[str, float]) -> tuple[Path, dict[str, Any]]:
    name = row["path"] if Path(row["path"]).suffix else f"{row['path']}.mp3"  # older releases
    cells: dict[str, Any] = {k: v for k, v in row.items() if k not in ("path", "sentence")}
    cells |= {"text": row["sentence"], "words": len(row["sentence"].split())}
    if lengths:
        cells["seconds"] = lengths.get(name, float("nan"))
    return top / "clips" / name, cells


def _lengths(top: Path) -> dict[str, float]:
    """Return seconds of the clips, if the release lists them in milliseconds."""
    file = top / "clip_durations.tsv"
    if not file.is_file():
        return {}
    rows = _table(file, ("clip", "duration[ms]"))
    return {row["clip"]: float(row["duration[ms]"]) / 1000 for row in rows}


def _seconds(file: Path) -> float:
    """From the file's header; NaN if it cannot be read, which `read` reports."""
    try:
        return float(soundfile.info(str(file)).duration)
    except (OSError, soundfile.SoundFileError):
        return float("nan")
