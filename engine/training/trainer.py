"""The trainer: plain, over 🤗 accelerate, exact on resume.

A step's loss is the sum over its items divided by their number over all processes and
accumulation steps: a mean of means is not the mean. Losses and counts stay on the device; the
trainer waits for it only where it logs, validates or writes a checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ...tasks.base import Loss
from ...tasks.batch import Batch
from ..checkpoint import CHECKPOINTS, Checkpoints, nonfinite_tensors, rows_identity
from ..data import TRAIN, VALIDATION, Layout, SkippedRows, handle_failures, worker_death
from ..evaluation import Evaluator
from ..model import FeatureCacher, Model
from ..model.parameters import compile_blocks, untrained_adapters
from ..recipe import Train
from ..utils import (
    GracefulStop,
    HostSum,
    Interrupted,
    RunLogger,
    RuntimeFailure,
    WorkerDied,
    derive_seed,
    gather,
    seed_all,
)
from .batches import Datasets, open_data, training_batches
from .callbacks import build_callbacks
from .optim import build_optimizer, lr_schedule, set_lr
from .parallel import parallel_strategy, profiled_step
from .resume import save_loop
from .totals import FiniteCheck, LearnedCheck, StepTotals
from .validation import Validator


class Trainer:
    """One training run of one process.

    `batches` and `step` may be overridden, for example by a trainer that alternates rollouts and
    updates. datasets: the tasks' training rows. global_step: optimizer steps that are done.
    should_stop: end after this step. callbacks: those of the recipe, in its order. stop: entered
    while it trains and while the run is saved. allowed_changes: keys of the recipe that may differ
    from those that the run began with.
    """

    def __init__(
        self,
        settings: Train,
        folder: Path,
        model: Model,
        accelerator: Accelerator,
        log: RunLogger,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.model, self.accelerator, self.log = model, accelerator, log
        self.global_step, self.should_stop = 0, False
        self.datasets: Datasets = {}
        self.validator: Validator | None = None
        self.callbacks = build_callbacks(model.plan.recipe.callbacks)
        self.skipped = SkippedRows()
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, settings.checkpoint.keep)
        self._failures = [(*row, reason) for row, reason in model.plan.unfit_rows.items()]
        self._learned = LearnedCheck()
        self.stop = GracefulStop()
        self.allowed_changes: Sequence[str] = ()
        self.rows: dict[str, str] = {}
        self._nonfinite: set[str] = set()
        self._between_steps = False  # waiting for the first rows of a step
        self.finite = FiniteCheck(accelerator, settings.steps)
        self._host_sum = HostSum(accelerator)
        self.layout = Layout(accelerator.num_processes, settings.gradient_accumulation_steps)
        self.parallel = parallel_strategy(model, settings, accelerator)

    def prepare(self) -> None:
        """Open the data, fill the stores, and move the modules to the device."""
        model, settings, accelerator = self.model, self.settings, self.accelerator
        self.datasets, held_out = open_data(model, settings, self.log.info)
        cacher = FeatureCacher(
            model.plan,
            model,
            accelerator.device,
            settings.precision,
            settings.batch_size,
            self.log.progress,
        )
        rows = [*self.datasets.values(), *held_out.values()]
        served = cacher.attach_together(rows, accelerator)
        if settings.compile:
            named = settings.compile if isinstance(settings.compile, str) else None
            compile_blocks((c.module for c in model.components), named)
        self.parallel.place(served)
        if settings.validate_ is not None:
            scorer = Evaluator(model, settings.batch_size, accelerator, self.log)
            rule = settings.validate_
            self.validator = Validator(
                rule, held_out, model, scorer, self.folder, self.log, self.parallel.whole
            )
            self.validator.check_metric_exists()
        self.rows = rows_identity(self.datasets, TRAIN) | rows_identity(held_out, VALIDATION)
        self._nonfinite = nonfinite_tensors(model)
        self.optimizer: Any = build_optimizer(model, settings)
        self.lr_factor = lr_schedule(settings)
        self.parallel.wrap(served)
        self.optimizer = accelerator.prepare_optimizer(self.optimizer, device_placement=False)

    def run(self) -> None:
        """Train to the last step, to an early end or to a signal."""
        self.model.step, self.model.steps = self.global_step, self.settings.steps
        for callback in self.callbacks:
            callback.on_train_begin(self)
        stream = self.batches()
        self.log.start(self.settings.steps, self.global_step, self.folder.name)
        self._began, self._logged_step = time.perf_counter(), self.global_step
        while self.global_step < self.settings.steps and not self.should_stop:
            self._seed()
            lr = set_lr(self.optimizer, self.lr_factor(self.global_step))
            with self._worker_deaths(), self._profiled():
                totals = self.step(stream)
            self.global_step += 1
            self._end_step(totals, lr)
            self._validate_and_save()
        self.check_finite()
        self._report_failures()
        self.log.close()
        for line in [*self.skipped.lines(gather_object), *untrained_adapters(self.model)]:
            self.log.info(line)
        self._learned.raise_if_nothing(self.skipped)

    @contextlib.contextmanager
    def _worker_deaths(self) -> Iterator[None]:
        """Save the model if a process that loads rows was killed between two steps."""
        try:
            yield
        except RuntimeError as raised:
            error = raised if isinstance(raised, WorkerDied) else worker_death(raised)
            if error is None:
                raise
            if not self._between_steps or self.accelerator.num_processes > 1:
                raise error from raised
            path = save_loop(self)
            raise WorkerDied(f"{error}; {path} written, go on with --resume") from raised

    def _profiled(self) -> contextlib.AbstractContextManager[Any]:
        """Return the profiler of the next step if it is the one to be profiled."""
        if self.global_step + 1 != self.settings.profile:
            return contextlib.nullcontext()
        return profiled_step(self.folder, self.global_step + 1, self.accelerator.process_index)

    def _seed(self) -> None:
        """Seed Python's, numpy's and torch's generators: the draws of a step depend on (seed, step,
        process) alone, so that there is no state to keep."""
        names = ("step", self.global_step, self.accelerator.process_index)
        seed_all(derive_seed(self.settings.seed, *names) % 2**32)

    def batches(self) -> Iterator[Batch]:
        """Return this process's batches from `global_step` on, in the order of the steps."""
        place = self.accelerator, self.global_step, self.layout
        return training_batches(self.model, self.datasets, self.settings, *place)

    def step(self, batches: Iterator[Batch]) -> StepTotals:
        """Take one optimizer step: forward and backward of `gradient_accumulation_steps` batches,
        then the update. Return the sums of its losses."""
        count = self.settings.gradient_accumulation_steps
        self.model.logs = self._logs(self.global_step + 1)
        totals = StepTotals(self.accelerator.device, parts=self.model.logs)
        for index in range(count):
            self._between_steps = index == 0
            batch = next(batches)
            self._between_steps = False
            totals.add(batch, self.backward(batch, last=index == count - 1))
        self.update(totals)
        return totals

    def backward(self, batch: Batch, last: bool = True) -> Loss:
        """Add the gradients of a batch's loss, and reduce them at the `last` one of a step."""
        self.skipped.add_cut(batch)
        self._handle_failures(batch.task, batch.failed)
        self.parallel.before_forward()
        with self.parallel.grad_sync(last), self.accelerator.autocast():
            loss: Loss = self.parallel.net(batch.to(self.accelerator.device))
        self._handle_failures(batch.task, loss.failed)
        with self.parallel.grad_sync(last):
            self.parallel.backward(loss.total * self._loss_scale)
        return loss

    @property
    def _loss_scale(self) -> float:
        """Scale of a loss while the count of its step's items is not known."""
        return 1.0 / (self.settings.batch_size * self.settings.gradient_accumulation_steps)

    def update(self, totals: StepTotals) -> None:
        """Divide the gradients by the step's items over all processes, clip them and step the
        optimizer. If no process could read a row of this step, or if a gradient is not finite,
        nothing changes."""
        if self._learned.add(self._host_sum(totals.num_items)):
            self.accelerator.unscale_gradients(self.optimizer)
            grads = self.parallel.gradients()
            count = totals.count(self.accelerator)
            scale = self.accelerator.num_processes / (self._loss_scale * count)
            scale = torch.where(count > 0, scale, 0.0)
            norm = self.parallel.norm(grads) * scale
            if self.settings.max_grad_norm is not None:
                scale = scale * (self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(grads, scale)
            is_finite = self.finite.add_norm(self.global_step + 1, norm, grads)
            if is_finite or self.accelerator.scaler is not None:  # the scaler skips by itself
                self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _end_step(self, totals: StepTotals, lr: float) -> None:
        """Call the tasks after a step, and log it if it is its turn."""
        step, logs = self.global_step, self._logs(self.global_step)
        self.finite.add(step, totals)
        if logs:
            self.finite.raise_if_not()
        self.model.on_step_end(step, self.settings.steps)
        for callback in self.callbacks:
            callback.on_step_end(self)
        if logs or self.accelerator.num_processes == 1:
            self._report_failures()
        values = {}
        if logs:
            means = totals.read(self.accelerator)
            line = {"step": step, "task": totals.task, **means, "lr": lr}
            skipped, text = self.finite.report()
            if skipped:
                line["skipped_steps"] = skipped
                self.log.warn(text)
            self.log.write({**line, "samples_per_s": round(self._speed(), 1)})
            values = {"loss": means["loss"]}
        self.log.step(**values)

    def _logs(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step == self.settings.steps

    def _speed(self) -> float:
        """Return the rows a second of all processes since the last call."""
        now, steps = time.perf_counter(), self.global_step - self._logged_step
        rows = steps * self.settings.batch_size * self.settings.gradient_accumulation_steps
        seconds, self._began, self._logged_step = now - self._began, now, self.global_step
        return rows * self.accelerator.num_processes / seconds

    def _handle_failures(self, task: str, failed: Sequence[tuple[str, str]]) -> None:
        """Raise at the first row that could not be read or learned, or keep it to be reported."""
        if self.model.plan.recipe.tasks[task].data[TRAIN].on_error != "skip":
            handle_failures(failed, f"tasks.{task}.data.train", False, self.skipped)
        self._failures += [(task, key, reason) for key, reason in failed]

    def _report_failures(self) -> None:
        """Report the skipped rows of all processes, each once."""
        failures, self._failures = self._failures, []
        if any(self._host_sum(len(failures))) and self.accelerator.num_processes > 1:
            failures = gather_object(failures)
        for task, key, reason in failures:
            where = f"tasks.{task}.data.train"
            for line in handle_failures([(key, reason)], where, True, self.skipped):
                self.log.info(line)

    def _validate_and_save(self) -> None:
        """Validate and write a checkpoint if it is their turn."""
        step, paused = self.global_step, time.perf_counter()
        last = step == self.settings.steps
        rule, checkpoint_every = self.settings.validate_, self.settings.checkpoint.every
        ended = False
        if rule and self.validator and (step % rule.every == 0 or last):
            self.finite.raise_if_not()
            ended = self.validator.run(step)
            self.should_stop |= ended
        # All processes stop after the same step.
        stopped = any(self._host_sum(self.stop.received is not None))
        ends = last or self.should_stop
        if stopped or (checkpoint_every and (step % checkpoint_every == 0 or ends)):
            self.check_finite()
            path = save_loop(self, ended)
            if stopped and not ends:
                raise Interrupted(f"stopped at step {step}, {path} written; go on with --resume")
        self._began += time.perf_counter() - paused

    def check_finite(self) -> None:
        """Raise RuntimeFailure, before anything is saved, if a weight is not finite that was."""
        self.finite.raise_if_not()
        nonfinite = nonfinite_tensors(self.model) - self._nonfinite
        names = sorted(set[str]().union(*gather(self.accelerator, nonfinite)))
        if names:
            raise RuntimeFailure(
                f"step {self.global_step}: {names[0]} is not finite (and {len(names) - 1} more); "
                "nothing is saved; lower train.optimizer.lr, and go on from the last checkpoint"
            )
