"""Signals as tokens: a decoder writes what a signal tokenizer can decode."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .generation import SignalGeneration as SignalGeneration
    from .grammar import SignalSampler as SignalSampler
    from .grammar import SignalSpan as SignalSpan
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "generation": ["SignalGeneration"],
            "grammar": ["SignalSampler", "SignalSpan"],
        },
    )
