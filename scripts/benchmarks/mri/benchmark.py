"""python -m sensorium.scripts.benchmarks.mri.benchmark [--out runs/mri_benchmark]

The whole way on generated heads: self-supervision (`configs/mri/dino.yaml`), alignment with reports
without and with grounding (`align.yaml`, `align_grounded.yaml`), heads on the frozen encoders from
cached features (`sequence.yaml`, `ventricle.yaml`, `localization.yaml`, `segmentation.yaml`, and
reports to find), and reports in words (`report.yaml`). Prints one table at 1, 10 and 100 % of the
labels, the comparisons that are required, and what generated reports are worth.

Every run is a folder below `--out`; complete ones are read, not trained again. Intervals are
the middle 95 % of a bootstrap over the test split's studies; they do not cover other seeds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import torch
import typer

from sensorium.engine.recipe import load_recipe
from sensorium.modalities.mri.phantom import Phantom
from sensorium.scripts.benchmarks.mri.baselines import BASELINES, IntensityBaselines
from sensorium.scripts.benchmarks.mri.bootstrap import draws
from sensorium.scripts.benchmarks.mri.metrics import Truth
from sensorium.scripts.benchmarks.mri.runs import (
    FEATURES,
    FROZEN,
    GROUNDED,
    HEADS,
    NOTHING,
    PLAIN,
    RANDOM,
    SLICED,
    SLICES,
    TOGETHER,
    Bench,
    Sizes,
    answers,
    heads_of,
    spent,
)
from sensorium.scripts.benchmarks.mri.tables import (
    Figures,
    cached_head,
    comparisons,
    own_reports,
    report_table,
    side_table,
    table,
)
from sensorium.scripts.benchmarks.timing import machine
from sensorium.tasks.text import Facts

SHARES = (0.01, 0.1, 1.0)


def truth_of(bench: Bench, cheap: IntensityBaselines) -> Truth:
    """Return the evaluated split, with the scores without any signal."""
    options = load_recipe("configs/mri/report.yaml").tasks["report"].options
    source = Phantom(split=cast(Any, bench.split), subjects=bench.sizes.held)
    truth = Truth(source, Facts(options["facts"], options["fact_tolerance"]))
    blind = truth.measures(cheap.answers("majority", bench.rows(1.0), bench.split))
    ones = np.ones((1, len(truth.studies)))
    truth.chance |= {name: float(blind[name].over(ones)[0]) for name in ("ventricle", "box")}
    shares = [float(row["mask"]().mean()) for row in map(source.__getitem__, range(len(source)))]
    truth.chance["dice"] = float(np.mean([2 * p / (1 + p) for p in shares if p]))
    return truth


class Job(NamedTuple):
    """What is to be done, when the jobs `after` are done."""

    call: Callable[[], object]
    after: tuple[str, ...] = ()


def jobs_of(bench: Bench, shares: Sequence[float]) -> dict[str, Job]:
    """Return all that is trained, the most urgent first; none precedes one that it waits
    for."""
    stages_of = {GROUNDED: ("align_grounded",), PLAIN: ("align",), RANDOM: (), SLICES: ()}
    jobs = {
        "dino": Job(partial(bench.stage, "dino")),
        f"{RANDOM} {FEATURES}": Job(partial(bench.features, RANDOM)),
        "align_grounded": Job(partial(bench.stage, "align_grounded", "dino"), ("dino",)),
        "align": Job(partial(bench.stage, "align", "dino"), ("dino",)),
        "report": Job(partial(bench.stage, "report", "align_grounded"), ("align_grounded",)),
    }
    for encoder in FROZEN:
        name = f"{encoder} {FEATURES}"
        jobs.setdefault(name, Job(partial(bench.features, encoder), stages_of[encoder]))
        for share in reversed(shares):
            jobs[f"{encoder} {share}"] = Job(partial(bench.heads, encoder, share), (name,))
    for share in reversed(shares):  # it needs the random encoder's grid
        job = Job(partial(bench.nothing, share), (f"{RANDOM} {FEATURES}",))
        jobs[f"{NOTHING} {share}"] = job
    return jobs


def work(todo: dict[str, Job], count: int) -> None:
    """Every job, `count` processes side by side, which share the cores."""
    if count == 1:
        for job in todo.values():
            job.call()
        return
    threads = max(1, (os.cpu_count() or 1) // count)
    spawn = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    waiting, done, running = dict(todo), set[str](), dict[Future[object], str]()
    with ProcessPoolExecutor(count, spawn, torch.set_num_threads, (threads,)) as pool:
        while waiting or running:
            startable = [name for name, job in waiting.items() if done.issuperset(job.after)]
            for name in startable[: count - len(running)]:
                running[pool.submit(waiting.pop(name).call)] = name
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                ended.result()
                done.add(running.pop(ended))


def figures(bench: Bench, truth: Truth, shares: Sequence[float]) -> Figures:
    """By share of the labels and row: a measure a column."""
    figures_of: Figures = {share: {} for share in shares}
    for share in shares:
        for encoder in FROZEN:
            predictions = {
                head: answers(bench.head(head, encoder, share), HEADS[head].task, bench.split)
                for head in heads_of(encoder)
            }
            figures_of[share][encoder] = truth.measures(predictions)
        folder = bench.nothing(share)
        predictions = {head: answers(folder, head, bench.split) for head in TOGETHER}
        figures_of[share][NOTHING] = truth.measures(predictions)
    return figures_of


def costs(bench: Bench) -> Iterator[str]:
    """CPU minutes of everything that was trained, by folder."""
    yield "| runs | CPU minutes | wall minutes |\n|---|---|---|"
    total = [0.0, 0.0]
    for folder in sorted(p for p in bench.out.iterdir() if p.is_dir()):
        times = [spent(p.parent) for p in folder.rglob("spent.json")]
        cpu, wall = sum(t.cpu for t in times) / 60, sum(t.wall for t in times) / 60
        total = [total[0] + cpu, total[1] + wall]
        yield f"| {folder.name} ({len(times)}) | {cpu:.1f} | {wall:.1f} |"
    yield f"| all | {total[0]:.1f} | {total[1]:.1f} |"


def main(
    out: Annotated[Path, typer.Option(help="where the runs are")] = Path("runs/mri_benchmark"),
    subjects: Annotated[int, typer.Option(help="with labels, four series each")] = 250,
    held: Annotated[int, typer.Option(help="of the split that is asked")] = 75,
    seen: Annotated[int | None, typer.Option(help="subjects of the stages before")] = None,
    steps: Annotated[list[str] | None, typer.Option(help="STAGE=N; else the recipe's")] = None,
    effort: Annotated[float, typer.Option(help="multiplies the frozen heads' steps")] = 1.0,
    batch: Annotated[int | None, typer.Option(help="of the stages; else the recipes'")] = None,
    share: Annotated[list[float] | None, typer.Option(help="of the labels")] = None,
    encoder: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the encoder")] = None,
    slices: Annotated[str | None, typer.Option(help="the encoder of slices, YAML")] = None,
    split: Annotated[str, typer.Option(help="that is asked")] = "test",
    jobs: Annotated[int, typer.Option(min=1, help="processes side by side")] = 1,
    resamples: Annotated[int, typer.Option(help="of the bootstrap")] = 2000,
) -> None:
    """Train missing runs, evaluate all, print markdown."""
    steps_of = {name: int(count) for name, _, count in (t.partition("=") for t in steps or ())}
    sizes = Sizes(subjects, held, seen, steps_of, effort, batch, tuple(encoder or ()))
    bench = Bench(out, sizes, slices or SLICED, split)
    work(jobs_of(bench, share or SHARES), jobs)
    cheap = IntensityBaselines(bench.head_recipe("sequence", RANDOM, 1.0), ("train", split))
    truth = truth_of(bench, cheap)
    results = figures(bench, truth, share or SHARES)
    for part, rows in results.items():
        rows |= {w: truth.measures(cheap.answers(w, bench.rows(part), split)) for w in BASELINES}
    drawn = draws(len(truth.studies), resamples)
    print(
        f"`{' '.join(['python -m sensorium.scripts.benchmarks.mri.benchmark', *sys.argv[1:]])}`\n"
    )
    print(f"{machine()}. Phantoms of one anatomy: no figure speaks of real heads.")
    print(f"{held} studies of the split {split}; 100 % are {bench.rows(1.0):,} labelled series\n")
    for lines in (
        table(results, truth, drawn),
        comparisons(results, truth, drawn),
        side_table(results, drawn),
        own_reports(bench, truth, drawn),
        report_table(bench, truth, drawn),
        costs(bench),
    ):
        print("\n".join(lines), end="\n\n")
    print(cached_head(bench, PLAIN))  # the report stage has filled the features of the other


if __name__ == "__main__":
    typer.run(main)
