"""The pipeline of a trained model, and prediction for files."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .pipeline import ControlTask as ControlTask
    from .pipeline import Pipeline as Pipeline
    from .pipeline import find_control_task as find_control_task
    from .pipeline import load as load
    from .pipeline import save as save
    from .predict import predict_files as predict_files
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "pipeline": ["ControlTask", "Pipeline", "find_control_task", "load", "save"],
            "predict": ["predict_files"],
        },
    )
