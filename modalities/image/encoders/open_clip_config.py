"""Finding an open_clip model's configuration, preprocessing and weights, by its name."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.factory import (
    _find_checkpoint_in_dir,
    load_state_dict,
    parse_model_name,
    resize_pos_embed,
)
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from ...messages import did_you_mean

Json = dict[str, Any]
OPTIONS = ("embed_dim", "preprocess_cfg", "quick_gelu", "vision_cfg")
CONFIG = "open_clip_config.json"


def complete(name: str, options: Json, online: bool) -> Json:
    """`embed_dim, quick_gelu, vision_cfg, preprocess_cfg` of a name, changed by `options`."""
    wrong = sorted(set(options) - set(OPTIONS))
    if wrong:
        raise ValueError(f"open_clip: options has no {wrong[0]!r}; it has {', '.join(OPTIONS)}")
    if set(options) == set(OPTIONS):
        return options
    source, location = parse_model_name(name)
    if source == "hf-hub" and not online:
        raise ValueError(f"open_clip: {name} is not resolved; build it from resolve(...)")
    model, steps = _pretrained(name, location) if source is None else _stored(source, location)
    if steps is None and not {"mean", "std"} <= set(options.get("preprocess_cfg", {})):
        warnings.warn(
            f"open_clip: {name} has no preprocess_cfg, so that CLIP's mean and std are taken, "
            "which need not be its own (SigLIP: 0.5); set options: {preprocess_cfg: {mean: [...], "
            "std: [...]}}",
            stacklevel=2,
        )
    return {
        "embed_dim": options.get("embed_dim", model["embed_dim"]),
        "quick_gelu": options.get("quick_gelu", model.get("quick_gelu", False)),
        "vision_cfg": {**model["vision_cfg"], **options.get("vision_cfg", {})},
        "preprocess_cfg": {
            **merge_preprocess_dict(asdict(PreprocessCfg()), steps or {}),
            **options.get("preprocess_cfg", {}),
        },
    }


def list_names() -> list[str]:
    """Return the architectures that open_clip has configurations of."""
    return list(open_clip.list_models())


def _pretrained(name: str, tagged_name: str) -> tuple[Json, Json]:
    base, _, tag = tagged_name.partition(":")
    model = open_clip.get_model_config(base)
    if model is None:
        near = did_you_mean(base, open_clip.list_models())
        cure = f" (a folder: local-dir:{name}; a hub id: hf-hub:{name})" if "/" in name else ""
        raise ValueError(f"open_clip: no model {base!r}{near}{cure}")
    if not tag:
        return model, {}
    steps = open_clip.get_pretrained_cfg(base, tag)
    if not steps:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(base)) or "none"
        raise ValueError(f"open_clip: {base} has no weights {tag!r}; it has {tags}")
    gelu = bool(steps.get("quick_gelu", False))
    if gelu != bool(model.get("quick_gelu", False)):
        other = f"{base}-quickgelu" if gelu else base.removesuffix("-quickgelu")
        raise ValueError(
            f"open_clip: {name} was trained with quick_gelu {gelu}, {base} has {not gelu}; "
            f"name it {other}:{tag}"
        )
    return model, steps


def _stored(source: str, location: str) -> tuple[Json, Json | None]:
    """Return the configurations of a model and of its preprocessing, None where it has none."""
    if source == "hf-hub":
        path = Path(download_pretrained_from_hf(location, filename=CONFIG))
    else:
        path = Path(location) / CONFIG
    if not path.is_file():
        raise ValueError(
            f"open_clip: {location} holds no {CONFIG}; name an open_clip model's folder"
        )
    config = json.loads(path.read_text(encoding="utf-8"))
    if "model_cfg" not in config:
        raise ValueError(f"open_clip: {path} has no 'model_cfg'; it is not open_clip's own")
    return config["model_cfg"], config.get("preprocess_cfg")


def steps(config: Json) -> Json:
    """Return what `OpenClipProcessor` takes beside the size, which the built tower has."""
    if config["interpolation"] == "random":  # drawn in training, bicubic at evaluation
        config = {**config, "interpolation": "bicubic"}
    return {
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "interpolation": config["interpolation"],
        "resize_mode": config["resize_mode"],
        "fill_color": config["fill_color"],
    }


def has_pretrained_weights(name: str) -> bool:
    source, location = parse_model_name(name)
    if source == "local-dir":
        return _find_checkpoint_in_dir(Path(location)) is not None
    return source is not None or ":" in location


def load(name: str, tower: nn.Module, dropped: tuple[str, ...]) -> None:
    """Fill a visual tower from the checkpoint of a whole model; positions follow its grid.

    dropped: beginnings of the names of weights that this tower does without.
    """
    path = _checkpoint(name)
    if Path(path).suffix in (".npz", ".npy"):
        raise ValueError(f"open_clip: {path} is a big_vision file; name its open_clip conversion")
    model = nn.Module()
    model.visual = tower
    weights = convert_state_dict(model, load_state_dict(path, weights_only=True))
    resize_pos_embed(weights, model)
    tower_weights = {
        k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")
    }
    if not tower_weights:
        raise ValueError(f"open_clip: {path} holds no visual tower")
    tower.load_state_dict(
        {k: v for k, v in tower_weights.items() if not (dropped and k.startswith(dropped))}
    )


def _checkpoint(name: str) -> str:
    source, location = parse_model_name(name)
    if source == "local-dir":
        path = _find_checkpoint_in_dir(Path(location))
    elif source == "hf-hub":
        path = download_pretrained_from_hf(location)
    else:
        base, _, tag = location.partition(":")
        path = open_clip.download_pretrained(open_clip.get_pretrained_cfg(base, tag))
    if not path:
        raise ValueError(f"open_clip: {name} has no weights; set weights: none, or name a tag")
    return str(path)
