"""Finding and building a vision tower of transformers: its configuration, class and processor."""

from __future__ import annotations

import inspect
import json
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from ...messages import quiet_loading
from ...submodules import Tower, tower_of
from ..processor import HubProcessor
from .position_tables import interpolated

Json = dict[str, Any]

SECTIONS = ("vision_config", "image_config", "video_config")
"""Where the configuration of a model of several towers has that of its pictures."""
PATCHES = ("patch_size", "temporal_patch_size", "merge_size")
"""What a processor of native resolution has in common with its model."""
AREA = 5000
"""An edge longer than this is an area: processors of native resolution limit that."""


def parse_repo_id(name: str) -> dict[str, Any]:
    """Return a name, with or without `hf-hub:` or `local-dir:`, as keywords of
    `from_pretrained`."""
    if name.startswith("local-dir:"):
        return {"pretrained_model_name_or_path": name.removeprefix("local-dir:")}
    path, at, revision = name.removeprefix("hf-hub:").partition("@")
    return {"pretrained_model_name_or_path": path, **({"revision": revision} if at else {})}


def find(name: str, config: Json | None, processor: Json | None, local: bool) -> tuple[Json, Json]:
    """Return the complete configurations of a checkpoint's vision tower and of its processor.

    `config` and `processor` override the checkpoint's. local: read a folder
    or the cache, never the network.
    """
    if not name:
        raise ValueError("transformers: neither a name nor a config with its model_type")
    where = {**parse_repo_id(name), "local_files_only": local}
    whole = _read(AutoConfig, where, "configuration", "a model's folder or hub id")
    full_config = _laid_over(whole, dict(config or {}))
    if processor and "image_processor_type" in processor:
        return full_config, processor
    steps = _read(AutoImageProcessor, where, "image processor", "processor: in the recipe")
    settings = {**json.loads(steps.to_json_string()), "image_processor_type": type(steps).__name__}
    return full_config, {**settings, **(processor or {})}


def _laid_over(whole: Any, changes: Json) -> Json:
    """Return the whole model's configuration with fields of its tower changed, as JSON."""
    settings: Json = json.loads(whole.to_json_string(use_diff=False))
    if "model_type" in changes and changes["model_type"] == whole.model_type:
        return {**settings, **changes}
    section = next((name for name in SECTIONS if isinstance(settings.get(name), dict)), None)
    if section is None:
        return {**settings, **changes, "model_type": whole.model_type}
    tower = settings[section]
    return {**settings, section: {**tower, **changes, "model_type": tower["model_type"]}}


def is_complete(config: Json | None, processor: Json | None) -> bool:
    """Return whether both configurations are complete, without a checkpoint's."""
    return "model_type" in (config or {}) and "image_processor_type" in (processor or {})


def _read(kind: Any, where: dict[str, Any], description: str, cure: str) -> Any:
    try:
        return kind.from_pretrained(**where)
    except (OSError, ValueError) as error:
        name = where["pretrained_model_name_or_path"]
        line = " ".join(str(error).split())
        raise ValueError(
            f"transformers: {name} has no {description}, want {cure} ({line})"
        ) from error


def whole_config(config: Json) -> Any:
    """Return a configuration of transformers from its dict."""
    settings = dict(config)
    kind = settings.pop("model_type")
    try:
        return AutoConfig.for_model(kind, **settings)
    except Exception as error:  # some configurations check their fields with errors of their own
        line = " ".join(str(error).split())
        raise ValueError(f"transformers: no configuration of {kind!r}: {line}") from error


def tower(whole: Any) -> Tower:
    """Return the encoder of pictures of a model. Raise ValueError if it has none."""
    try:
        tower_plan = tower_of(whole, SECTIONS)
    except ValueError as error:
        raise ValueError(f"transformers: {error}") from error
    if first_argument(tower_plan.kind) == "input_ids":
        raise ValueError(f"transformers: {tower_plan.kind.__name__} does not take pictures")
    if hasattr(tower_plan.config, "mask_ratio"):  # of pre-training: an encoder sees every patch
        tower_plan.config.mask_ratio = 0.0
    return tower_plan


def build(tower: Tower) -> nn.Module:
    """Return the model without weights, in fp32 for any precision of the checkpoint."""
    return tower.build(**without_pooler(tower.kind))


def first_argument(kind: Any) -> str:
    """Return the name of the first argument of a model's forward."""
    return list(inspect.signature(kind.forward).parameters)[1]


