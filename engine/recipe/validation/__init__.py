"""Schemas from signatures, and the errors of values that do not fit them."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .library_schema import library_model as library_model
    from .library_schema import library_options as library_options
    from .library_schema import parameters as parameters
    from .renamed import RENAMED as RENAMED
    from .renamed import renamed as renamed
    from .signature_schema import Strict as Strict
    from .signature_schema import TypedSection as TypedSection
    from .signature_schema import arguments as arguments
    from .signature_schema import fitted_arguments as fitted_arguments
    from .signature_schema import options_model as options_model
    from .signature_schema import part_arguments as part_arguments
    from .signature_schema import validate as validate
    from .signature_schema import validate_options as validate_options
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "library_schema": ["library_model", "library_options", "parameters"],
            "renamed": ["RENAMED", "renamed"],
            "signature_schema": [
                "Strict",
                "TypedSection",
                "arguments",
                "fitted_arguments",
                "options_model",
                "part_arguments",
                "validate",
                "validate_options",
            ],
        },
    )
