"""sensorium retrieve index/ --text "a dog on a beach" [-k 5] [--where "split = 'test'"]

python scripts/retrieve.py index/ --image query.jpg --html found.html
python scripts/retrieve.py index/ --text "how do I open a file" --rerank runs/reranker
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.scripts.train import DeviceOption, PrecisionOption


class Aggregate(StrEnum):
    """The score of a group of rows."""

    max = "max"
    sum = "sum"


MODALITIES = {"text": "text", "image": "image", "audio": "audio", "mri": "mri"}
"""Option -> the modality whose stream embeds it; `--query` names any stream."""


def find_hits(
    retrievers: Sequence[Any],
    query: Any,
    k: int,
    second: tuple[str, int] | None,
    options: Mapping[str, Any],
    device: str | None,
) -> list[Any]:
    """Return k hits. second: a run that reranks, and how many hits it reads."""
    from sensorium.engine.embedding import Reranker, rerank, search_all

    if second is None:
        return search_all(retrievers, query, k, **options)
    reranker = Reranker(second[0], device=device)
    hits = search_all(retrievers, query, max(k, second[1]), **options)
    return rerank(reranker, retrievers[0], query, hits)[:k]


def main(
    places: Annotated[
        list[str],
        typer.Argument(metavar="INDEX...", help="places of `embed --out`; several are fused"),
    ],
    text: Annotated[str | None, typer.Option(help="query by text")] = None,
    image: Annotated[str | None, typer.Option(help="query by an image file")] = None,
    audio: Annotated[str | None, typer.Option(help="query by an audio file")] = None,
    mri: Annotated[str | None, typer.Option(help="query by a 3D volume file")] = None,
    query: Annotated[str | None, typer.Option(help="any stream: NAME=VALUE")] = None,
    k: Annotated[int, typer.Option("-k", help="number of results")] = 5,
    where: Annotated[str | None, typer.Option(help="SQL: split = 'test' AND age > 60")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="a column: passages of one value are one result")
    ] = None,
    aggregate: Annotated[
        Aggregate, typer.Option(help="the score of a group: its best row's, or all rows'")
    ] = Aggregate.max,
    search: Annotated[str, typer.Option(help="exact, hnsw, ivf or ivf_pq")] = "exact",
    nprobes: Annotated[
        int | None, typer.Option(help="of ivf and ivf_pq: the lists that are looked in")
    ] = None,
    refine: Annotated[
        int | None, typer.Option(help="of ivf_pq: k times so many are compared again, exactly")
    ] = None,
    run: Annotated[str | None, typer.Option(help="the run that embeds, if it has moved")] = None,
    rerank_run: Annotated[
        str | None,
        typer.Option("--rerank", help="a run of the task reranking, which orders the first hits"),
    ] = None,
    rerank_top: Annotated[
        int, typer.Option(min=1, help="hits that --rerank reads; at least -k of them")
    ] = 50,
    json: Annotated[bool, typer.Option("--json", help="one JSON line a row")] = False,
    html: Annotated[Path | None, typer.Option(help="write a page with thumbnails")] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Search an index by a text, an image, a sound or a volume: any stream of its run.

    Several indexes (dense and sparse) are searched each by its own run, and their ranks fused.
    With --rerank the first hits are read beside the query by a cross-encoder, whose scores order
    them.
    """
    from sensorium.engine.embedding import (
        Retriever,
        format_hits,
        hits_to_jsonl,
        parse_query,
        write_sheet,
    )
    from sensorium.engine.index import SearchOptions
    from sensorium.engine.utils import ConfigError, check_writable

    if run is not None and len(places) > 1:
        raise ConfigError("--run: each of several indexes names its own run; leave it out")
    if aggregate is not Aggregate.max and group_by is None:
        raise ConfigError("--aggregate: adds up the rows of a group; pass --group-by COLUMN")

    if html is not None:
        check_writable(html, "--html", make=True)
    values = {"text": text, "image": image, "audio": audio, "mri": mri}
    parsed = parse_query({n: v for n, v in values.items() if v is not None}, MODALITIES, query)
    retrievers = [Retriever(p, run, device=device, precision=precision) for p in places]
    retriever = retrievers[0]
    options = {"where": where, "kind": search, "options": SearchOptions(nprobes, refine)}
    groups = {"group_by": group_by, "how": aggregate.value}
    second = None if rerank_run is None else (rerank_run, rerank_top)
    hits = find_hits(retrievers, parsed, k, second, {**options, **groups}, device)
    print(hits_to_jsonl(hits) if json else format_hits(hits))
    if html is not None:
        write_sheet(
            html,
            hits,
            retriever.previews(hits),
            title=f"{len(hits)} nearest in {', '.join(places)}",
            query=retriever.show(retriever.stream_of(parsed), parsed.value),
            note=f"{search} search{f', where {where}' if where else ''}; {retriever.run}",
        )
        typer.echo(str(html), err=True)


if __name__ == "__main__":  # through the verb, which reports a mistake in a line
    import runpy
    import sys

    sys.argv.insert(1, "retrieve")
    runpy.run_module("sensorium", run_name="__main__")
