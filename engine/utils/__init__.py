"""Errors, files, logging, distributed processes, signals, seeds and tables of text."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .atomic import append_line as append_line
    from .atomic import atomic_folder as atomic_folder
    from .atomic import atomic_path as atomic_path
    from .atomic import check_folder as check_folder
    from .atomic import check_writable as check_writable
    from .atomic import make_folder as make_folder
    from .atomic import remove_parts as remove_parts
    from .atomic import sync_file as sync_file
    from .atomic import sync_folder as sync_folder
    from .atomic import try_folder as try_folder
    from .atomic import write_errors as write_errors
    from .atomic import write_json as write_json
    from .atomic import write_text as write_text
    from .console import console as console
    from .console import format_table as format_table
    from .device import Precision as Precision
    from .device import autocast as autocast
    from .device import available as available
    from .device import check_precision as check_precision
    from .device import check_training_precision as check_training_precision
    from .device import derive_seed as derive_seed
    from .device import fork_rng as fork_rng
    from .device import pick as pick
    from .device import seed_all as seed_all
    from .device import seeded as seeded
    from .distributed import LAUNCHED as LAUNCHED
    from .distributed import HostSum as HostSum
    from .distributed import from_main as from_main
    from .distributed import gather as gather
    from .distributed import init_accelerator as init_accelerator
    from .distributed import main_first as main_first
    from .distributed import share_like as share_like
    from .distributed import whole_tensor as whole_tensor
    from .distributed import whole_tensors as whole_tensors
    from .errors import ConfigError as ConfigError
    from .errors import Interrupted as Interrupted
    from .errors import RuntimeFailure as RuntimeFailure
    from .errors import WorkerDied as WorkerDied
    from .errors import culprit as culprit
    from .errors import located_errors as located_errors
    from .errors import log_cause as log_cause
    from .errors import with_location as with_location
    from .errors import with_name as with_name
    from .files import find_files as find_files
    from .files import find_folder as find_folder
    from .files import fingerprint_of as fingerprint_of
    from .objects import Mirror as Mirror
    from .objects import local_folder as local_folder
    from .objects import transfer_missing as transfer_missing
    from .plugin_path import add_recipe_folder as add_recipe_folder
    from .plugin_path import make_importable as make_importable
    from .plugin_path import write_module_folders as write_module_folders
    from .run_log import RunLogger as RunLogger
    from .run_log import read_metrics as read_metrics
    from .signals import GracefulStop as GracefulStop
    from .signals import ignore_stopping as ignore_stopping
    from .template import write_page as write_page
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "atomic": [
                "append_line",
                "atomic_folder",
                "atomic_path",
                "check_folder",
                "check_writable",
                "make_folder",
                "remove_parts",
                "sync_file",
                "sync_folder",
                "try_folder",
                "write_errors",
                "write_json",
                "write_text",
            ],
            "console": ["console", "format_table"],
            "device": [
                "Precision",
                "autocast",
                "available",
                "check_precision",
                "check_training_precision",
                "derive_seed",
                "fork_rng",
                "pick",
                "seed_all",
                "seeded",
            ],
            "distributed": [
                "HostSum",
                "LAUNCHED",
                "from_main",
                "gather",
                "init_accelerator",
                "main_first",
                "share_like",
                "whole_tensor",
                "whole_tensors",
            ],
            "errors": [
                "ConfigError",
                "Interrupted",
                "RuntimeFailure",
                "WorkerDied",
                "culprit",
                "located_errors",
                "log_cause",
                "with_location",
                "with_name",
            ],
            "files": [
                "find_files",
                "find_folder",
                "fingerprint_of",
            ],
            "objects": ["Mirror", "local_folder", "transfer_missing"],
            "plugin_path": ["add_recipe_folder", "make_importable", "write_module_folders"],
            "run_log": ["RunLogger", "read_metrics"],
            "signals": ["GracefulStop", "ignore_stopping"],
            "template": ["write_page"],
        },
    )
