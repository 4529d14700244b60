"""The results file: a line of JSON for each row that ended, so that a run can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .steps import OK


@dataclass(frozen=True)
class Row:
    """The result of a row. chosen: the requested steps; all if empty. seconds: of
    processor time that it had. ended: seconds since 1970."""

    row: str
    steps: Mapping[str, str]
    chosen: tuple[str, ...] = ()
    seconds: float = 60.0
    ended: float = 0.0

    @property
    def kind(self) -> str:
        return self.row.partition("/")[0]

    @property
    def name(self) -> str:
        return self.row.partition("/")[2]


def append(path: Path, row: Row) -> None:
    """Add the line of a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def read(path: Path) -> list[Row]:
    """Return the rows of a file in order; none if there is no file.

    A last line that was cut off, by a run that was killed, is left out.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows.append(Row(**{**fields, "chosen": tuple(fields["chosen"])}))
    return rows


def latest(rows: Iterable[Row]) -> dict[str, Row]:
    """Return the last result of each row, by its name."""
    return {row.row: row for row in rows}


def status(result: str) -> str:
    """Return the first word of a result: `ok`, `wrong`, `refused`, `error`, `limit` or `n/a`."""
    return result.partition(":")[0]


def passes(steps: Mapping[str, str], names: Collection[str] | None = None) -> bool:
    """Return whether every step (of `names`) is ok or does not apply."""
    chosen = [r for name, r in steps.items() if names is None or name in names]
    return all(status(result) in (OK, "n/a") for result in chosen)
