"""Text encoders that are not a model of transformers alone."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .classifier import SequenceClassifier as SequenceClassifier
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"classifier": ["SequenceClassifier"]})
