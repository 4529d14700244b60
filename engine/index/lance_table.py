"""The LanceDB table of an index: found, opened and made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ..recipe import import_optional
from ..utils import sync_folder
from .errors import index_errors

TABLE = "embeddings"
FOLDER = f"{TABLE}.lance"


def is_there(uri: str) -> bool:
    """Return whether a folder or address holds a table."""
    if "://" in uri:
        return TABLE in connect(uri).list_tables().tables
    # A folder without a version is the rest of a table that was never created.
    return any((Path(uri) / FOLDER / "_versions").glob("*.manifest"))


def make_table(uri: str, schema: Any) -> None:
    """Make a table: on a disk beside its place, and moved into it, so that it is whole or not
    there."""
    if "://" in uri:
        connect(uri).create_table(TABLE, schema=schema, exist_ok=True)
        return
    folder = Path(uri)
    for leftover in folder.glob(
        f".{TABLE}-*.part"
    ):  # of a process that was killed: we have the lock
        shutil.rmtree(leftover)
    temporary = folder / f".{TABLE}-{os.getpid()}.part"
    try:
        connect(str(temporary)).create_table(TABLE, schema=schema)
        if (folder / FOLDER).exists():
            shutil.rmtree(folder / FOLDER)
        (temporary / FOLDER).rename(folder / FOLDER)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def connect(uri: str) -> Any:
    lancedb = import_optional("lancedb")
    with index_errors(uri, "cannot be opened"):
        return lancedb.connect(uri)
