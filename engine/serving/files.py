"""Uploaded files and maps that a prediction wrote, each in its own folder under its id."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..utils import make_folder, remove_parts, write_json
from .errors import RequestError

ID = re.compile(r"file-[0-9a-f]{32}")
INFO = "info.json"


@dataclass(frozen=True)
class StoredFile:
    """One file, as OpenAI's API describes it. path: of its content; not shown to clients."""

    id: str
    filename: str
    bytes: int
    created_at: int
    purpose: str
    path: Path

    def as_json(self) -> dict[str, object]:
        """Return its description for a client."""
        values = {k: v for k, v in asdict(self).items() if k != "path"}
        return {"object": "file", **values, "status": "processed"}


class FileStore:
    """Files of a server. A file is there whole or not at all, also after a kill.

    folder: kept between starts; None: a temporary one, removed by `close`. max_bytes: of all files.
    """

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="sensorium-serve-")
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self.max_bytes, self._lock = max_bytes, threading.Lock()
        make_folder(self.folder)
        remove_parts(self.folder)
        self._size = sum(file.bytes for file in self.list())

    @contextmanager
    def new(self, filename: str, purpose: str) -> Iterator[Path]:
        """Yield the path to write a new file to; it is listed when the block has ended, under the
        id that is the name of the folder of the path, without its dot and ending."""
        key = f"file-{uuid.uuid4().hex}"
        part = self.folder / f".{key}.part"
        make_folder(part)
        try:
            path = part / (Path(filename.replace("\\", "/")).name.lstrip(".")[-120:] or "file")
            yield path
            files = [each for each in part.iterdir() if each.name != INFO]
            size = sum(each.stat().st_size for each in files)
            info = {"filename": files[0].name, "bytes": size, "purpose": purpose}
            write_json(part / INFO, {**info, "created_at": int(time.time())})
            with self._lock:
                if self._size + size > self.max_bytes:
                    raise RequestError(413, f"the server holds {self.max_bytes:,} bytes of files")
                part.rename(self.folder / key)
                self._size += size
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def add(self, filename: str, content: bytes, purpose: str = "user_data") -> StoredFile:
        """Store a file. Raise RequestError, 413, if there is no room."""
        with self.new(filename, purpose) as path:
            path.write_bytes(content)
        return self.get(key_of(path))

    def get(self, key: str) -> StoredFile:
        """Return a stored file. Raise RequestError, 404, if there is none."""
        folder = self.folder / key
        if not ID.fullmatch(key) or not (folder / INFO).is_file():
            raise RequestError(404, f"there is no file {key[:60]!r}; upload it to /v1/files")
        info = json.loads((folder / INFO).read_text("utf-8"))
        return StoredFile(id=key, path=folder / info["filename"], **info)

    def list(self) -> list[StoredFile]:
        """Return all files, the oldest first."""
        names = [each.name for each in self.folder.iterdir() if ID.fullmatch(each.name)]
        return sorted((self.get(name) for name in names), key=lambda file: file.created_at)

    def remove(self, key: str) -> None:
        """Remove a file. Raise RequestError, 404, if there is none."""
        removed = self.folder / f".{key}.part"
        with self._lock:
            self._size -= self.get(key).bytes
            (self.folder / key).rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def close(self) -> None:
        """Remove a temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()


def key_of(path: Path) -> str:
    """Return the id of the file that was written to a path of `FileStore.new`."""
    return path.parent.name.removeprefix(".").removesuffix(".part")
