"""The pipeline of a trained model, and prediction for files."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .control import ControlTask as ControlTask
    from .control import find_control_task as find_control_task
    from .loading import TaskFunction as TaskFunction
    from .loading import load as load
    from .loading import pipeline as pipeline
    from .loading import save as save
    from .pipeline import Pipeline as Pipeline
    from .predict import predict_files as predict_files
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "control": ["ControlTask", "find_control_task"],
            "loading": ["TaskFunction", "load", "pipeline", "save"],
            "pipeline": ["Pipeline"],
            "predict": ["predict_files"],
        },
    )
