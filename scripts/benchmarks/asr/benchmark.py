"""python -m sensorium.scripts.benchmarks.asr.benchmark runs/asr/sentences_llm \
    runs/asr/sentences_diffusion

Four ways from one frozen encoder to words: the CTC head alone (the prior), a decoder token by
token (the faster of transformers' `generate` and a bare cached loop), the diffusion decoder
from nothing but masks, and from the prior. Word error rates by jiwer, milliseconds of decoding (the
prompt's reading in, encoder and CTC out), end to end, real-time factor, at batch 1 and 8; the
same with the decoder's sound dealt to other rows; a paired bootstrap; how fast denoising could be.

Required: diffusion from the prior has fewer errors than its prior, and other rows' sound ruins it.
Target: 4.44 times the speed of token by token (dLLM-ASR, arXiv 2601.17902) at 40 to 60 tokens,
within 0.5 points of its errors; CTC 4 times as fast as token by token, end to end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer

from sensorium.engine.checkpoint import load_model
from sensorium.engine.model import Model
from sensorium.engine.utils import pick
from sensorium.scripts.benchmarks.asr.systems import (
    TASK,
    Row,
    SystemOutput,
    autoregress,
    bench_rows,
    diffuse,
    encode_audio,
)
from sensorium.scripts.benchmarks.timing import machine
from sensorium.tasks.diffusion import DiffusionASR
from sensorium.tasks.speech import error_counts, interval, normalizer_of, resampled

PAPER = 4.44
TRIED = 12
"""Rows on which the two token-by-token loops are compared."""

Way = Callable[[Sequence[Row]], SystemOutput]


def over(rows: Sequence[Row], size: int, way: Way) -> SystemOutput:
    """Every row, in batches of like lengths; in the rows' own order."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].tokens)
    places: list[int] = []
    all_of = SystemOutput()
    way([rows[i] for i in order[:size]])  # a first call warms up
    for start in range(0, len(order), size):
        mine = order[start : start + size]
        output = way([rows[i] for i in mine])
        places += mine
        for name, values in vars(output).items():
            getattr(all_of, name).extend(values)
    back = np.argsort(places)
    return SystemOutput(*([values[i] for i in back] for values in vars(all_of).values()))


def heard_first(rows: Sequence[Row]) -> SystemOutput:
    """Evaluate the CTC head alone."""
    return SystemOutput(
        [row.prior.text for row in rows], [0] * len(rows), [row.ctc for row in rows],
        [0.0] * len(rows),
    )  # fmt: skip


class Errors:
    """Word errors `[rows]` of each way, against the rows' references."""

    def __init__(self, rows: Sequence[Row], normalizer: str) -> None:
        self.read = normalizer_of(cast(Any, normalizer))
        self.known = [self.read(row.target["text"]) for row in rows]

    def of(self, output: SystemOutput) -> tuple[np.ndarray, np.ndarray]:
        return error_counts(self.known, [self.read(text) for text in output.texts])


def table(rows: Sequence[Row], ways: dict[str, SystemOutput], errors: Errors) -> list[str]:
    """Return a line a way: errors, passes, decoding, end to end, real time."""
    lines = [
        "| way | WER % (95 %) | passes | decoding ms | end to end ms | real-time factor | speed |",
        "|---|---|---|---|---|---|---|",
    ]
    slow: float | None = None
    sound = 1000 * float(np.mean([row.seconds for row in rows]))
    for name, output in ways.items():
        wrong, words = errors.of(output)
        low, high = interval(wrong, words)
        needs_ctc = "prior" in name and "without" not in name
        before = [row.encoder + row.ctc * (needs_ctc and name != "prior alone") for row in rows]
        whole = float(np.mean(before)) + float(np.mean(output.ms))
        slow = whole if name.startswith("token") else slow
        ratio = f"{slow / whole:.2f}" if slow else ""
        lines.append(
            f"| {name} | {100 * wrong.sum() / words.sum():.1f} ({100 * low:.1f} to "
            f"{100 * high:.1f}) | {np.mean(output.passes):.1f} | {np.mean(output.ms):.1f} | "
            f"{whole:.1f} | {whole / sound:.4f} | {ratio} |"
        )
    return lines


def lengths(rows: Sequence[Row], ways: dict[str, SystemOutput], errors: Errors) -> list[str]:
    """Errors and decoding by length of the text."""
    lines = ["| tokens | rows | " + " | ".join(f"{n}: WER %, ms" for n in ways) + " |"]
    lines.append("|---|---|" + "---|" * len(ways))
    counted = {name: errors.of(output) for name, output in ways.items()}
    for low, high in ((25, 39), (40, 60)):
        at = [i for i, row in enumerate(rows) if low <= row.tokens <= high]
        if not at:
            continue
        cells = [
            f"{100 * counted[n][0][at].sum() / counted[n][1][at].sum():.1f}, "
            f"{np.mean([output.ms[i] for i in at]):.1f}"
            for n, output in ways.items()
        ]
        lines.append(f"| {low} to {high} | {len(at)} | " + " | ".join(cells) + " |")
    return lines


