"""Disposable decoders of pre-training: heads that an encoder learns by and is saved without."""

from typing import TYPE_CHECKING

from .....lazy import lazy_exports

PRETEXTS = {
    "bow": "sensorium.tasks.language.masked.pretext.tokens:BagOfWords",
    "condenser": "sensorium.tasks.language.masked.pretext.states:Condenser",
    "ctc": "sensorium.tasks.language.masked.pretext.docked:FramesCTC",
    "decoder": "sensorium.tasks.language.masked.pretext.states:RefinedDecoder",
    "enhanced": "sensorium.tasks.language.masked.pretext.vector:Enhanced",
    "frames": "sensorium.tasks.language.masked.pretext.docked:Frames",
    "future": "sensorium.tasks.language.masked.pretext.tokens:Future",
    "hierarchy": "sensorium.tasks.language.masked.pretext.document:Hierarchy",
    "infilling": "sensorium.tasks.language.masked.pretext.entities:Infilling",
    "matching": "sensorium.tasks.language.masked.pretext.docked:Matching",
    "misspelt": "sensorium.tasks.language.masked.pretext.misspelt:Misspelt",
    "objects": "sensorium.tasks.language.masked.pretext.docked:Objects",
    "replaced_phrases": "sensorium.tasks.language.masked.pretext.entities:ReplacedPhrases",
    "sections": "sensorium.tasks.language.masked.pretext.vector:Sections",
    "triples": "sensorium.tasks.language.masked.pretext.entities:Triples",
    "triplet": "sensorium.tasks.language.masked.pretext.document:Triplet",
    "visible": "sensorium.tasks.language.masked.pretext.states:VisibleDecoder",
    "weak": "sensorium.tasks.language.masked.pretext.vector:Weak",
}

if TYPE_CHECKING:
    from .base import Encoded as Encoded
    from .base import Losses as Losses
    from .base import Pretext as Pretext
    from .base import token_losses as token_losses
    from .states import effective_rank as effective_rank
    from .tokens import bag_of_words as bag_of_words
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "base": ["Encoded", "Losses", "Pretext", "token_losses"],
            "states": ["effective_rank"],
            "tokens": ["bag_of_words"],
        },
    )
