"""The state of a `Trainer`'s loop in a checkpoint, and resuming from one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import (
    BEST,
    FROZEN,
    changing_tensors,
    check_rows,
    link_or_copy,
    optimizer_by_name,
)
from ..data import Layout
from ..utils import ConfigError, from_main, whole_tensors
from .callbacks import callback_states, load_callback_states


def save_loop(trainer: Any, ended_early: bool = False) -> Path:
    """Write a checkpoint after a step. ended_early: validation ends the training here."""
    validator, accelerator = trainer.validator, trainer.accelerator
    extra: dict[str, Any] = {
        "processes": accelerator.num_processes,
        "layout": [*trainer.layout],
        "rows": trainer.rows,
        "should_stop": trainer.should_stop,
        "ended_early": ended_early,
        "patience": validator.rule.patience if validator is not None else None,
        "callbacks": callback_states(trainer.callbacks),
        "validation": validator.state if validator is not None else {},
        "skipped_steps": trainer.finite.state(),
    }
    if accelerator.scaler is not None:
        extra["scaler"] = accelerator.scaler.state_dict()
    links = [validator.best] if validator is not None and validator.best is not None else []
    links += filter(Path.is_file, [trainer.folder / FROZEN])
    step, model, write = trainer.global_step, trainer.model, trainer.checkpoints.write
    tensors = whole_tensors(changing_tensors(model))
    optimizer = optimizer_by_name(model, trainer.optimizer.optimizer)
    return from_main(accelerator, lambda: write(step, tensors, optimizer, extra, links))


def restore_loop(trainer: Any) -> None:
    """Resume from the newest whole checkpoint, or start at step 0 without one."""
    accelerator, log = trainer.accelerator, trainer.log
    path, torn = from_main(accelerator, trainer.checkpoints.newest)
    for line in torn:
        log.warn(f"{line}; going on from {path}")
    best = trainer.folder / BEST
    if path is None:
        log.info(f"{trainer.folder}: no checkpoint yet, beginning at step 0")
        if accelerator.is_main_process:
            best.unlink(missing_ok=True)
        log.rewind(0)
        return
    state, without = trainer.checkpoints.read(path, trainer.model, trainer.optimizer.optimizer)
    trainer.layout = _check(trainer, path, state)
    if state["processes"] != accelerator.num_processes:
        log.info(
            f"{path}: was written by {state['processes']} processes, going on with "
            f"{accelerator.num_processes}; the rows of each step are the same"
        )
    if without:
        others = f" and {len(without) - 1} more" if len(without) > 1 else ""
        log.warn(
            f"{path}: the optimizer starts over for {without[0]}{others}, it has no state of it"
        )
    if accelerator.scaler is not None and state.get("scaler"):
        accelerator.scaler.load_state_dict(state["scaler"])
    trainer.should_stop = state["should_stop"]
    if trainer.validator is not None:
        trainer.validator.state = state["validation"]
        if state["ended_early"] and state["patience"] != trainer.validator.rule.patience:
            trainer.should_stop = trainer.validator.ended
    if accelerator.is_main_process:
        if (path / BEST).is_file():
            link_or_copy(path / BEST, best)
        else:
            best.unlink(missing_ok=True)
    load_callback_states(trainer.callbacks, state["callbacks"])
    trainer.finite.load_state(state["skipped_steps"])
    log.rewind(state["step"])
    trainer.global_step = int(state["step"])


def remove_best(folder: Path, stages: Path) -> None:
    """Remove the best weights so far, which are the run's at its end, and those that a process
    left which was killed before it did so."""
    for path in (folder / BEST, *stages.glob(f"*/{BEST}")):
        path.unlink(missing_ok=True)


def _check(trainer: Any, path: Path, state: Mapping[str, Any]) -> Layout:
    """Refuse settings with which a checkpoint cannot be resumed. Return the layout of the batches
    of a step, which stays the one that the run began with."""
    processes, layout = trainer.accelerator.num_processes, Layout(*state["layout"])
    if layout.batches != processes * trainer.settings.gradient_accumulation_steps:
        count, rest = divmod(layout.batches, processes)
        cure = f"resume with {state['processes']}"
        if not rest:
            cure += (
                f", or set train.gradient_accumulation_steps: {count} and pass --allow-change "
                "train.gradient_accumulation_steps"
            )
        raise ConfigError(
            f"{path}: was written by {state['processes']} processes, there are now {processes}, "
            f"and a step has {layout.batches} batches in all; {cure}"
        )
    if state["step"] > trainer.settings.steps:
        raise ConfigError(
            f"train.steps: found {trainer.settings.steps}, the run is at step {state['step']} "
            f"({path}); set at least as many"
        )
    check_rows(state["rows"], trainer.rows, trainer.allowed_changes)
    return layout
