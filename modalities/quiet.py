"""Keep the noise of libraries from a user: each around the call that makes it, and no longer."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_logger(*names: str) -> Iterator[None]:
    """Let these loggers of libraries report nothing below an error within the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the messages of transformers while it reads a checkpoint's weights.

    That is its bar over tensors, and its list of the weights that only one of model and checkpoint
    has: those beside the part that is used are many, and missing ones are an error of `load`. Bars
    of downloads stay where somebody watches.
    """
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as of_transformers

    was_enabled = of_transformers.is_progress_bar_enabled()
    downloads = not are_progress_bars_disabled()
    of_transformers.disable_progress_bar()  # this switches off those of the hub too
    if downloads and sys.stderr.isatty():
        enable_progress_bars()
    log = logging.getLogger("transformers.modeling_utils")
    log.addFilter(_is_no_report)
    try:
        yield
    finally:
        log.removeFilter(_is_no_report)
        if was_enabled:
            of_transformers.enable_progress_bar()
        (enable_progress_bars if downloads else disable_progress_bars)()


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
