"""One encoder as a coverage row: its options in a recipe, and the library's own call.

Legend: `B` rows, `T` tokens, `D` width.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel
from transformers.models.auto import feature_extraction_auto, modeling_auto

from ...engine.recipe import find
from ...modalities.groups import collate, encode_by_group
from ...testing.encoders import rows_of
from .cases import enliven
from .networks import MONAI, OPEN_CLIP, TIMM
from .steps import NotApplicable
from .tiny_configs import Fields, tiny_config

MODALITY = {
    "vision": "image", "audio": "audio", "text": "text", "timm": "image", "open_clip": "image",
    "monai": "mri",
}  # fmt: skip
PICTURES, SOUNDS = ("pixel_values", "hidden_states"), ("input_features", "input_values")
TOWERS = {
    "vision": ("vision_config", "image_config", "video_config"),
    "audio": ("audio_config", "encoder_config", "speech_config"),
}
PICTURE_SIZE = 64
"""Edge in px of a picture for a model whose configuration names none."""


TEXTS = ("a cat sat", "the dog that ran over the hill", "no")


def examples(kind: str, options: Fields) -> list[Any] | None:
    """Return texts, each in the next language of the model; None for the own ones of a modality."""
    if kind != "text":
        return None
    cells = zip(TEXTS, itertools.cycle(options["config"].get("languages") or ()), strict=False)
    return [{"text": text, "language": name} for text, name in cells] or [*TEXTS]


@functools.cache
def forward_arguments(model_type: str) -> tuple[str, ...]:
    """Return the arguments of the forward of the class that AutoModel has for a model type."""
    try:
        kind = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
    except Exception:
        return ()
    kind = kind[0] if isinstance(kind, (list, tuple)) else kind
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def model_types(kind: str) -> list[str]:
    """Return the model types with an encoder of pictures, of sound or of text."""
    if kind == "text":
        names = {**modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES}
        names |= modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
        return [t for t in names if "input_ids" in forward_arguments(t)]
    found = []
    for name in modeling_auto.MODEL_MAPPING_NAMES:
        arguments = forward_arguments(name)
        sections = getattr(CONFIG_MAPPING[name], "sub_configs", {}) if arguments else {}
        if kind == "vision":
            supported = arguments[:1] == ("pixel_values",) or "grid_thw" in arguments
        else:
            extractors = feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES
            supported = arguments[:1] in [(s,) for s in SOUNDS] or (
                name in extractors and bool(arguments)
            )
        if supported or any(s in TOWERS[kind] for s in sections):
            found.append(name)
    return found


def rows(kind: str) -> list[str]:
    """Return `vision/clip`, `timm/resnet18`, ...: the rows of a kind."""
    tables: dict[str, Any] = {"timm": TIMM, "open_clip": OPEN_CLIP, "monai": MONAI}
    return [f"{kind}/{name}" for name in (tables.get(kind) or model_types(kind))]


def detector(model_type: str) -> bool:
    """Return whether a model's hidden states are those of queries: it has a decoder of boxes."""
    arguments = forward_arguments(model_type)
    return any(name.startswith(("decoder_", "encoder_outputs")) for name in arguments[:6])


def as_json(config: Any) -> Fields:
    fields = config.to_dict()
    fields.pop("transformers_version", None)
    result: Fields = json.loads(json.dumps(fields, default=str))
    return result


def configurations(model_type: str) -> Iterator[Fields]:
    """Yield configurations of a model type, from tiny ones to that of the family."""
    kind = CONFIG_MAPPING[model_type]
    tiny = None
    try:
        tiny = as_json(tiny_config(kind))
        yield tiny
    except Exception:
        pass
    plain = as_json(kind())
    layers = {k: 2 for k in ("num_hidden_layers", "encoder_layers") if plain.get(k)}
    if layers:
        yield {**plain, **layers}
    yield plain


def options(kind: str, name: str) -> Iterator[Fields]:
    """Yield sections of an encoder, the first of which that builds is taken."""
    if kind == "timm":
        yield {"type": "timm", "name": TIMM[name][0], "options": TIMM[name][1]}
    elif kind == "open_clip":
        yield {"type": "open_clip", "name": name, "options": OPEN_CLIP[name]}
    elif kind == "monai":
        yield {"type": "monai", "name": name, "size": [64, 64, 64], "options": MONAI[name]}
    elif kind == "text":
        for config in configurations(name):
            config.pop("vocab_size", None)
            yield {"type": "transformers", "config": config, "tokenizer": "bytes", "max_length": 64}
    else:
        for config in configurations(name):
            yield from _transformers(kind, name, config)


