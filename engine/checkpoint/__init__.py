"""Checkpoints, run folders and model cards."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .checkpoints import BEST as BEST
    from .checkpoints import CHECKPOINTS as CHECKPOINTS
    from .checkpoints import FROZEN as FROZEN
    from .checkpoints import Checkpoints as Checkpoints
    from .checkpoints import link_or_copy as link_or_copy
    from .differences import check_differences as check_differences
    from .differences import check_rows as check_rows
    from .differences import is_changed as is_changed
    from .differences import rows_identity as rows_identity
    from .mapped import MappedTensor as MappedTensor
    from .mapped import new_mapped as new_mapped
    from .model_card import command_header as command_header
    from .model_card import read_command as read_command
    from .model_card import write_card as write_card
    from .optimizer_state import OptimizerState as OptimizerState
    from .optimizer_state import optimizer_by_name as optimizer_by_name
    from .optimizer_state import restore_optimizer_by_name as restore_optimizer_by_name
    from .run_folder import check_run_fingerprints as check_run_fingerprints
    from .run_folder import load_model as load_model
    from .run_folder import push as push
    from .run_folder import save_run as save_run
    from .run_folder import write_fingerprints as write_fingerprints
    from .run_state import RECIPE as RECIPE
    from .run_state import STAGES as STAGES
    from .run_state import check_claim as check_claim
    from .run_state import check_free as check_free
    from .run_state import read_run as read_run
    from .run_state import remove_run as remove_run
    from .run_state import remove_run_parts as remove_run_parts
    from .run_state import run_lock as run_lock
    from .run_state import run_place as run_place
    from .run_state import set_results_aside as set_results_aside
    from .run_state import write_run as write_run
    from .state import changing_tensors as changing_tensors
    from .state import fingerprints as fingerprints
    from .state import frozen_tensors as frozen_tensors
    from .state import nonfinite_tensors as nonfinite_tensors
    from .state import read_names as read_names
    from .state import read_tensors as read_tensors
    from .state import restore as restore
    from .state import saved_tensors as saved_tensors
    from .state import write_tensors as write_tensors
    from .trackers import Trackers as Trackers
    from .trackers import check_trackers as check_trackers
    from .transfer import take_over as take_over
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "checkpoints": ["BEST", "CHECKPOINTS", "FROZEN", "Checkpoints", "link_or_copy"],
            "differences": ["check_differences", "check_rows", "is_changed", "rows_identity"],
            "mapped": ["MappedTensor", "new_mapped"],
            "model_card": ["command_header", "read_command", "write_card"],
            "optimizer_state": [
                "OptimizerState",
                "optimizer_by_name",
                "restore_optimizer_by_name",
            ],
            "run_folder": [
                "check_run_fingerprints",
                "load_model",
                "push",
                "save_run",
                "write_fingerprints",
            ],
            "run_state": [
                "RECIPE",
                "STAGES",
                "check_free",
                "read_run",
                "remove_run",
                "remove_run_parts",
                "run_place",
                "check_claim",
                "run_lock",
                "set_results_aside",
                "write_run",
            ],
            "state": [
                "changing_tensors",
                "fingerprints",
                "frozen_tensors",
                "nonfinite_tensors",
                "read_names",
                "read_tensors",
                "restore",
                "saved_tensors",
                "write_tensors",
            ],
            "trackers": ["Trackers", "check_trackers"],
            "transfer": ["take_over"],
        },
    )
