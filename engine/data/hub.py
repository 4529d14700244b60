"""The hub, and tar shards, as sources: rows by index, or a stream that is read as it comes.

Cells are as they are stored: pictures and sounds are `{"path":, "bytes":}`, not decoded.
Only `hub` may use the network, and only when its first row is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import datasets

from ...modalities.base import Source, StreamingSource
from ..utils import ConfigError, find_files, fingerprint_of
from .hf_datasets import FAILURES, each_row, load_files, no_audio_decoding, quiet, root_cause
from .tables import Tar


class TarStream(StreamingSource):
    """Tar shards of the WebDataset form (`0001.jpg`, `0001.txt`, ...), read in order.

    Rows: a column a suffix (`jpg`, `txt`, `json`), and `__key__`, `__url__`.
    """

    def __init__(self, *, path: str | list[str]) -> None:
        self.files = find_files(path)
        try:
            self._rows = load_files("webdataset", self.files, "train", streaming=True).decode(False)
            self.columns = tuple(self._rows.features)
        except FAILURES as error:
            raise ValueError(f"{self.files[0]}: {root_cause(error)}") from error

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from each_row(self._rows)
        except FAILURES as error:  # a shard that ends too early
            raise ConfigError(f"{self.files[0].parent}: {root_cause(error)}") from error

    def fingerprint(self) -> str:
        return fingerprint_of(self.files)


def webdataset(*, path: str | list[str], streaming: bool = True) -> Source:
    """Tar shards. streaming: False converts them once and gives rows by index."""
    return TarStream(path=path) if streaming else Tar(path=path)


class Hub(Source):
    """A data set of the hub, or of a local folder that looks like one. Loaded when first used.

    config: the name of its configuration. revision: a tag, branch or commit.
    """

    def __init__(
        self, *, path: str, config: str | None = None, split: str, revision: str | None = None
    ) -> None:
        self.path, self.config, self.split, self.revision = path, config, split, revision

    @functools.cached_property
    def _rows(self) -> Any:
        return _from_hub(self, streaming=False).with_format("arrow")

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]  # known when loaded
        return tuple(self._rows.column_names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index].to_pylist()[0]
        return row

    def key(self, index: int) -> str:
        return f"{self.path}/{self.split}#{index}"

    def fingerprint(self) -> str:
        return f"{self.path}|{self.config}|{self.split}|{self._rows._fingerprint}"


class HubStream(StreamingSource):
    """`Hub`, read over the network as it goes. Pin `revision` where its rows are cached."""

    def __init__(
        self, *, path: str, config: str | None = None, split: str, revision: str | None = None
    ) -> None:
        self.path, self.config, self.split, self.revision = path, config, split, revision

    @functools.cached_property
    def _rows(self) -> Any:
        return _from_hub(self, streaming=True).decode(False)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]  # known when loaded
        return tuple(self._rows.features or next(each_row(self._rows)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return each_row(self._rows)

    def fingerprint(self) -> str:
        return f"{self.path}|{self.config}|{self.split}|{self.revision}"


def hub(
    *,
    path: str,
    split: str,
    config: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Source:
    """A data set of the hub: `org/name`. streaming: rows as they come, without a length."""
    part = HubStream if streaming else Hub
    return part(path=path, config=config, split=split, revision=revision)


def _from_hub(source: Hub | HubStream, *, streaming: bool) -> Any:
    try:
        with quiet(), no_audio_decoding():
            return datasets.load_dataset(
                source.path,
                source.config,
                split=source.split,
                revision=source.revision,
                streaming=streaming,
            )
    except (*FAILURES, KeyError) as error:
        where = f"hub data set {source.path!r}"
        if isinstance(error, ConnectionError):
            raise ConfigError(
                f"{where}: is not in the local cache and the hub cannot be reached (offline, or "
                "HF_HUB_OFFLINE is set); download it once, or name local files"
            ) from error
        raise ConfigError(f"{where}: {root_cause(error)}") from error
