"""Analyses of models by cached features and taps: `sensorium analyze`.

An analysis is a function `(subject, **options) -> rows` of a table. It is listed in `ANALYSES`
under a short name; `package.module:function` and plug-ins (`analysis.name`) do as well.
"""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .run import analyze as analyze
    from .run import option_names as option_names
    from .subject import Subject as Subject
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"run": ["analyze", "option_names"], "subject": ["Subject"]}
    )
