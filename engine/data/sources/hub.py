"""The hub as a source: rows by index, or a stream that is read as it comes.

Data sets whose files are JSON, CSV, Parquet or tar shards are downloaded by 🤗 datasets and read by
the sources of these kinds, so that a cell is the value of its file. Everything else goes through
Arrow; cells are as stored: pictures and sounds are `{"path":, "bytes":}`, not decoded.
Only this source may use the network, and only when its first row is requested. A stream of JSON
downloads each file when its rows are reached; one of CSV all of them at first, since the kind of a
column depends on all its cells.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from ....modalities.base import Source, StreamingSource, Unreadable
from ...utils import ConfigError
from .arrow import Decoder
from .csv_rows import Csv
from .files import ALL, Files
from .hf_datasets import FAILURES, each_row, no_audio_decoding, quiet, root_cause
from .json_rows import Json
from .parquet import ArrowRows, Parquet
from .tar import Tar

READERS: Mapping[str, tuple[Callable[..., Files], Mapping[str, str]]] = {
    "json": (Json, {"field": "field"}),
    "csv": (Csv, {"sep": "delimiter"}),
    "parquet": (Parquet, {}),
    "webdataset": (Tar, {}),
}
"""A builder of 🤗 datasets -> our source of such files, and the options that both have."""


class Hub(Source):
    """A data set of the hub, or of a local folder that looks like one. Loaded when first used.

    config: the name of its configuration. revision: a tag, branch or commit.
    """

    def __init__(
        self, *, path: str, config: str | None = None, split: str, revision: str | None = None
    ) -> None:
        self.path, self.config, self.split, self.revision = path, config, split, revision

    @functools.cached_property
    def _files(self) -> Files | None:
        """The source of the data set's own files, if there is one of their kind."""
        hub_files = find_hub_files(self)
        return None if hub_files is None else hub_files.open(hub_files.names)

    @functools.cached_property
    def _table(self) -> Any:
        return _from_hub(self, streaming=False)

    @functools.cached_property
    def _rows(self) -> ArrowRows:
        return ArrowRows(self._table)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]  # known when loaded
        return self._rows.columns if self._files is None else self._files.columns

    def __len__(self) -> int:
        return len(self._rows if self._files is None else self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows.row(index) if self._files is None else self._files[index]

    def cell(self, index: int, column: str) -> Any:
        return (self._rows if self._files is None else self._files).cell(index, column)

    def key(self, index: int) -> str:
        return (
            f"{self.path}/{self.split}#{index}" if self._files is None else self._files.key(index)
        )

    @property
    def faults(self) -> Mapping[int, str]:  # type: ignore[override]
        return {} if self._files is None else self._files.faults

    def fingerprint(self) -> str:
        if self._files is not None:
            return f"{self.path}|{self.config}|{self.split}|{self._files.fingerprint()}"
        return f"{self.path}|{self.config}|{self.split}|{self._table._fingerprint}"


class HubStream(StreamingSource):
    """`Hub`, read over the network as it goes. Pin `revision` where its rows are cached."""

    def __init__(
        self, *, path: str, config: str | None = None, split: str, revision: str | None = None
    ) -> None:
        self.path, self.config, self.split, self.revision = path, config, split, revision

    @functools.cached_property
    def _parts(self) -> list[Callable[[], Files]] | None:
        """What opens the data set's own files, one after the other; None of other kinds."""
        hub_files = find_hub_files(self, kinds=("json", "csv"))
        if hub_files is None or hub_files.slice:
            return None
        groups = [hub_files.names]
        if hub_files.make is Json:
            groups = [[name] for name in hub_files.names]
        return [functools.partial(hub_files.open, names) for names in groups]

    @functools.cached_property
    def _first(self) -> Files | None:
        """The rows of the first part."""
        return None if self._parts is None else self._parts[0]()

    @functools.cached_property
    def _rows(self) -> Any:
        return _from_hub(self, streaming=True).decode(False)

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._rows.features)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]  # known when loaded
        if self._first is not None:
            return self._first.columns
        return tuple(self._rows.features or next(each_row(self._rows)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._parts is None or self._first is None:
            yield from map(self._decoder, each_row(self._rows))
            return
        for number, part in enumerate(self._parts):
            files = self._first if number == 0 else part()
            for index in range(len(files)):
                if index in files.faults:
                    yield dict.fromkeys(self.columns, Unreadable(files.faults[index]))
                else:
                    yield dict.fromkeys(self.columns) | files[index]

    def shards(self) -> Sequence[StreamingSource]:
        """Return a stream for each of the files that 🤗 datasets reads."""
        count = 1 if self._parts is not None else self._rows.num_shards
        if count == 1:
            return [self]
        shards = []
        for index in range(count):
            shard = copy.copy(self)
            vars(shard)["_rows"] = self._rows.shard(num_shards=count, index=index)
            shards.append(shard)
        return shards

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
    """Return a data set of the hub: `org/name`. streaming: rows as they come, without a length."""
    part = HubStream if streaming else Hub
    return part(path=path, config=config, split=split, revision=revision)


@dataclass(frozen=True)
class HubFiles:
    """The files of a split. make: our source of such files, options: its options. slice: what of
    their rows the split takes, such as `[:10%]`."""

    source: Hub | HubStream
    make: Callable[..., Files]
    options: Mapping[str, Any]
    names: Sequence[str]
    slice: str
    downloads: datasets.DownloadManager

    def open(self, names: Sequence[str]) -> Files:
        """Download some of the files, and return the source of their rows."""
        files = _located(self.source, lambda *_, **__: self.downloads.download(list(names)))
        try:
            return self.make(path=list(map(str, files)), split=f"{ALL}{self.slice}", **self.options)
        except ValueError as error:
            raise ConfigError(f"hub data set {self.source.path!r}: {error}") from error


def find_hub_files(
    source: Hub | HubStream, kinds: Sequence[str] = tuple(READERS)
) -> HubFiles | None:
    """Return the files of a data set that our sources read; None if 🤗 datasets has to read them,
    since they are of another kind, or the data set declares types or options of its own."""
    builder = _located(source, datasets.load_dataset_builder, source.path, source.config)
    if builder.name not in kinds or builder.info.features is not None:
        return None
    make, shared = READERS[builder.name]
    settings, defaults = vars(builder.config), vars(type(builder.config)())
    common = {"name", "version", "data_dir", "data_files", "description", *shared}
    if any(settings[n] != defaults[n] for n in settings.keys() & defaults.keys() - common):
        return None
    name, bracket, part = source.split.partition("[")
    if name not in (builder.config.data_files or {}) or "+" in source.split:
        return None
    names = list(builder.config.data_files[name])
    downloads = datasets.DownloadManager(dataset_name=builder.dataset_name)
    options = {ours: settings[theirs] for theirs, ours in shared.items()}
    return HubFiles(source, make, options, names, f"{bracket}{part}", downloads)


def _from_hub(source: Hub | HubStream, *, streaming: bool) -> Any:
    options = {"split": source.split, "streaming": streaming}
    return _located(source, datasets.load_dataset, source.path, source.config, **options)


def _located(source: Hub | HubStream, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return the result of a call of 🤗 datasets; its errors in one line."""
    try:
        with quiet(), no_audio_decoding():
            return call(*args, revision=source.revision, **options)
    except (*FAILURES, KeyError) as error:
        where = f"hub data set {source.path!r}"
        if isinstance(error, ConnectionError):
            raise ConfigError(
                f"{where}: is not in the local cache and the hub cannot be reached (offline, or "
                "HF_HUB_OFFLINE is set); download it once, or name local files"
            ) from error
        raise ConfigError(f"{where}: {root_cause(error)}") from error