def pretrained(tower: Tower, whole: Any, model: Any, name: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint for a model. Raise ValueError where it lacks one, or has
    one of another shape that is no table of positions.

    If the tower's own class does not find its weights, the whole model is read.
    """
    kind: Any = type(model)
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # reported below
    where = {**parse_repo_id(name), "dtype": torch.float32}
    with quiet_loading():
        filled, report = _tower_report(tower, whole, where, {**options, "config": model.config})
    tables: dict[str, Tensor] = {}
    if mismatched := sorted(report["mismatched_keys"]):
        with quiet_loading():
            old = kind.from_pretrained(**where)
        tables = interpolated(old, model, mismatched, name)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"transformers: {name} lacks {len(missing)} weights of {kind.__name__}, "
            f"{missing[0]} among them; name a checkpoint of that model"
        )
    return {**filled.state_dict(), **tables}


def _tower_report(tower: Tower, whole: Any, where: Json, options: Json) -> tuple[nn.Module, Json]:
    if hasattr(tower.kind, "from_pretrained"):
        pooler = without_pooler(tower.kind)
        model, report = tower.kind.from_pretrained(**where, **options, **pooler)
        if not tower.path or not report["missing_keys"]:
            return model, report
    model, report = AutoModel.from_pretrained(**where, **{**options, "config": whole})
    inside = f"{tower.path}."
    return model.get_submodule(tower.path), {
        "missing_keys": [k for k in report["missing_keys"] if k.startswith(inside)],
        "mismatched_keys": [k for k in report["mismatched_keys"] if k[0].startswith(inside)],
    }


def without_pooler(kind: type) -> dict[str, bool]:
    """Leave out the head of pre-training (e.g. ViT's dense layer): checkpoints often lack it, and
    it would be random then. Heads that belong to the model (SigLIP's) stay."""
    has_option = "add_pooling_layer" in inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    return {"add_pooling_layer": False} if has_option else {}


def width(config: Any, layer: int | None) -> int:
    """Return the width of the tokens of the last or of a hidden layer, as the configuration has
    it."""
    sizes = getattr(config, "hidden_sizes", None)
    if sizes:
        return int(sizes[-1 if layer is None else layer])
    for key in ("hidden_size", "hidden_dim"):
        if isinstance(getattr(config, key, None), int):
            return int(getattr(config, key))
    raise ValueError(f"transformers: {config.model_type} does not define the width of its tokens")


def processor(whole: Any, config: Any, settings: Json | None) -> HubProcessor:
    """Return the image processor of a configuration; of a model from nothing, at the model's
    size."""
    if settings is None:
        settings = _default_settings(whole, config)
    options = {k: v for k, v in settings.items() if not k.endswith(("_type", "_class"))}
    if "image_processor_type" not in settings:
        raise ValueError("transformers: processor has no image_processor_type")
    return HubProcessor(settings["image_processor_type"], options)


def _default_settings(whole: Any, config: Any) -> Json:
    kinds = (config.model_type, whole.model_type)
    # Without its own processor, that of the family: `qwen3_vl` for `qwen3_vl_moe_vision`.
    known = [t for k in kinds for t in IMAGE_PROCESSOR_MAPPING_NAMES if f"{k}_".startswith(f"{t}_")]
    names = IMAGE_PROCESSOR_MAPPING_NAMES[max(known, key=len)] if known else None
    if names is None:
        raise ValueError(
            f"transformers: {config.model_type} has no image processor; set "
            "processor: {image_processor_type: ViTImageProcessor, size: {height: .., width: ..}}"
        )
    name = names.get("torchvision") or names["pil"]
    processor = getattr(transformers, name)()
    settings: Json = {"image_processor_type": name}
    side = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    if side is not None:
        for key in ("size", "crop_size"):
            if getattr(processor, key, None):
                height_width = (side, side) if isinstance(side, int) else tuple(side)
                settings[key] = _fill(dict(getattr(processor, key)), height_width)
    for key in PATCHES:
        value = getattr(config, f"spatial_{key}", getattr(config, key, None))
        if isinstance(value, int) and isinstance(getattr(processor, key, None), (int, dict)):
            square = {"height": value, "width": value}
            settings[key] = value if isinstance(getattr(processor, key), int) else square
    for key in ("do_image_splitting", "slice_mode"):  # a picture is one tile
        if getattr(processor, key, False):
            settings[key] = False
    if hasattr(config, "num_patches") and hasattr(processor, "max_num_patches"):
        settings.update(patch_size=config.patch_size, max_num_patches=config.num_patches)
    return settings


def _fill(size: dict[str, Any], height_width: tuple[int, ...]) -> dict[str, int]:
    if any(value is not None and value > AREA for value in size.values()):
        return size
    values = {
        "height": height_width[0],
        "width": height_width[1],
        "shortest_edge": min(height_width),
        "longest_edge": max(height_width),
    }
    return {key: values[key] for key, value in size.items() if value is not None and key in values}