def speed(rows: Sequence[Row], slow: SystemOutput, fast: SystemOutput) -> str:
    """Return how much faster denoising is at 40 to 60 tokens, and how fast it could be here."""
    at = [i for i, row in enumerate(rows) if 40 <= row.tokens <= 60]
    prefill = float(np.mean([slow.prefill[i] for i in at]))
    steps = float(np.mean([slow.passes[i] for i in at]))
    passes = float(np.mean([fast.passes[i] for i in at]))
    step = (float(np.mean([slow.ms[i] for i in at])) - prefill) / steps
    read = float(np.mean([fast.prefill[i] for i in at]))
    pass_ms = (float(np.mean([fast.ms[i] for i in at])) - read) / max(passes, 1e-9)
    allowed = ((prefill + steps * step) / PAPER - read) / pass_ms
    ratio = (prefill + steps * step) / (read + passes * pass_ms)
    verdict = "; under 2 on this machine" if ratio < 2 else ""
    return (
        f"S = ({prefill:.2f} + {steps:.1f} x {step:.2f}) / "
        f"({read:.2f} + {passes:.1f} x {pass_ms:.2f}) = {ratio:.2f}{verdict}; "
        f"{PAPER} times would allow {allowed:.1f} passes"
    )


def compared(first: SystemOutput, second: SystemOutput, errors: Errors) -> str:
    """The difference of two rates in points, with the middle 95 % of paired resamples."""
    a, words = errors.of(first)
    b, _ = errors.of(second)
    difference = 100 * (resampled(a, words) - resampled(b, words))
    low, high = np.quantile(difference, [0.025, 0.975])
    return f"{100 * (a.sum() - b.sum()) / words.sum():+.2f} points ({low:+.2f} to {high:+.2f})"


def contest(
    llm: Model, diffusion: Model, rows: Sequence[Row], size: int, most: int
) -> dict[str, SystemOutput]:
    """Every way over the rows, in batches of `size`."""
    loops: dict[str, Way] = {
        "generate": lambda some: autoregress(llm, some, False, most),
        "bare loop": lambda some: autoregress(llm, some, True, most),
    }
    tried = {n: np.mean(over(rows[:TRIED], size, way).ms) for n, way in loops.items()}
    best = min(tried, key=lambda n: float(tried[n]))
    dealt = {id(row): rows[i - 1] for i, row in enumerate(rows)}
    return {
        f"token by token ({best})": over(rows, size, loops[best]),
        "prior alone": heard_first(rows),
        "diffusion without prior": over(rows, size, lambda s: diffuse(diffusion, s, False)),
        "diffusion with prior": over(rows, size, lambda s: diffuse(diffusion, s, True)),
        "with prior, others' sound": over(
            rows, size, lambda s: diffuse(diffusion, s, True, [dealt[id(row)] for row in s])
        ),
    }


def main(
    llm: Annotated[str, typer.Argument(help="the run of the token-by-token decoder")],
    diffusion: Annotated[str, typer.Argument(help="the run of the diffusion decoder")],
    split: Annotated[str, typer.Option(help="of the diffusion recipe's data")] = "test",
    count: Annotated[int, typer.Option(help="rows at most")] = 300,
    device: Annotated[str, typer.Option(help="cuda, xpu, mps or cpu")] = "cpu",
    normalizer: Annotated[str, typer.Option(help="unicode, basic, english or none")] = "unicode",
    threshold: Annotated[float | None, typer.Option(help="in place of the recipe's")] = None,
) -> None:
    """Compare two runs on the same rows; print markdown."""
    models = [load_model(folder).to(pick(device)).eval() for folder in (llm, diffusion)]
    task = cast(DiffusionASR, models[1].task(TASK))
    task.threshold = task.threshold if threshold is None else threshold
    rows = bench_rows(models[1], split, 25, 60, count)
    errors, most = Errors(rows, normalizer), 2 * max(row.tokens for row in rows)
    sizes = [sum(p.numel() for p in cast(torch.nn.Module, m.backbone).parameters()) for m in models]
    print(
        f"`{' '.join(['python -m sensorium.scripts.benchmarks.asr.benchmark', *sys.argv[1:]])}`\n"
    )
    print(f"{machine()}; {'CPU time' if device == 'cpu' else 'wall time'}, milliseconds a row")
    print(
        f"{len(rows)} rows of {split}, 25 to 60 tokens; decoders of {sizes[0]:,} and {sizes[1]:,}"
    )
    print(f"parameters; threshold {task.threshold}; WER after the normalizer {normalizer!r}")
    for size in (1, 8):
        encode_audio(models[1], rows, size)
        ways = contest(models[0], models[1], rows, size, most)
        slow_name, (slow, first, _, fast, other) = next(iter(ways)), ways.values()
        print(f"\nBatch {size}\n\n" + "\n".join(table(rows, ways, errors)))
        print("\n" + "\n".join(lengths(rows, ways, errors)))
        print(f"\n- 40 to 60 tokens: {speed(rows, slow, fast)}")
        print(f"- with prior, against the prior alone: {compared(fast, first, errors)}")
        print(f"- with prior, against {slow_name}: {compared(fast, slow, errors)}")
        print(f"- others' sound, against its own: {compared(other, fast, errors)}")


if __name__ == "__main__":
    typer.run(main)
