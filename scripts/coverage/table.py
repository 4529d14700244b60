"""From the results of all rows to a Markdown page: how many rows pass each step, and what fails."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path

from .steps import OK

Results = Mapping[str, Mapping[str, str]]

LIBRARIES = ("transformers", "torch", "timm", "open_clip_torch", "monai", "peft")
CORE = (
    "build", "gradient", "logits", "ids", "causal", "padding", "inputs", "train",
    "forward", "library_tokens", "batches", "places",
)  # fmt: skip
"""Steps that a row must pass to be sound, where its kind has them."""


def page(results: Results, known: Collection[str] = (), about: str = "") -> str:
    """Return the page of all rows.

    known: every row that there is; those without results are listed as not run. about: how the
    results were made, where it was not `make coverage`.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    lines = [
        "# Coverage",
        "",
        "Which classes compose, step by step: every class is built tiny and random, put behind an",
        "image stream, and compared with the library's own call on the same weights. Made by",
        f"{about or '`make coverage`'} on {datetime.date.today().isoformat()}",
        f"with {versions}.",
        "",
        "A step is `ok`; `wrong` (no error, other numbers); `refused` (in one line, before",
        "anything runs); `error`; or `n/a` (the architecture or the library has no such thing).",
    ]
    kinds = list(dict.fromkeys(row.partition("/")[0] for row in (*results, *known)))
    for kind in kinds:
        rows = {row: steps for row, steps in results.items() if row.startswith(f"{kind}/")}
        lines += _section(kind, rows) if rows else ["", f"## {kind}"]
        names = [row.partition("/")[2] for row in known if row.startswith(f"{kind}/")]
        if absent := [name for name in names if f"{kind}/{name}" not in results]:
            lines += ["", f"Not run ({len(absent)} of {len(names)}): {', '.join(absent)}."]
    return "\n".join(lines) + "\n"


def status(result: str) -> str:
    """Return the first word of a result: `ok`, `wrong`, `refused`, `error` or `n/a`."""
    return result.partition(":")[0]


def passes(steps: Mapping[str, str], names: Collection[str] | None = None) -> bool:
    """Return whether every step (of `names`) is ok or does not apply."""
    chosen = [r for name, r in steps.items() if names is None or name in names]
    return all(status(result) in (OK, "n/a") for result in chosen)


def _section(kind: str, results: Results) -> list[str]:
    runs = {row: steps for row, steps in results.items() if steps.get("library") == OK}
    sound = sum(passes(steps, CORE) for steps in runs.values())
    whole = sum(passes(steps) for steps in runs.values())
    count = len(runs)
    share = f"{whole / count:.1%}" if count else "-"
    lines = [
        "",
        f"## {kind}",
        "",
        f"{len(results)} classes ran; the library itself runs {count} of them. Of "
        f"these {sound} are sound, and {whole} ({share}) pass every step that applies.",
        "",
        "| step | ok | refused | error | wrong | n/a |",
        "|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(name for steps in results.values() for name in steps))
    for name in names:
        counts = Counter(status(steps[name]) for steps in results.values() if name in steps)
        cells = " | ".join(str(counts[s]) for s in (OK, "refused", "error", "wrong", "n/a"))
        lines.append(f"| {name} | {cells} |")
    lines += ["", "| class | what does not pass |", "|---|---|"]
    for row, steps in results.items():
        bad = [f"{n}: {r}" for n, r in steps.items() if status(r) not in (OK, "n/a")]
        text = "<br>".join(bad).replace("|", "\\|") or "passes"
        lines.append(f"| {row.partition('/')[2]} | {text} |")
    return lines


def write(results: Results, path: Path, known: Collection[str] = (), about: str = "") -> None:
    """Write the page; the arguments are those of `page`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results, known, about), encoding="utf-8")
