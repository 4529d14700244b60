"""The training loop: plain, over 🤗 accelerate, exact on resume.

A step's loss is the sum over its items divided by their number over all processes and
accumulation steps: a mean of means is not the mean.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor

from ...modalities.base import StreamingSource
from ...tasks.batch import Batch
from ..checkpoint import Checkpoints
from ..data import (
    TRAIN,
    VALIDATION,
    Schedule,
    ShuffleBuffer,
    Skipped,
    TaskDataset,
    batches,
    handle_failures,
    open_split,
    task_dataset,
)
from ..evaluation import Scorer
from ..model import FeatureCacher, Model, place
from ..recipe import Train
from ..utils import Interrupted, RecipeError, RunError, RunLogger, Signals, derive
from .optim import build_optimizer, lr_schedule, set_lr
from .validation import Validation


@dataclass
class Loop:
    """One training run of one process."""

    settings: Train
    folder: Path
    model: Model
    accelerator: Accelerator
    log: RunLogger
    rows: dict[str, TaskDataset] = field(default_factory=dict)
    skipped: Skipped = field(default_factory=Skipped)
    validation: Validation | None = None
    signals: Signals = field(default_factory=Signals)

    def prepare(self) -> None:
        """Open the data, fill the stores, and put what is needed on the device."""
        model, plan, device = self.model, self.model.plan, self.accelerator.device
        settings, encoders = self.settings, model.encoders()
        held = {}
        for name in plan.tasks:
            source = open_split(plan, name, TRAIN)
            if isinstance(source, StreamingSource):
                source = ShuffleBuffer(source, settings.seed)
            self.rows[name] = task_dataset(
                plan, encoders, name, source, training=True, augment=True
            )
            if settings.validate_ is not None:
                held[name] = task_dataset(plan, encoders, name, open_split(plan, name, VALIDATION))
        progress = self.log.progress
        filler = FeatureCacher(
            plan, model, device, settings.precision, settings.batch_size, progress
        )
        with self.accelerator.main_process_first():
            served = filler.attach([*self.rows.values(), *held.values()])
        place(model, device, served)
        if settings.validate_ is not None:
            scorer = Scorer(model, settings.batch_size, self.accelerator, self.log)
            rule = settings.validate_
            self.validation = Validation(rule, held, model, scorer, self.folder, self.log)
            self.validation.begin()
        self.collate = model.collator()
        self.optimizer: Any = build_optimizer(model, settings)
        self.lr_factor = lr_schedule(settings)
        self.net: Any = model
        if self.accelerator.num_processes > 1:
            self._ignore(served)
            self.net = self.accelerator.prepare_model(model, device_placement=False)
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer, device_placement=False)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", settings.checkpoint.keep)

    def _ignore(self, served: set[str]) -> None:
        """Encoders whose features are stored take no part in the processes' exchange."""
        names = [f"streams.{s}.encoder." for s in served]
        every = [*self.model.named_parameters(), *self.model.named_buffers()]
        ignored = [n for n, _ in every if n.startswith(tuple(names))] if names else []
        torch.nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            self.model, ignored
        )

    def run(self, resume: bool) -> None:
        """Every step to the end, or to a signal."""
        start = self._resume() if resume else 0
        self.model.step, self.model.steps = start, self.settings.steps
        stream = self._batches(start)
        self.log.start(self.settings.steps, start, self.folder.name)
        with self.signals:
            for step in range(start, self.settings.steps):
                self._step(step, stream)
                if self._checked(step + 1):
                    break
        self.log.close()
        if len(self.skipped):
            self.log.info(self.skipped.summary())

    def _resume(self) -> int:
        found = self.checkpoints.newest()
        if found is None:
            self.log.info(f"{self.folder}: no checkpoint yet, beginning at step 0")
            self.log.rewind(-1)
            return 0
        state = self.checkpoints.read(found, self.model, self.optimizer.optimizer)
        if state["processes"] != self.accelerator.num_processes:
            raise RecipeError(
                f"{found}: was written by {state['processes']} processes, there are now "
                f"{self.accelerator.num_processes}; resume with as many"
            )
        if self.accelerator.scaler is not None and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.validation is not None:
            self.validation.state = state["validation"]
        self.log.rewind(state["step"])
        return int(state["step"])

    def _batches(self, step: int) -> Iterator[Batch]:
        settings, accelerator = self.settings, self.accelerator
        lengths = {
            name: None if isinstance(rows.source, ShuffleBuffer) else len(rows.source)
            for name, rows in self.rows.items()
        }
        schedule = Schedule(
            lengths,
            settings.batch_size,
            settings.seed,
            settings.gradient_accumulation_steps,
            accelerator.num_processes,
            accelerator.process_index,
            settings.sampler.type,
            settings.task_weights,
            self._by(),
        )
        return batches(self.rows, schedule.batches(step), self.collate, settings.num_workers)

    def _by(self) -> dict[str, list[object]]:
        """The values of the column that the sampler looks at."""
        settings = self.settings
        sampler = settings.sampler
        if sampler.column is None:
            return {}
        found = {}
        for name, rows in self.rows.items():
            if isinstance(rows.source, ShuffleBuffer):
                raise RecipeError(
                    f"train.sampler: {sampler.type} looks at every row first, and tasks.{name} is "
                    "a stream; give it a `limit`, or say type: shuffle"
                )
            found[name] = [rows.source[i][sampler.column] for i in range(len(rows.source))]
        return found

    def _step(self, step: int, stream: Iterator[Batch]) -> None:
        began = time.perf_counter()
        settings, device = self.settings, self.accelerator.device
        self._seed(step)
        lr = set_lr(self.optimizer, self.lr_factor(step))
        share = 1.0 / (settings.batch_size * settings.gradient_accumulation_steps)
        sums: dict[str, Tensor] = {}
        keys: list[str] = []
        for turn in range(settings.gradient_accumulation_steps):
            batch = next(stream)
            self._settle(batch.task, batch.failed)
            keys += batch.keys
            last = turn == settings.gradient_accumulation_steps - 1
            with self._exchange(last), self.accelerator.autocast():
                loss = self.net(batch.to(device))
            self._settle(batch.task, loss.failed)
            _add(sums, "loss", loss.total)
            _add(sums, "count", torch.as_tensor(loss.count, device=device, dtype=torch.float32))
            for name, value in loss.parts.items():
                _add(sums, name, value)
            with self._exchange(last):
                self.accelerator.backward(loss.total * share)
        totals = self._over_processes(sums)
        number = totals.pop("count")
        value = totals["loss"] / max(number, 1.0)
        if not math.isfinite(value):
            raise RunError(
                f"step {step + 1}: the loss is {value}; rows {', '.join(keys[:8])}"
                f"{' ...' if len(keys) > 8 else ''}; lower train.optimizer.lr, or look at these "
                "rows"
            )
        if number:  # else no process could read a row of this step
            self._update(self.accelerator.num_processes / (share * number))
        self.optimizer.zero_grad(set_to_none=True)
        self.model.on_step_end(step + 1, settings.steps)
        self._report(step + 1, batch.task, totals, number, lr, time.perf_counter() - began)

    def _settle(self, task: str, failed: Sequence[tuple[str, str]]) -> None:
        """Report rows that could not be read or learned, or stop at the first."""
        where = f"tasks.{task}.data.train"
        skip = self.model.plan.recipe.tasks[task].data[TRAIN].on_error == "skip"
        for line in handle_failures(failed, where, skip, self.skipped):
            self.log.info(line)

    def _seed(self, step: int) -> None:
        """Python's, numpy's and torch's generators: what a step draws depends on (seed, step,
        process) alone, so that there is no state to keep."""
        set_seed(derive(self.settings.seed, "step", step, self.accelerator.process_index) % 2**32)

    def _exchange(self, last: bool) -> Any:
        """Gradients travel between processes at the last accumulation step alone."""
        if last or self.accelerator.num_processes == 1:
            return torch.enable_grad()
        return self.accelerator.no_sync(self.net)

    def _over_processes(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Sums over all processes; one whose rows could not be read knows no parts of a loss."""
        values = torch.stack([v.detach().to(torch.float64) for v in sums.values()]).tolist()
        totals = dict(zip(sums, values, strict=True))
        if self.accelerator.num_processes > 1:
            found, totals = gather_object([totals]), {}
            for name in dict.fromkeys(itertools.chain(*found)):
                totals[name] = sum(each.get(name, 0.0) for each in found)
        return totals

    def _update(self, factor: float) -> None:
        self.accelerator.unscale_gradients(self.optimizer)
        trained = [p for p in self.model.parameters() if p.grad is not None]
        for parameter in trained:
            parameter.grad.mul_(factor)  # type: ignore[union-attr]
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, self.settings.max_grad_norm)
        self.optimizer.step()

    def _report(
        self,
        step: int,
        task: str,
        totals: Mapping[str, float],
        number: float,
        lr: float,
        seconds: float,
    ) -> None:
        parts = {name: value / max(number, 1.0) for name, value in totals.items()}
        if step % self.settings.log_every == 0 or step == self.settings.steps:
            rows = self.settings.batch_size * self.settings.gradient_accumulation_steps
            speed = rows * self.accelerator.num_processes / seconds
            line = {"step": step, "task": task, **parts, "lr": lr}
            self.log.write({**line, "samples_per_s": round(speed, 1)})
            self.log.step(loss=parts["loss"])
        else:
            self.log.step()

    def _checked(self, step: int) -> bool:
        """Validation, checkpoint and signals after a step; True where training ends here."""
        last, ended = step == self.settings.steps, False
        rule = self.settings.validate_
        if rule and self.validation and (step % rule.every == 0 or last):
            ended = self.validation.after(step)
        every, stopped = self.settings.checkpoint.every, self._stopped()
        if stopped or (every and step % every == 0):
            place = self._checkpoint(step)
            if stopped and not last:
                raise Interrupted(f"stopped at step {step}, {place} written; go on with --resume")
        return ended

    def _stopped(self) -> bool:
        """True where any process was asked to stop: all stop after the same step."""
        asked = self.signals.stop is not None
        if self.accelerator.num_processes == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _checkpoint(self, step: int) -> Path:
        validation = self.validation.state if self.validation is not None else {}
        extra = {"processes": self.accelerator.num_processes, "validation": validation}
        if self.accelerator.scaler is not None:
            extra["scaler"] = self.accelerator.scaler.state_dict()
        if self.accelerator.is_main_process:
            self.checkpoints.write(step, self.model, self.optimizer.optimizer, extra)
        self.accelerator.wait_for_everyone()
        return self.checkpoints.place(step)


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value.detach() if name in sums else value.detach()
