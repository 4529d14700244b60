"""The evaluator, and checks of which inputs a model uses."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .evaluate import EVALUATION as EVALUATION
    from .evaluate import evaluate as evaluate
    from .evaluator import Evaluator as Evaluator
    from .format import format_evaluation as format_evaluation
    from .format import input_streams as input_streams
    from .format import metric_names as metric_names
    from .grid import grid_cells as grid_cells
    from .input_use import Finding as Finding
    from .input_use import Table as Table
    from .input_use import main_metric as main_metric
    from .input_use import read_table as read_table
    from .mteb_encoder import MTEBEncoder as MTEBEncoder
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "evaluate": ["EVALUATION", "evaluate"],
            "evaluator": ["Evaluator"],
            "format": ["format_evaluation", "input_streams", "metric_names"],
            "grid": ["grid_cells"],
            "input_use": ["Finding", "Table", "main_metric", "read_table"],
            "mteb_encoder": ["MTEBEncoder"],
        },
    )
