"""What made an index, and whether another model may write into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..index import (
    Form,
    Index,
    IndexMetadata,
    Storage,
    check_storage,
    create_index,
    exists,
    open_index,
)
from ..model import Model
from ..recipe import is_remote
from ..utils import ConfigError
from .embedder import fingerprint

FORMS: Mapping[str, Form] = {"cosine": "dense", "dot": "sparse", "maxsim": "multi_vector"}
"""Form of an index by the similarity of a task."""


def index_metadata(
    model: Model,
    stream: str,
    run: str,
    overrides: Sequence[str],
    *,
    dim: int | None = None,
    form: Form | None = None,
    storage: Storage = "float32",
) -> IndexMetadata:
    """The maker of an index of this stream; `run` and its `overrides` load the model again.

    dim: keep the first coordinates alone (a `matryoshka` model's). form: of the vectors, by default
    that of the similarity of the tasks that read the stream. storage: of dense ones. Raise
    ConfigError where they do not fit.
    """
    whole, form = model.stream(stream).dim, form or _form(model, stream)
    if dim is not None and (form == "sparse" or not 0 < dim <= whole):
        what = "of dense and multi_vector forms" if form == "sparse" else f"of 1 to {whole}"
        raise ConfigError(f"--dim: found {dim}, expected a width {what}")
    check_storage(form, storage, dim or whole)
    if not is_remote(run) and Path(run).exists():
        run = str(Path(run).absolute())
    recipe = model.plan.recipe
    return IndexMetadata(
        run,
        stream,
        recipe.inputs[stream].modality,
        dim or whole,
        model.precision,
        {name: fingerprint(model, name) for name in recipe.inputs},
        tuple(overrides),
        form,
        storage,
    )


def _form(model: Model, stream: str) -> Form:
    """Return the form by the tasks that read a stream. Raise ConfigError if they differ."""
    tasks = model.plan.tasks.values()
    readers = [planned.task for planned in tasks if stream in planned.task.streams]
    forms = {FORMS[task.similarity] for task in readers if task.similarity is not None}
    if len(forms) > 1:
        raise ConfigError(
            f"--form: which? tasks compare {stream!r} as {' and '.join(sorted(forms))}"
        )
    return next(iter(forms), "dense")


def open_for(uri: str, maker: IndexMetadata) -> Index:
    """Return the index at a URI, created if there is none. Raise ConfigError if another
    encoder or stream made it."""
    index = open_index(uri) if exists(uri) else create_index(uri, maker)
    metadata = index.metadata
    if metadata.stream != maker.stream:
        raise ConfigError(
            f"{uri}: holds vectors of the stream {metadata.stream!r}, these are of "
            f"{maker.stream!r}; give them another --out"
        )
    check_compatible(uri, metadata, maker.stream, maker.fingerprints[maker.stream], maker.run)
    for option in ("dim", "form", "storage"):
        held, asked = getattr(metadata, option), getattr(maker, option)
        if held != asked:
            raise ConfigError(
                f"{uri}: holds vectors of {option} {held}, these are of {asked}; pass --{option} "
                f"{held}, or give them another --out"
            )
    return index


def check_compatible(
    uri: str, metadata: IndexMetadata, stream: str, current: str, run: str
) -> None:
    """Refuse a stream whose fingerprint is not the one that an index was made with, by name."""
    expected = metadata.fingerprints.get(stream, "absent")
    if expected != current:
        raise ConfigError(
            f"{uri}: was made by {metadata.run}, whose stream {stream!r} has the fingerprint "
            f"{expected[:12]}; that of {run} has {current[:12]}: another encoder, connector or "
            "preprocessing; use the run that made it, or embed again into another --out"
        )