def _transformers(kind: str, name: str, config: Fields) -> Iterator[Fields]:
    section: Fields = {"type": "transformers", "config": config}
    if kind == "audio":
        for other in ("wav2vec2", "whisper", "ast", "clap"):
            if name in find("audio_encoder", other, "coverage").types:
                section["type"] = other
        yield section
        return
    yield section
    yield {**section, "processor": plain_processor(config)}


def plain_processor(config: Fields) -> Fields:
    """Return ViT's image processor at a model's size, for a type that has none."""
    inner = next((config[s] for s in TOWERS["vision"] if config.get(s)), config)
    size = inner.get("image_size") or PICTURE_SIZE
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    size = {"height": height, "width": width}
    return {"image_processor_type": "ViTImageProcessor", "size": size}


def save_folder(encoder: Any, config: Fields, folder: str) -> dict[str, Tensor]:
    """Write a folder as the library does, the whole model with random weights and what prepares
    its inputs. Return the weights of the encoder in it."""
    whole = CONFIG_MAPPING[config["model_type"]].from_dict(config)
    model = AutoModel.from_config(whole)
    enliven(model)
    model.save_pretrained(folder)
    prepare: Any = encoder.processor
    if hasattr(prepare, "library"):
        prepare.library().save_pretrained(folder)
    elif hasattr(prepare, "rate"):
        prepare._extractor.save_pretrained(folder)
    path = getattr(getattr(encoder, "tower", None), "path", "")
    part = model.get_submodule(path) if path else model
    if not path and hasattr(encoder, "part"):
        part = encoder.part(model)
    names = set(encoder.model.state_dict())
    return {k: v for k, v in part.state_dict().items() if k in names}


def encode(encoder: Any, raws: Sequence[Any]) -> Any:
    """Return the features of raw values."""
    samples = [encoder.processor.prepare(raw) for raw in raws]
    return encode_by_group(collate(encoder, samples), rows_of(encoder, {}))


def tensors_of(output: Any) -> list[Tensor]:
    """Return every tensor of an output of a library, those inside lists too."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for item in output for tensor in tensors_of(item)]
    return []


def vectors(tensor: Tensor, width: int) -> list[Tensor]:
    """Return views `[N, width]` of a tensor: along its last axis, and along its second one."""
    vectors_of_outputs = []
    if tensor.shape[-1:] == (width,):
        vectors_of_outputs.append(tensor.reshape(-1, width))
    if tensor.ndim > 2 and tensor.shape[1] == width:
        vectors_of_outputs.append(tensor.movedim(1, -1).reshape(-1, width))
    return vectors_of_outputs


def distance_to(tokens: Tensor, outputs: list[Tensor]) -> float:
    """Return the largest distance of a token `[T, D]` to the nearest vector of outputs of the
    library, relative to their scale: 0 if every token is one of them."""
    best = float("inf")
    for tensor in outputs:
        for rows in vectors(tensor.float(), tokens.shape[-1]):
            if len(rows) < len(tokens) or len(rows) > 20000:
                continue
            exact = "donot_use_mm_for_euclid_dist"
            nearest = torch.cdist(tokens.float(), rows, compute_mode=exact).amin(1).max()
            scale = rows.abs().max().clamp(min=1e-6) * tokens.shape[-1] ** 0.5
            best = min(best, float(nearest / scale))
    return best


def _check_hears(model: Any) -> None:
    """Raise NotApplicable if the encoder of a model, or a model without sections, reads ids."""
    whole = model.config
    if any(getattr(whole, section, None) is not None for section in TOWERS["audio"]):
        return
    pair = getattr(whole, "is_encoder_decoder", False)
    encoder = model.get_encoder() if pair else model
    if next(iter(inspect.signature(encoder.forward).parameters)) == "input_ids":
        raise NotApplicable("its encoder reads ids of text, and no sound")


def library_builds(kind: str, name: str) -> None:
    """Raise NotApplicable if the library itself builds no model of a type."""
    if kind in ("timm", "open_clip", "monai"):
        return
    errors = []
    for config in configurations(name):
        try:
            with torch.device("meta"):
                model = AutoModel.from_config(CONFIG_MAPPING[name].from_dict(config))
            if kind == "audio":
                _check_hears(model)
            return
        except NotApplicable:
            raise
        except Exception as error:
            errors.append(error)
    raise NotApplicable(f"the library builds no tiny model: {errors[0] if errors else ''}")
