"""The declaration of a modality: how one kind of signal is read and shown, and its parts.

Imports no library, so that all modalities can be listed at no cost.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .messages import short_repr

_LAZY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One kind of signal: `IMAGE = Modality(read="my_package.read:read", encoders={...})`.

    A recipe names a modality by its short name, by `module:NAME`, or by the name of an
    installed plug-in. Every value is a lazy string, `package.module:name`, imported when it is
    first used, or a mapping from short names to lazy strings.

    Functions:
        read: cell of a data set -> raw value. Raise ReadError. Returns the cell by default.
        files: cell -> the files that `read` opens for it, whose change makes cached values void.
            By default those that the cell names (a path, `{"path":}`, a list of them) and all of
            the folders that it names; none where `read` returns the cell.
        cells: folder -> the cells in it, in order, where a folder is named in place of them. By
            default all files in it and in its folders.
        example: numpy Generator -> cell, for dry runs of recipes without data.
        preview: (raw value, annotations) -> HTML for reports; a short text by default.
        save: (path without suffix, values, affine, raw value) -> path of the written file.
    segment_columns: groups of columns of a table that define which part of a file a row is of
        (`offset`; `start` and `end`). A stream whose cells do not hold them is refused: the whole
        file would replace the part.
    annotation: if streams of this modality are drawn on other streams (a mask on its volume),
        the key of `Annotations` that their previews draw it as.
    draws: the keys of `Annotations` that `preview` draws. Those of `mask` and `boxes` are drawn as
        the reference where a row has a column `mask`, `box` or `boxes` that no stream reads.

    Parts, by short name:
        encoders, decoders, augments (the first is the default), tokenizers: for streams of this
            modality.
        sources: data sets, which any recipe may name.
        envs: families of simulated environments, which `env.name: family/task` may name. A
            class `(task, *, cameras, size, **options)` with the interface of `gymnasium.Env`.
            Optional static methods: `expert(task)` returns a controller `observation -> action`,
            `instruction(task, seed)` the text that describes the task in an episode.
    """

    read: str = f"{__name__}:return_cell"
    files: str = f"{__package__}.paths:cell_files"
    cells: str = f"{__package__}.paths:folder_cells"
    example: str | None = None
    preview: str = f"{__name__}:preview_as_text"
    save: str | None = None
    segment_columns: tuple[tuple[str, ...], ...] = ()
    annotation: str | None = None
    draws: tuple[str, ...] = ()
    encoders: Mapping[str, str] = field(default_factory=dict)
    decoders: Mapping[str, str] = field(default_factory=dict)
    augments: Mapping[str, str] = field(default_factory=dict)
    tokenizers: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    envs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.read == type(self).read and self.files == type(self).files:
            object.__setattr__(self, "files", f"{__package__}.paths:no_files")
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name in ("annotation", "draws", "segment_columns") or value is None:
                continue
            paths = value if isinstance(value, Mapping) else {"": value}
            for name, path in paths.items():
                if not (isinstance(path, str) and _LAZY.fullmatch(path)):
                    where = f"{each.name}.{name}".rstrip(".")
                    raise ValueError(
                        f"Modality: {where} is {short_repr(path)}, expected 'package.module:name'"
                    )


def return_cell(cell: Any) -> Any:
    """Return the cell of a data set as the raw value: nothing has to be read."""
    return cell


def preview_as_text(raw: Any, annotations: Any = None) -> str:
    """Return a short text for a raw value of a modality without `preview`."""
    return f"<p>{html.escape(short_repr(raw))}</p>"
