"""LLaVA and dual towers of pictures and texts as recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...model import Model
from ...utils import ConfigError
from .common import (
    Imported,
    Json,
    copy_linear,
    copy_weights,
    image_processor,
    opened,
    plain,
    tokenizer_of,
)


def llava(path: Path) -> Imported:
    """LLaVA (Liu et al. 2023): an image stream in the prompt of a decoder."""
    model = opened(path, "LlavaForConditionalGeneration")
    config = model.config
    layer, activation = _llava_connection(config)
    hidden = model.model.multi_modal_projector.linear_1.out_features
    recipe = {
        "inputs": {
            "image": {
                "modality": "image",
                "encoder": {
                    "type": "transformers",
                    "config": plain(config.vision_config),
                    "processor": image_processor(path),
                    "layer": layer,
                },
                "connector": {"type": "mlp", "hidden": hidden, "activation": activation},
            }
        },
        "backbone": {
            "type": "causal",
            "config": {
                **plain(config.text_config),
                "tie_word_embeddings": config.tie_word_embeddings,
            },
            "tokenizer": tokenizer_of(path),
        },
        "tasks": {
            "answer": {
                "type": "captioning",
                "prompt": "USER: <image>\n{question} ASSISTANT:",
                "target": " {answer}",
            }
        },
    }

    def fill(ours: Model) -> None:
        stream, backbone = ours.stream("image"), ours.backbone
        connector: Any = stream.connector
        inner: Any = backbone
        copy_weights(stream.encoder.model, model.model.vision_tower)  # type: ignore[arg-type]
        copy_weights(inner.decoder, model.model.language_model)
        copy_weights(inner.head, model.lm_head)
        projector = model.model.multi_modal_projector
        copy_linear(connector.map[0], projector.linear_1)
        copy_linear(connector.map[2], projector.linear_2)

    return Imported(recipe, fill)


def _llava_connection(config: Any) -> tuple[int, str]:
    """Return the layer that is projected and the activation of the projector. Raise ConfigError if
    a connector cannot have them."""
    layer, activation = config.vision_feature_layer, config.projector_hidden_act
    if not isinstance(layer, int):
        raise ConfigError(f"vision_feature_layer: {layer} joins layers, which no connector does")
    if config.vision_feature_select_strategy != "default":
        raise ConfigError(
            "vision_feature_select_strategy: "
            f"{config.vision_feature_select_strategy} keeps the class token; expected default"
        )
    if activation not in ("gelu", "relu", "silu"):
        raise ConfigError(f"projector_hidden_act: found {activation}, expected gelu, relu or silu")
    return layer, activation


def _dual(path: Path, model: Any, loss: str, connector: Any, dim: int, text: Json) -> Json:
    """Return the recipe of two towers in one space."""
    config = model.config
    text_config = plain(config.text_config)
    encoder = {
        "type": "transformers",
        "name": str(path),
        "config": text_config,
        "tokenizer": tokenizer_of(path),
        "max_length": text_config["max_position_embeddings"],
        "weights": "none",
        **text,
    }
    vision = {
        "type": "transformers",
        "config": plain(config.vision_config),
        "processor": image_processor(path),
    }
    return {
        "inputs": {
            "image": {"modality": "image", "encoder": vision, "connector": connector},
            "text": {"modality": "text", "encoder": encoder, "connector": connector},
        },
        "tasks": {
            "align": {"type": "contrastive", "streams": ["image", "text"], "dim": dim, "loss": loss}
        },
    }


def clip(path: Path) -> Imported:
    """CLIP (Radford et al. 2021): projections of an image's and a text's vector, InfoNCE."""
    model = opened(path, "CLIPModel")
    connector = {"type": "linear", "project_pooled": True}
    recipe = _dual(path, model, "infonce", connector, model.config.projection_dim, {})

    def fill(ours: Model) -> None:
        towers = {
            "image": (model.vision_model, model.visual_projection),
            "text": (model.text_model, model.text_projection),
        }
        for name, (tower, projection) in towers.items():
            stream: Any = ours.stream(name)
            _copy_tower(stream.encoder.model, tower)
            copy_linear(stream.connector.map, projection)
            copy_linear(stream.connector.whole, projection)
        task: Any = ours.task("align")
        task.log_scale.copy_(model.logit_scale)

    return Imported(recipe, fill)


def siglip(path: Path) -> Imported:
    """SigLIP (Zhai et al. 2023) and SigLIP 2 at native resolution (Tschannen et al. 2025): an
    image's and a text's vector as the towers return them, a sigmoid for each pair."""
    model = opened(path, "SiglipModel", "Siglip2Model")
    config = model.config
    widths = {
        "vision_config.hidden_size": config.vision_config.hidden_size,
        "text_config.hidden_size": config.text_config.hidden_size,
        "text_config.projection_size": config.text_config.projection_size,
    }
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ConfigError(f"found {listed}, expected one width")
    dim = config.vision_config.hidden_size
    recipe = _dual(path, model, "siglip", "cls", dim, {"padding": "max_length"})

    def fill(ours: Model) -> None:
        for name, tower in (("image", model.vision_model), ("text", model.text_model)):
            stream: Any = ours.stream(name)
            _copy_tower(stream.encoder.model, tower)
        task: Any = ours.task("align")
        task.log_scale.copy_(model.logit_scale.squeeze())
        task.bias.copy_(model.logit_bias.squeeze())

    return Imported(recipe, fill)


def _copy_tower(target: nn.Module, source: nn.Module) -> None:
    """Copy a tower into the class that holds it alone, which may keep it one level deeper."""
    state = source.state_dict()
    names = {name: name.removeprefix(_prefix(target, state)) for name in target.state_dict()}
    target.load_state_dict({name: state[inner] for name, inner in names.items()})


def _prefix(target: nn.Module, state: Mapping[str, Any]) -> str:
    name = next(iter(target.state_dict()))
    return "" if name in state else f"{name.partition('.')[0]}."
