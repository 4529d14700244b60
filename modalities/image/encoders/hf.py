"""Finding and building a vision tower of transformers: its configuration, class and processor."""

from __future__ import annotations

import inspect
import json
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from ...quiet import quiet_loading
from ..processor import HubProcessor
from .position_tables import interpolated

Json = dict[str, Any]


def parse_repo_id(name: str) -> dict[str, Any]:
    """Return a name, with or without `hf-hub:` or `local-dir:`, as keywords of
    `from_pretrained`."""
    if name.startswith("local-dir:"):
        return {"pretrained_model_name_or_path": name.removeprefix("local-dir:")}
    path, at, revision = name.removeprefix("hf-hub:").partition("@")
    return {"pretrained_model_name_or_path": path, **({"revision": revision} if at else {})}


def find(name: str, config: Json | None, processor: Json | None, local: bool) -> tuple[Json, Json]:
    """Return the complete configurations of a checkpoint's vision tower and of its processor.

    What `config` and `processor` say goes before what the checkpoint says. local: read a folder
    or the cache, never the network.
    """
    if not name:
        raise ValueError("transformers: neither a name nor a config with its model_type")
    where = {**parse_repo_id(name), "local_files_only": local}
    tower = _vision(_read(AutoConfig, where, "configuration", "a model's folder or hub id"))
    tower_config = json.loads(tower.to_json_string(use_diff=False))
    full_config = {**tower_config, **(config or {}), "model_type": tower.model_type}
    if processor and "image_processor_type" in processor:
        return full_config, processor
    steps = _read(AutoImageProcessor, where, "image processor", "processor: in the recipe")
    settings = {**json.loads(steps.to_json_string()), "image_processor_type": type(steps).__name__}
    return full_config, {**settings, **(processor or {})}


def is_complete(config: Json | None, processor: Json | None) -> bool:
    """Return whether both configurations stand for themselves, without a checkpoint's."""
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


def tower(config: Json) -> Any:
    """Return the vision configuration from its dict; a dual model's dict gives its vision tower."""
    settings = dict(config)
    kind = settings.pop("model_type")
    try:
        return _vision(AutoConfig.for_model(kind, **settings))
    except ValueError as error:
        raise ValueError(f"transformers: no model_type {kind!r}") from error


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def build(config: Any) -> Any:
    """Return the model without weights, in fp32 whatever the checkpoint's own precision."""
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"transformers: {config.model_type} has no model that AutoModel knows")
    if hasattr(config, "mask_ratio"):  # of pre-training: an encoder sees every patch
        config.mask_ratio = 0.0
    kind = MODEL_MAPPING[type(config)]
    model = AutoModel.from_config(config, dtype=torch.float32, **without_pooler(kind))
    if getattr(model, "main_input_name", None) != "pixel_values":
        raise ValueError(f"transformers: {type(model).__name__} does not take pictures")
    return model


def pretrained(model: Any, name: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint for a model. Raise ValueError where it lacks one, or has
    one of another shape that is no table of positions."""
    kind: Any = type(model)
    with quiet_loading():
        filled, report = kind.from_pretrained(
            **parse_repo_id(name),
            config=model.config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below
            **without_pooler(kind),
        )
    tables: dict[str, Tensor] = {}
    if mismatched := sorted(report["mismatched_keys"]):
        with quiet_loading():
            old = kind.from_pretrained(**parse_repo_id(name), dtype=torch.float32)
        tables = interpolated(old, model, mismatched, name)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"transformers: {name} lacks {len(missing)} weights of {kind.__name__}, "
            f"{missing[0]} among them; name a checkpoint of that model"
        )
    return {**filled.state_dict(), **tables}


def without_pooler(kind: type) -> dict[str, bool]:
    """Leave out the head of pre-training (ViT's dense layer, say): checkpoints often lack it, and
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
    raise ValueError(f"transformers: {config.model_type} does not say how wide its tokens are")


def processor(config: Any, settings: Json | None) -> HubProcessor:
    """Return the image processor of a configuration; of a model from nothing, at the model's
    size."""
    if settings is None:
        settings = _default_settings(config)
    options = {k: v for k, v in settings.items() if not k.endswith(("_type", "_class"))}
    if "image_processor_type" not in settings:
        raise ValueError("transformers: processor says no image_processor_type")
    return HubProcessor(settings["image_processor_type"], options)


def _default_settings(config: Any) -> Json:
    kind = config.model_type.removesuffix("_vision_model")
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind)
    if names is None:
        raise ValueError(
            f"transformers: {config.model_type} has no image processor of its own; say "
            "processor: {image_processor_type: ViTImageProcessor, size: {height: .., width: ..}}"
        )
    name = names.get("torchvision") or names["pil"]
    processor = getattr(transformers, name)()
    settings: Json = {"image_processor_type": name}
    side = getattr(config, "image_size", None)
    if side is not None:
        for key in ("size", "crop_size"):
            if getattr(processor, key, None):
                height_width = (side, side) if isinstance(side, int) else tuple(side)
                settings[key] = _fill(dict(getattr(processor, key)), height_width)
    if hasattr(config, "num_patches") and hasattr(processor, "max_num_patches"):
        settings.update(patch_size=config.patch_size, max_num_patches=config.num_patches)
    return settings


def _fill(size: dict[str, Any], height_width: tuple[int, ...]) -> dict[str, int]:
    values = {
        "height": height_width[0],
        "width": height_width[1],
        "shortest_edge": min(height_width),
    }
    return {key: values[key] for key, value in size.items() if value is not None and key in values}
