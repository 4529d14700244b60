"""Spans of a text: how they are chosen, taken out, and put back."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .corruptions import Span as Span
    from .corruptions import corrupt_spans as corrupt_spans
    from .corruptions import move_middle as move_middle
    from .corruptions import restore_middle as restore_middle
    from .corruptions import restore_spans as restore_spans
    from .corruptions import sample_spans as sample_spans
    from .phrases import Phrases as Phrases
    from .phrases import keyphrases_of as keyphrases_of
    from .phrases import occurrences as occurrences
    from .places import corrupt_groups as corrupt_groups
    from .places import encode_digits as encode_digits
    from .places import identifier_groups as identifier_groups
    from .places import token_places as token_places
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "corruptions": [
                "Span",
                "corrupt_spans",
                "move_middle",
                "restore_middle",
                "restore_spans",
                "sample_spans",
            ],
            "phrases": ["Phrases", "keyphrases_of", "occurrences"],
            "places": ["corrupt_groups", "encode_digits", "identifier_groups", "token_places"],
        },
    )
