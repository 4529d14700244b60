"""Speech recognition with CTC and with a language model, decoding and metrics."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .asr import ASR as ASR
    from .decoding import CTCHypothesis as CTCHypothesis
    from .decoding import fitting_rows as fitting_rows
    from .decoding import greedy as greedy
    from .inter_ctc import ctc_losses as ctc_losses
    from .inter_ctc import frame_logits as frame_logits
    from .metrics import error_counts as error_counts
    from .metrics import interval as interval
    from .metrics import resampled as resampled
    from .normalizers import Normalizer as Normalizer
    from .normalizers import normalizer_of as normalizer_of
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "asr": ["ASR"],
            "decoding": ["CTCHypothesis", "fitting_rows", "greedy"],
            "inter_ctc": ["ctc_losses", "frame_logits"],
            "metrics": ["error_counts", "interval", "resampled"],
            "normalizers": ["Normalizer", "normalizer_of"],
        },
    )
