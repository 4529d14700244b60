"""Terms that language modelling on an encoder-decoder may add to the decoder's likelihood."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

TERMS = {
    "contrast": "sensorium.tasks.language.terms.encoder:Contrast",
    "denoising": "sensorium.tasks.language.terms.encoder:Denoising",
    "detection": "sensorium.tasks.language.terms.decoder:Detection",
    "matching": "sensorium.tasks.language.terms.decoder:Matching",
    "redenoising": "sensorium.tasks.language.terms.decoder:Redenoising",
}

if TYPE_CHECKING:
    from .base import Term as Term
    from .base import TermInputs as TermInputs
    from .base import Terms as Terms
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"base": ["Term", "TermInputs", "Terms"]}
    )
