"""The hub as a source: rows by index, or a stream that is read as it comes.

Data sets whose files are JSON, CSV, Parquet or tar shards are downloaded by 🤗 datasets and read by
the sources of these kinds, so that a cell is what its file says. Everything else goes through
Arrow; cells are as they are stored: pictures and sounds are `{"path":, "bytes":}`, not decoded.
Only this source may use the network, and only when its first row is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import datasets

from ....modalities.base import Source, StreamingSource
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
        return open_files(self)

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
    def _rows(self) -> Any:
        return _from_hub(self, streaming=True).decode(False)

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._rows.features)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]  # known when loaded
        return tuple(self._rows.features or next(each_row(self._rows)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._decoder, each_row(self._rows))

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


def open_files(source: Hub | HubStream) -> Files | None:
    """Return our source of a data set's files; None if 🤗 datasets has to read them, since they are
    of another kind, or the data set declares types or options of its own."""
    builder = _located(source, datasets.load_dataset_builder, source.path, source.config)
    if builder.name not in READERS or builder.info.features is not None:
        return None
    make, shared = READERS[builder.name]
    settings, plain = vars(builder.config), vars(type(builder.config)())
    common = {"name", "version", "data_dir", "data_files", "description", *shared}
    if any(settings[n] != plain[n] for n in settings.keys() & plain.keys() - common):
        return None
    name, bracket, part = source.split.partition("[")
    if name not in (builder.config.data_files or {}) or "+" in source.split:
        return None
    listed = list(builder.config.data_files[name])
    downloads = datasets.DownloadManager(dataset_name=builder.dataset_name)
    files = _located(source, lambda *_, **__: downloads.download(listed))
    options = {ours: settings[theirs] for theirs, ours in shared.items()}
    try:
        return make(path=list(map(str, files)), split=f"{ALL}{bracket}{part}", **options)
    except ValueError as error:
        raise ConfigError(f"hub data set {source.path!r}: {error}") from error


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
