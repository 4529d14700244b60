"""Recipes: YAML, schemas from signatures, sections, the registry and their resolution."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .component import ComponentSpec as ComponentSpec
    from .component import Modules as Modules
    from .component import count as count
    from .component import plan_part as plan_part
    from .component_path import BACKBONE as BACKBONE
    from .component_path import HUB as HUB
    from .component_path import WEIGHTS as WEIGHTS
    from .component_path import ComponentPath as ComponentPath
    from .component_path import download as download
    from .component_path import is_remote as is_remote
    from .component_path import joined as joined
    from .component_path import missing_folder as missing_folder
    from .component_path import names_folder as names_folder
    from .component_path import source_run as source_run
    from .component_path import split_source as split_source
    from .component_path import unshared as unshared
    from .component_path import validate_source as validate_source
    from .env import Env as Env
    from .json_schema import schema as schema
    from .recipe import FreezeAllButLast as FreezeAllButLast
    from .recipe import Recipe as Recipe
    from .recipe import Section as Section
    from .recipe import TaskSection as TaskSection
    from .recipe import TransformSection as TransformSection
    from .recipe import load_recipe as load_recipe
    from .recipe import parse_recipe as parse_recipe
    from .recipe import parse_transforms as parse_transforms
    from .recipe import to_plain_dict as to_plain_dict
    from .registry import KINDS as KINDS
    from .registry import find as find
    from .registry import import_optional as import_optional
    from .registry import load as load
    from .registry import registered as registered
    from .resolved import ResolvedRecipe as ResolvedRecipe
    from .resolved import TaskPlan as TaskPlan
    from .resolved import plan_recipe as plan_recipe
    from .resolved import plan_task as plan_task
    from .stages import Stage as Stage
    from .stages import stage_recipes as stage_recipes
    from .train_config import OPTIMIZER_ARGUMENTS as OPTIMIZER_ARGUMENTS
    from .train_config import SCHEDULE_ARGUMENTS as SCHEDULE_ARGUMENTS
    from .train_config import CallbackSection as CallbackSection
    from .train_config import DataSection as DataSection
    from .train_config import Holdout as Holdout
    from .train_config import SamplerSection as SamplerSection
    from .train_config import Train as Train
    from .train_config import Validate as Validate
    from .yaml_io import parse as parse
    from .yaml_io import parse_file as parse_file
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "component": ["Modules", "ComponentSpec", "count", "plan_part"],
            "component_path": [
                "BACKBONE",
                "HUB",
                "is_remote",
                "WEIGHTS",
                "ComponentPath",
                "download",
                "joined",
                "missing_folder",
                "names_folder",
                "source_run",
                "split_source",
                "unshared",
                "validate_source",
            ],
            "env": ["Env"],
            "json_schema": ["schema"],
            "recipe": [
                "FreezeAllButLast",
                "Recipe",
                "Section",
                "TaskSection",
                "TransformSection",
                "load_recipe",
                "parse_recipe",
                "parse_transforms",
                "to_plain_dict",
            ],
            "registry": ["KINDS", "find", "import_optional", "load", "registered"],
            "resolved": ["ResolvedRecipe", "TaskPlan", "plan_recipe", "plan_task"],
            "stages": ["Stage", "stage_recipes"],
            "train_config": [
                "DataSection",
                "Holdout",
                "OPTIMIZER_ARGUMENTS",
                "SCHEDULE_ARGUMENTS",
                "CallbackSection",
                "SamplerSection",
                "Train",
                "Validate",
            ],
            "yaml_io": ["parse", "parse_file"],
        },
    )
