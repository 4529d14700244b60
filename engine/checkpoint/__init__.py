"""Checkpoints, run folders and model cards."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .model_card import command_header as command_header
    from .model_card import read_command as read_command
    from .model_card import write_card as write_card
    from .run_folder import load_model as load_model
    from .run_folder import push as push
    from .run_folder import save_run as save_run
    from .state import Checkpoints as Checkpoints
    from .state import read_tensors as read_tensors
    from .state import restore as restore
    from .state import saved_tensors as saved_tensors
    from .state import write_tensors as write_tensors
    from .transfer import optimizer_by_name as optimizer_by_name
    from .transfer import restore_optimizer_by_name as restore_optimizer_by_name
    from .transfer import take_over as take_over
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "model_card": ["read_command", "command_header", "write_card"],
            "run_folder": ["load_model", "push", "save_run"],
            "state": ["Checkpoints", "saved_tensors", "read_tensors", "restore", "write_tensors"],
            "transfer": ["optimizer_by_name", "restore_optimizer_by_name", "take_over"],
        },
    )
