"""Object storage through fsspec: `s3://bucket/key`, and every other scheme that fsspec knows.

All that reads or writes files works on local ones. An address is read as a copy below the cache,
which follows the store: an object whose ETag, size or time has changed is fetched again. A folder
is written by a `Mirror`, which uploads each file whole, as a store has no rename, and last those
that say that the others are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...modalities.paths import address_of, cache_root
from .atomic import PART, atomic_path, make_folder, write_json
from .errors import ConfigError, RuntimeFailure

LISTING = ".objects.json"
"""In a copy of a folder: its files with the versions that they were fetched or uploaded in."""

_MAGIC = frozenset("*?[")
_VERSION = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created", "size")


def local_folder(path: str | Path, skip: Callable[[str], bool] = lambda _: False) -> Path:
    """Return a folder, or the local copy of one on object storage."""
    address = address_of(path)
    return Path(path) if address is None else fetch(address, skip)


@contextlib.contextmanager
def object_errors(uri: str) -> Iterator[None]:
    """Raise one line for what a store's library raises: ConfigError for a scheme without its
    package, RuntimeFailure for all that the store refuses."""
    try:
        yield
    except (ConfigError, RuntimeFailure):
        raise
    except (ImportError, ValueError) as error:
        cure = (
            "pip install 'sensorium[objects]'" if uri.startswith("s3:") else "install its package"
        )
        raise ConfigError(f"{uri}: cannot be opened: {_line(error)}; {cure}") from error
    except Exception as error:  # each store's library has errors of its own
        raise RuntimeFailure(f"{uri}: cannot be reached: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _open(uri: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it, as of now: fsspec keeps listings,
    which other writers make old."""
    import fsspec

    system, path = fsspec.core.url_to_fs(uri)
    system.invalidate_cache()
    return system, path.rstrip("/")


def _version(information: dict[str, Any]) -> str:
    return "|".join(str(information[key]) for key in _VERSION if information.get(key) is not None)


def fetch(uri: str, skip: Callable[[str], bool] = lambda _: False) -> Path:
    """Return the local copy of an object, or of all below a prefix (a folder), as it is now.

    skip: names within the folder that are not needed. Raise ConfigError where nothing is there.
    """
    with object_errors(uri):
        system, path = _open(uri)
        objects = system.find(path, detail=True)
        if not objects:
            raise ConfigError(f"{uri}: does not exist, or nothing is in it")
        if list(objects) == [path]:
            return _fetch_all(system, path.rpartition("/")[0], objects, _folder(uri, file=True))[0]
        wanted = {n: i for n, i in objects.items() if not skip(n[len(path) + 1 :])}
        _fetch_all(system, path, wanted, folder := _folder(uri), remove=True)
        return folder


def fetch_pattern(pattern: str) -> list[Path]:
    """Return local copies of the objects that an address or a glob pattern names, sorted. Raise
    ConfigError where there are none."""
    if not _MAGIC & set(pattern):
        copy = fetch(pattern)
        if copy.is_dir():
            raise ConfigError(f"{pattern}: is a folder; name its objects, for example {pattern}/*")
        return [copy]
    with object_errors(pattern):
        system, path = _open(pattern)
        objects = system.glob(path, detail=True)
        files = {name: i for name, i in sorted(objects.items()) if i["type"] == "file"}
        if not files:
            raise ConfigError(f"{pattern}: no object fits this pattern")
        fixed = path[: min(path.index(sign) for sign in _MAGIC if sign in path)].rpartition("/")[0]
        top = f"{pattern.partition('://')[0]}://{fixed}"
        return _fetch_all(system, fixed, files, _folder(top))


