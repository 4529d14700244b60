"""The pipeline of a trained model, and prediction for files."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .control import ControlTask as ControlTask
    from .control import find_control_task as find_control_task
    from .export_maps import write_maps as write_maps
    from .listing import list_backbones as list_backbones
    from .listing import list_connectors as list_connectors
    from .listing import list_encoders as list_encoders
    from .listing import list_parts as list_parts
    from .listing import list_recipes as list_recipes
    from .listing import list_tasks as list_tasks
    from .loading import TaskFunction as TaskFunction
    from .loading import load as load
    from .loading import pipeline as pipeline
    from .loading import save as save
    from .pipeline import EMBED as EMBED
    from .pipeline import Pipeline as Pipeline
    from .predict import predict_files as predict_files
    from .predict import rows_of_words as rows_of_words
    from .stepwise import PreparedRequest as PreparedRequest
    from .stepwise import StepwisePipeline as StepwisePipeline
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "control": ["ControlTask", "find_control_task"],
            "export_maps": ["write_maps"],
            "listing": [
                "list_backbones",
                "list_connectors",
                "list_encoders",
                "list_parts",
                "list_recipes",
                "list_tasks",
            ],
            "loading": ["TaskFunction", "load", "pipeline", "save"],
            "pipeline": ["EMBED", "Pipeline"],
            "predict": ["predict_files", "rows_of_words"],
            "stepwise": ["PreparedRequest", "StepwisePipeline"],
        },
    )
