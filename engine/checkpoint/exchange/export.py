"""A run as a folder that transformers' `LlavaForConditionalGeneration` opens.

LLaVA is one image stream whose encoder is a vision model of transformers, a connector of two linear
maps, and a causal decoder. What is another way is named, and nothing is written.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ....backbones.causal import Causal
from ....connectors.projectors import ACTIVATIONS, MLP
from ....modalities.base import Features
from ....modalities.messages import quiet_loading
from ...model import Model
from ...model.parameters import dequantize
from ...utils import ConfigError, atomic_folder
from ..run_folder import load_model

IMAGE = "<image>"
TOLERANCE = 1e-4


def export_llava(run: Path, out: Path) -> Any:
    """Write a run as a LLaVA folder, and return the model that transformers opens from it.

    Adapters are merged. The logits of the result are compared with the run's on a picture. Raise
    ConfigError, one line, that names the part that LLaVA does not have.
    """
    model = load_model(run)
    name = _image_stream(model)
    stream, backbone = model.stream(name), copy.deepcopy(model.backbone)
    assert backbone is not None
    merge_adapters(backbone)
    encoder: Any = copy.deepcopy(stream.encoder)
    merge_adapters(encoder)
    connector = _projector(stream.connector, f"inputs.{name}.connector")
    decoder = _decoder(backbone)
    config = _config(encoder, connector, decoder, f"inputs.{name}.encoder")
    llava: Any = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        _fill(llava, encoder, connector, decoder)
    with atomic_folder(out, "--out") as beside, quiet_loading():
        llava.save_pretrained(beside)
        _save_processors(beside, encoder, decoder, config)
        opened = LlavaForConditionalGeneration.from_pretrained(beside).eval()
        _compare(model, name, opened)
    return opened


def _image_stream(model: Model) -> str:
    names = [n for n in model.streams if _is_tower(model.stream(n).encoder)]
    if len(model.streams) != 1 or len(names) != 1:
        listed = ", ".join(f"inputs.{n} ({type(model.stream(n).encoder).__name__})"
                          for n in model.streams)  # fmt: skip
        raise ConfigError(
            f"inputs: found {listed or 'none'}; LLaVA has one image stream, with type: transformers"
        )
    if not isinstance(model.backbone, Causal):
        kind = type(model.backbone).__name__ if model.backbone else "none"
        raise ConfigError(f"backbone: found {kind}; LLaVA has a decoder of type: causal")
    return names[0]


def _is_tower(encoder: Any) -> bool:
    """Return whether an encoder is a vision model of transformers that may be read at a layer."""
    inner = getattr(encoder, "model", None)
    pixels = getattr(inner, "main_input_name", None) == "pixel_values"
    return isinstance(inner, PreTrainedModel) and pixels and hasattr(encoder, "layer")


def _projector(connector: Any, where: str) -> MLP:
    if isinstance(connector, MLP):
        kinds = [type(layer) for layer in connector.map.children()]
        fits = len(kinds) == 3 and kinds[0] is nn.Linear and kinds[2] is nn.Linear
        if fits and connector.whole is None:
            return connector
    kind = type(connector).__name__ if connector is not None else "none"
    raise ConfigError(
        f"{where}: found {kind}; LLaVA has two linear maps with an activation between them: "
        "type: mlp, without norm, depth or project_pooled"
    )


def _decoder(backbone: Any) -> Any:
    if backbone.new_rows:
        raise ConfigError("backbone: holds added tokens, which LLaVA's decoder has no rows for")
    if type(backbone.model.config) not in AutoModelForCausalLM._model_mapping:
        raise ConfigError(f"backbone: {backbone.kind} is no causal model of transformers")
    parts = (type(m) for m in backbone.model.modules())
    if foreign := next((p for p in parts if p.__module__.startswith("sensorium.")), None):
        raise ConfigError(f"backbone: holds a {foreign.__name__}, which transformers does not have")
    return backbone


def _config(encoder: Any, connector: Any, backbone: Any, where: str) -> LlavaConfig:
    sample = encoder.processor.prepare(_picture())
    if set(sample) != {"pixel_values"}:
        raise ConfigError(f"{where}: reads {', '.join(sample)}; LLaVA's tower reads pixels alone")
    pixels = sample["pixel_values"][None]
    with torch.no_grad():
        tokens = encoder(pixels).tokens.shape[1]
        whole = encoder.model(pixels).last_hidden_state
    if whole.ndim != 3 or whole.shape[1] - tokens not in (0, 1):
        raise ConfigError(f"{where}: returns no row of patches behind at most one class token")
    layer = -1 if encoder.layer is None else encoder.layer
    activation = next(n for n, kind in ACTIVATIONS.items() if kind is type(connector.map[1]))
    hidden, dim = connector.map[0].out_features, connector.map[2].out_features
    if hidden != dim:
        raise ConfigError(
            f"{where.rpartition('.')[0]}.connector.hidden: found {hidden}; LLaVA's is as wide as "
            f"the decoder, {dim}"
        )
    text = copy.deepcopy(backbone.model.config)
    rows = text.vocab_size
    image = _image_id(backbone)
    if image == rows:
        text.vocab_size = rows + 1
    return LlavaConfig(
        vision_config=encoder.model.config,
        text_config=text,
        image_token_index=image,
        image_seq_length=tokens,
        projector_hidden_act=activation,
        vision_feature_layer=layer if layer < 0 else layer + 1,
        vision_feature_select_strategy="default" if whole.shape[1] > tokens else "full",
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )


def _image_id(backbone: Any) -> int:
    """Return the id of the placeholder: the tokenizer's own, a row that it does not use, or a new
    one."""
    backend = getattr(backbone.tokenizer, "backend", None)
    known = backend.token_to_id(IMAGE) if backend is not None else None
    return int(backbone.tokenizer.size if known is None else known)


def _fill(llava: Any, encoder: Any, connector: Any, backbone: Any) -> None:
    _copy(llava.model.vision_tower, encoder.model)
    projector = llava.model.multi_modal_projector
    projector.linear_1.load_state_dict(connector.map[0].state_dict())
    projector.linear_2.load_state_dict(connector.map[2].state_dict())
    _copy(llava.model.language_model, backbone.decoder)
    _copy(llava.lm_head, backbone.head)


def _copy(target: nn.Module, source: nn.Module) -> None:
    """Copy weights by name; tables may have a row more, which is zero."""
    state = source.state_dict()
    for name, value in target.state_dict().items():
        if name not in state:
            raise ConfigError(f"{type(source).__name__} lacks {name} of {type(target).__name__}")
        rows = len(state[name]) if value.ndim else 0
        if value.ndim and len(value) == rows + 1:
            value.zero_()
            value[:rows].copy_(state[name])
        else:
            value.copy_(state[name])


def _save_processors(folder: Path, encoder: Any, backbone: Any, config: LlavaConfig) -> None:
    encoder.processor.library().save_pretrained(folder)
    save_tokenizer(folder, backbone.tokenizer, image=config.image_token_index)


def save_model(folder: Path, inner: Any, config: Any) -> None:
    """Write a model of transformers, with the part's configuration in place of its own if it has
    one: an encoder may have switched something off in the latter (the masking of wav2vec 2.0,
    without which the mask token would be lost)."""
    inner.save_pretrained(folder)
    if type(config) is type(inner.config):
        config.architectures = [type(inner).__name__]
        config.save_pretrained(folder)


def save_tokenizer(folder: Path, tokenizer: Any, image: int | None = None) -> None:
    """Write a tokenizer as transformers opens it, if it is one of the tokenizers library. image:
    the id that `<image>` is to have."""
    backend = getattr(tokenizer, "backend", None)
    if backend is None:
        return
    written: Any = PreTrainedTokenizerFast(tokenizer_object=copy.deepcopy(backend))
    for role in ("pad", "bos", "eos"):
        index = getattr(tokenizer, f"{role}_id")
        if index is not None:
            setattr(written, f"{role}_token", backend.id_to_token(index))
    if image is not None and written.convert_tokens_to_ids(IMAGE) != image:
        written.add_special_tokens({"additional_special_tokens": [IMAGE]})
    written.save_pretrained(folder)


def _picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return Image.fromarray(pixels)


@torch.no_grad()
def _compare(model: Model, name: str, llava: Any) -> None:
    """Raise ConfigError unless both models have the same logits for a picture and some tokens."""
    stream, backbone = model.stream(name), model.backbone
    assert backbone is not None
    pixels = stream.encoder.processor.prepare(_picture())["pixel_values"][None]
    features: Features = stream.run({"pixel_values": pixels}, {})
    ids = torch.arange(8)[None] % backbone.tokenizer.size
    embeds = torch.cat([features.tokens, backbone.embed(ids)], 1)
    hidden: Any = backbone(embeds)
    ours: Tensor = backbone.logits(hidden)
    image = torch.full((1, features.tokens.shape[1]), llava.config.image_token_index)
    row = torch.cat([image, ids], 1)
    theirs = llava(input_ids=row, pixel_values=pixels, attention_mask=torch.ones_like(row)).logits[
        ..., : ours.shape[-1]
    ]
    if not torch.allclose(ours, theirs, TOLERANCE, TOLERANCE * float(ours.std())):
        difference = float((ours - theirs).abs().max())
        raise ConfigError(
            f"inputs.{name}.encoder: LLaVA reads other tokens of its tower (logits differ by "
            f"{difference:.2g}); set layer: -2, or take another tower"
        )


def merge_adapters(module: nn.Module) -> None:
    """Add the updates of peft's adapters to the weights, and take the adapters away;
    weights in 8 or 4 bits become plain ones."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    dequantize(module)
    for path, layer in list(module.named_modules()):
        if not isinstance(layer, BaseTunerLayer) or not path:
            continue
        parent, _, name = path.rpartition(".")
        owner = module.get_submodule(parent)
        if isinstance(owner, BaseTunerLayer):
            continue
        unload = getattr(layer, "unload_and_optionally_merge_module", None)
        if unload is not None:
            merged = unload(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            merged = layer.get_base_layer()
        setattr(owner, name, merged)