def _folder(uri: str, *, file: bool = False) -> Path:
    """Return where copies of an address lie: a name to read and a hash of the folder's address."""
    address = uri.rstrip("/").rpartition("/")[0] if file else uri.rstrip("/")
    name = address.rpartition("/")[2] or "bucket"
    return cache_root() / "objects" / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def _fetch_all(
    system: Any, top: str, objects: dict[str, Any], folder: Path, *, remove: bool = False
) -> list[Path]:
    """Fetch objects that have changed into a folder, each whole, and return their paths. remove:
    the files of objects that are gone."""
    listing = _read_listing(folder)
    known, files = dict(listing), []
    for name, information in objects.items():
        inside = name[len(top) + 1 :]
        if not inside or name.endswith("/"):
            continue
        if ".." in Path(inside).parts:
            raise ConfigError(f"{name}: an object's name may not hold ..")
        path, version = folder / inside, _version(information)
        files.append(path)
        if known.get(inside) == version and path.is_file():
            continue
        make_folder(path.parent)
        with atomic_path(path) as temporary:
            system.get_file(name, str(temporary))
        known[inside] = version
    if remove:
        names = {path.relative_to(folder).as_posix() for path in files}
        for gone in known.keys() - names:
            (folder / gone).unlink(missing_ok=True)
            del known[gone]
    if known != listing:
        write_json(folder / LISTING, known)
    return files


def _read_listing(folder: Path) -> dict[str, str]:
    try:
        listing: dict[str, str] = json.loads((folder / LISTING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return listing


def transfer_missing(folder: Path, uri: str, fits: Callable[[str], bool], upload: bool) -> int:
    """Copy the files of a folder that an address lacks to it, or those that the folder lacks from
    it; return how many. Of files that are written once under a name of their own. fits: the names
    in the folder that are meant."""
    with object_errors(uri):
        system, path = _open(uri)
        remote = {name[len(path) + 1 :] for name in system.find(path)}
        local = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
        names = sorted(filter(fits, local - remote if upload else remote - local))
        for name in names:
            if upload:
                system.put_file(str(folder / name), f"{path}/{name}")
                continue
            make_folder((folder / name).parent)
            with atomic_path(folder / name) as temporary:
                system.get_file(f"{path}/{name}", str(temporary))
        return len(names)


class Mirror:
    """A local folder that is written to an address, file by file.

    last: names of files that are uploaded after all others, since they say that those are there.
    skip: names that stay here. folder: by default one below the cache.
    """

    def __init__(
        self,
        uri: str,
        last: Sequence[str] = (),
        skip: Callable[[str], bool] = lambda _: False,
        folder: Path | None = None,
    ) -> None:
        self.uri, self.last, self.skip = uri.rstrip("/"), tuple(last), skip
        self.folder = folder or _folder(self.uri)
        self._uploaded: dict[str, tuple[int, int]] = {}

    def pull(self) -> Path:
        """Make the folder what the address holds, or empty, and return it."""
        with object_errors(self.uri):
            system, path = _open(self.uri)
            objects = system.find(path, detail=True)
            _fetch_all(system, path, objects, self.folder, remove=True)
        make_folder(self.folder)
        self._uploaded = self._stamps()
        for name in self._uploaded.keys() - _read_listing(self.folder).keys():
            (self.folder / name).unlink(missing_ok=True)  # left by a run that was never uploaded
        self._uploaded = self._stamps()
        return self.folder

    def push(self, *, remove: bool = True) -> int:
        """Upload what has changed since the last time, and return the number of files. remove: also
        remove from the address what is gone here, after all is uploaded."""
        stamps = self._stamps()
        changed = [name for name, stamp in stamps.items() if self._uploaded.get(name) != stamp]
        changed.sort(key=lambda name: (Path(name).name in self.last, name))
        with object_errors(self.uri):
            system, path = _open(self.uri)
            for name in changed:
                system.put_file(str(self.folder / name), f"{path}/{name}")
            gone = sorted(self._uploaded.keys() - stamps.keys()) if remove else []
            # What says that a folder is whole goes before the folder's files.
            for name in sorted(gone, key=lambda name: Path(name).name not in self.last):
                system.rm_file(f"{path}/{name}")
            if changed or gone:
                objects = _open(self.uri)[0].find(path, detail=True)
                versions = {n[len(path) + 1 :]: _version(i) for n, i in objects.items()}
                write_json(self.folder / LISTING, versions)
        self._uploaded = stamps
        return len(changed)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Return size and time of each file that is mirrored."""
        stamps = {}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder, name)
                inside = path.relative_to(self.folder).as_posix()
                hidden = any(part.endswith(PART) for part in path.parts)
                if name != LISTING and not hidden and not self.skip(inside):
                    with contextlib.suppress(OSError):
                        status = path.stat()
                        stamps[inside] = (status.st_size, status.st_mtime_ns)
        return stamps
