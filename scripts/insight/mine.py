"""sensorium mine bitext english/ german/ --out pairs.jsonl

METHOD: paraphrases (of one index), shared (its rows of one value of --by), bitext, negatives and
consistent (of two indexes, whose rows belong together by --by, or by key).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.scripts.info import JsonOption, print_result


class Method(StrEnum):
    """What is mined."""

    paraphrases = "paraphrases"
    shared = "shared"
    bitext = "bitext"
    negatives = "negatives"
    consistent = "consistent"


class Margin(StrEnum):
    """How a cosine is compared with those of the neighbours."""

    ratio = "ratio"
    distance = "distance"


SIDES = {Method.paraphrases: 1, Method.shared: 1}
"""Indexes of a method; of the others two."""


def mine_lines(
    method: Method, first: Any, second: Any, options: Mapping[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """Return the rows that are written. options: those of the command."""
    from sensorium.engine.embedding import (
        as_lines,
        bitext,
        consistent,
        hard_negatives,
        paraphrases,
        shared,
    )

    k, threshold = options["k"], options["threshold"]
    if method is Method.paraphrases:
        pairs = paraphrases(first, k, 0.8 if threshold is None else threshold)
        return as_lines(pairs, first, second)
    if method is Method.shared:
        return as_lines(shared(first), first, second)
    if method is Method.bitext:
        ratio = options["margin"] == Margin.ratio.value
        least = float(ratio) if threshold is None else threshold
        pairs = bitext(first, second, k, least, options["margin"])
        return as_lines(pairs, first, second)
    if method is Method.negatives:
        rows = hard_negatives(first, second, k, options["skip"], options["below"])
        return (
            {
                "first": first.texts[row],
                "second": second.texts[positive],
                "negatives": [second.texts[i] for i in others],
            }
            for row, positive, others in rows
        )
    return (
        {"first": first.texts[row], "second": second.texts[positive], "rank": rank}
        for row, positive, rank in consistent(first, second, k)
    )


def mine(
    method: Annotated[Method, typer.Argument(help="what is mined")],
    places: Annotated[list[str], typer.Argument(metavar="INDEX...", help="one index or two")],
    out: Annotated[Path, typer.Option(help="the JSON lines that are written")] = Path(
        "mined.jsonl"
    ),
    by: Annotated[
        str | None, typer.Option(help="the column whose equal values belong together")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="neighbours; of negatives how many")] = 4,
    threshold: Annotated[
        float | None, typer.Option(help="the least score: 0.8 of a cosine, 1 of a margin")
    ] = None,
    margin: Annotated[
        Margin, typer.Option(help="of bitext: a cosine divided by the neighbours', or less them")
    ] = Margin.ratio,
    skip: Annotated[
        int, typer.Option(min=0, help="of negatives: the nearest that are passed over")
    ] = 0,
    below: Annotated[
        float, typer.Option(help="of negatives: how far below the positive's cosine they are")
    ] = 0.0,
    json_: JsonOption = False,
) -> None:
    """Mine training pairs from indexes of embed: paraphrases, translations, hard negatives."""
    from sensorium.engine.embedding import read_rows
    from sensorium.engine.index import open_index
    from sensorium.engine.utils import ConfigError, check_writable

    check_writable(out, "--out", make=True)
    count = SIDES.get(method, 2)
    if len(places) != count:
        raise ConfigError(f"mine: {method.value} reads {count} index, found {len(places)}")
    if method is Method.shared and by is None:
        raise ConfigError("--by: shared pairs rows of one value of a column; name it")
    sides = [read_rows(open_index(place), by) for place in places]
    first, second = sides[0], sides[-1]
    options = {"k": k, "threshold": threshold, "margin": margin.value, "skip": skip, "below": below}
    lines = mine_lines(method, first, second, options)
    written = 0
    with out.open("w", encoding="utf-8") as file:
        for written, line in enumerate(lines, 1):  # noqa: B007
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    text = f"{out}: {written} rows of {len(first)}"
    print_result({"out": str(out), "rows": written, "of": len(first)}, text, json_)


if __name__ == "__main__":
    typer.run(mine)
