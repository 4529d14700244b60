"""Rows of a run to look at: the inputs as their modality shows them, what was said, what was right.

How a prediction is shown follows from its form (a text, a label, numbers), never from the
task or the modality: `PREVIEW` of the modality turns a raw value into HTML.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from ..modalities.base import Source, StreamingSource
from .catalogue import load
from .errors import RecipeError
from .plan import RecipePlan
from .rows import open_split

LONG = 120
"""Characters beyond which texts want wider columns."""


@dataclass(frozen=True)
class Verdict:
    """right: None where a prediction is neither right nor wrong (a number, no reference).
    words: the words that differ from the reference are marked."""

    text: str
    wanted: list[str]
    right: bool | None
    note: str = ""
    words: bool = False

    @property
    def said(self) -> Markup:
        """The text as HTML; only rows that are shown come to this."""
        return _marked(self.text.split(), self.wanted) if self.words else escape(self.text)


@dataclass
class Sample:
    """inputs: (stream, HTML). asked: the prompt, where there is one."""

    key: str
    verdict: Verdict
    asked: str
    inputs: list[tuple[str, Markup]] = field(default_factory=list)


@dataclass
class Samples:
    """One split's grid. groups: (title, samples). asked: the prompt that all rows share.
    problem: why the inputs are not shown."""

    label: str
    count: int
    groups: list[tuple[str, list[Sample]]]
    asked: str = ""
    problem: str = ""

    @property
    def wide(self) -> bool:
        """True where some text is longer than a line or two."""
        shown = [sample.verdict for _, group in self.groups for sample in group]
        return any(len(text) > LONG for v in shown for text in (v.text, *v.wanted))


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The lines of a `predictions-*.jsonl`."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise RecipeError(f"{path}:{number}: {error}; evaluate the run again") from error
    return found


def pick(label: str, lines: Sequence[Mapping[str, Any]], count: int) -> Samples:
    """`count` rows, half of them wrong where there are so many, each the first of its kind."""
    every = [
        Sample(str(ln["key"]), judge(ln["prediction"], ln["target"]), prompt(ln["target"]))
        for ln in lines
    ]
    wrong = [s for s in every if s.verdict.right is False]
    right = [s for s in every if s.verdict.right is True]
    open_ = [s for s in every if s.verdict.right is None]
    half = count // 2
    many = min(len(wrong), max(half, count - len(right)))
    kinds = [("Wrong", wrong, many), ("Right", right, count - many)]
    left = count - sum(min(n, len(found)) for _, found, n in kinds)
    kinds.append(("Rows", open_, left))
    groups = [
        (f"{title}: {_first(min(n, len(found)), len(found))}", found[:n])
        for title, found, n in kinds
        if found[:n]
    ]
    asked = {s.asked for s in every}
    shared = asked.pop() if len(asked) == 1 else ""
    for sample in every if shared else ():
        sample.asked = ""
    return Samples(label, len(every), groups, shared)


def _first(shown: int, count: int) -> str:
    return f"all {count:,}" if shown == count else f"the first {shown:,} of {count:,}"


def judge(prediction: Any, target: Any) -> Verdict:
    """A prediction beside what was wanted, by the form that both have."""
    if not isinstance(prediction, Mapping) or not isinstance(target, Mapping):
        right = None if isinstance(prediction, float) else prediction == target
        return Verdict(_plain(prediction), [_plain(target)], right)
    if "text" in prediction:
        return _text(str(prediction["text"]), [str(r) for r in target.get("references") or ()])
    if "label" in prediction:
        return _label(prediction, target)
    return _values(prediction, target)


def _text(said: str, references: list[str]) -> Verdict:
    if not references:
        return Verdict(said, [], None)
    right = said.split() in [reference.split() for reference in references]
    return Verdict(said, references, right, words=not right)


def _marked(words: list[str], references: list[str]) -> Markup:
    """The words said; those that the nearest reference lacks are marked, `…` where it has more."""
    known = [reference.split() for reference in references]
    nearest = max(known, key=lambda r: difflib.SequenceMatcher(None, words, r).ratio())
    found: list[Markup] = []
    for kind, a, b, _, _ in difflib.SequenceMatcher(None, words, nearest).get_opcodes():
        text = " ".join(words[a:b]) or "…"
        found.append(escape(text) if kind == "equal" else Markup("<mark>{}</mark>").format(text))
    return Markup(" ").join(found)


def _label(prediction: Mapping[str, Any], target: Mapping[str, Any]) -> Verdict:
    said, score = prediction["label"], prediction.get("score")
    note = "" if score is None else f"score {score:.3f}"
    if "label" not in target:
        return Verdict(_plain(said), [], None, note)
    wanted = target["label"]
    several = isinstance(wanted, list) and isinstance(said, list)
    right = sorted(map(str, said)) == sorted(map(str, wanted)) if several else said == wanted
    return Verdict(_plain(said), [_plain(wanted)], right, note)


def _values(prediction: Mapping[str, Any], target: Mapping[str, Any]) -> Verdict:
    """Values by name. With numbers there is no right and wrong, but how far off they are."""
    shared = [name for name in prediction if name in target]
    numbers = [n for n in shared if isinstance(prediction[n], float)]
    off = ", ".join(f"{name} off by {abs(prediction[name] - target[name]):.3g}" for name in numbers)
    same = all(prediction[name] == target[name] for name in shared)
    right = None if numbers or not shared else same
    wanted = {name: target[name] for name in shared} if shared else dict(target)
    return Verdict(_plain(prediction), [_plain(wanted)] if wanted else [], right, off)


def _plain(value: Any) -> str:
    """A JSON value for a person: numbers short, names before their values."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def prompt(target: Any) -> str:
    """The texts of a prompt around its streams, each `◻`; empty where nothing is asked."""
    texts = target.get("prompt") if isinstance(target, Mapping) else None
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not any(str(text).strip() for text in texts):
        return ""
    return " ◻ ".join(str(text).strip() for text in texts).strip()


def show_inputs(samples: Samples, plan: RecipePlan, task: str, split: str) -> None:
    """Put the inputs of the picked rows in place, by key; `problem` says what went wrong."""
    wanted = {s.key: s for _, group in samples.groups for s in group}
    streams = plan.tasks[task].task.streams
    shows = {name: load(plan.streams[name].modality) for name in streams}
    try:
        rows = _rows(open_split(plan, task, split), set(wanted))
        for key, row in rows.items():
            for name in streams:
                raw = load(shows[name].READ)(row[name])
                wanted[key].inputs.append((name, Markup(load(shows[name].PREVIEW)(raw))))
    except (ValueError, OSError) as error:
        samples.problem = str(error)
        return
    missing = [key for key in wanted if key not in rows]
    if missing:
        samples.problem = (
            f"{len(missing)} rows, {missing[0]!r} the first, are no longer in the data"
        )


def _rows(source: Source, keys: set[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, row in _entries(source, keys):
        found.setdefault(key, row)
        if len(found) == len(keys):
            break
    return found


def _entries(source: Source, keys: set[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The rows of the keys; a row by index is made only where it is wanted."""
    if isinstance(source, StreamingSource):
        named = ((source.key(i), row) for i, row in enumerate(source))
        return (pair for pair in named if pair[0] in keys)
    places = (i for i in range(len(source)) if source.key(i) in keys)
    return ((source.key(i), source[i]) for i in places)
