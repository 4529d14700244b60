"""The text tower of any open_clip model, with its tokenizer.

Legend: `B` batch, `N` the model's context length, `D` width of the space shared with images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIPTextCfg, _build_text_tower
from torch import Tensor, nn
from transformers import AutoConfig

from ..base import Encoder, Features
from ..messages import did_you_mean
from .open_clip_tokenizer import OpenClipTextProcessor, build_tokenizer
from .repo_id import HUB, LOCAL
from .towers import configuration


class OpenClipText(Encoder):
    """tokens and pooled are in the shared space, so that they have one width: `pooled`, at unit
    length, equals `encode_text(normalize=True)`; the tokens passed the same layers (final norm
    and projection).

    name: a name of open_clip (`ViT-B-32`, no weights), one with its weights as
    `open_clip.list_pretrained(as_str=True)` prints them (`ViT-B-32:laion2b_s34b_b79k`),
    `hf-hub:org/name`, or `local-dir:PATH`. options: changes to
    the model's configuration (`{embed_dim: 64, text_cfg: {layers: 2}}`). config: filled by
    `resolve`.
    """

    def __init__(
        self,
        *,
        name: str,
        options: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if config is None:
            raise ValueError(f"open_clip: the configuration of {name!r} is missing; resolve first")
        self.name, self.changes = name, options
        self.tower = _tower(config)
        self.dim = _width(self.tower)
        self.processor = OpenClipTextProcessor(name, config["text_cfg"])

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Read the configuration of `name`, and the tokenizer's files if it has any."""
        if options.get("config") is not None:
            return options
        name = options["name"]
        loaded = _read(name)
        config = _merged(
            {key: loaded[key] for key in ("embed_dim", "quick_gelu", "text_cfg") if key in loaded},
            options.get("options") or {},
        )
        text = config["text_cfg"]
        if text.get("hf_model_name"):
            inner = AutoConfig.from_pretrained(text["hf_model_name"])
            config["hf_config"] = json.loads(json.dumps(inner.to_diff_dict(), default=str))
        build_tokenizer(name, text, local=False)
        return {**options, "config": config}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        """Return True for a hub id, a name with a tag, and a folder with safetensors."""
        name = str(options["name"])
        if name.startswith(LOCAL):
            return any(Path(name.removeprefix(LOCAL)).glob("*.safetensors"))
        return name.startswith(HUB) or _split(name)[1] is not None

    def load(self) -> None:
        """Read the whole model's weights and keep the text tower's."""
        model, tag = _split(self.name)
        if not self.has_pretrained_weights({"name": self.name}):
            tags = open_clip.list_pretrained_tags_by_model(model)
            raise ValueError(
                f"open_clip: {self.name!r} names no weights; known: "
                f"{', '.join(f'{model}:{t}' for t in tags) or 'none'}; or set weights: none"
            )
        changes = self.changes or {}
        merged = _merged(_read(self.name), changes)
        clip_model = open_clip.create_model(
            model,
            pretrained=tag,
            require_pretrained=True,
            pretrained_text=False,
            **{key: merged[key] for key in changes},
        )
        state = getattr(clip_model, "text", clip_model).state_dict()  # CLIP has no text submodule
        self.tower.load_state_dict({key: state[key] for key in self.tower.state_dict()})

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        """Return tokens `[B, N, D]` and pooled `[B, D]` of ids `[B, N]` and mask `[B, N]`."""
        read = _read_hf if isinstance(self.tower, HFTextEncoder) else _read_clip
        tokens, pooled = read(self.tower, ids)
        return Features(tokens.masked_fill(~mask.unsqueeze(-1), 0), mask, pooled=pooled)

    def blocks(self) -> Sequence[nn.Module]:
        return next((tuple(m) for m in self.tower.modules() if isinstance(m, nn.ModuleList)), ())


def _split(name: str) -> tuple[str, str | None]:
    """Split `ViT-B-32:tag` into name and tag; a folder or hub id is kept."""
    if name.startswith((LOCAL, HUB)):
        return name, None
    model, _, tag = name.partition(":")
    return model, tag or None


def _read(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of a model. Raise ValueError for an unknown one."""
    model, tag = _split(name)
    try:
        config: dict[str, Any] | None = open_clip.get_model_config(model)
    except (OSError, ValueError) as error:
        raise ValueError(f"open_clip: no model at {name!r}: {error}") from error
    if config is None:
        near = did_you_mean(model, open_clip.list_models())
        raise ValueError(f"open_clip: no model {model!r}{near}")
    if tag is not None:
        _check_tag(model, tag, bool(config.get("quick_gelu", False)))
    return config


def _check_tag(model: str, tag: str, quick: bool) -> None:
    weights = open_clip.get_pretrained_cfg(model, tag)
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"open_clip: {model} has no weights {tag!r}; known: {tags}")
    trained = bool(weights.get("quick_gelu", False))
    if trained != quick:
        other = f"{model}-quickgelu" if trained else model.removesuffix("-quickgelu")
        raise ValueError(
            f"open_clip: {model}:{tag} was trained with quick_gelu {trained}, {model} has {quick}; "
            f"name it {other}:{tag}"
        )


def _merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge changes of a section (`text_cfg`) key by key."""
    sections = {k: {**config.get(k, {}), **v} for k, v in changes.items() if isinstance(v, dict)}
    return {**config, **changes, **sections}


def _tower(config: dict[str, Any]) -> nn.Module:
    text = CLIPTextCfg(**{**config["text_cfg"], "output_tokens": True})
    if not text.hf_model_name:
        quick = config.get("quick_gelu", False)
        tower: nn.Module = _build_text_tower(config["embed_dim"], text, quick_gelu=quick)
        return tower
    # open_clip's builder would download the configuration, and return other parts.
    inner = configuration("open_clip", config["hf_config"])
    hub: Any = HFTextEncoder(
        text.hf_model_name,
        output_dim=config["embed_dim"],
        config=inner,
        pooler_type=text.hf_pooler_type,
        proj_type=text.hf_proj_type,
        pretrained=False,
    )
    if inner.is_encoder_decoder:
        hub.transformer = hub.transformer.get_encoder()
    elif text.hf_pooler_type != "cls_pooler":
        hub.transformer.pooler = None
    module: nn.Module = hub
    return module


def _width(tower: Any) -> int:
    if isinstance(tower, HFTextEncoder):
        return int(tower.output_dim)
    return int(tower.width if tower.text_projection is None else tower.output_dim)


def _read_clip(tower: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    pooled, tokens = tower(ids)
    if tower.cls_emb is not None:  # CoCa returns its tokens before the final norm
        tokens = tower.ln_final(tokens)
    if tower.text_projection is None:
        return tokens, pooled
    if isinstance(tower.text_projection, nn.Linear):
        return tower.text_projection(tokens), pooled
    return tokens @ tower.text_projection, pooled


def _read_hf(tower: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """As `HFTextEncoder.forward`, which keeps no class token and cannot run on meta."""
    real = (ids != tower.config.pad_token_id).long()
    if ids.is_meta:
        out = tower.transformer(inputs_embeds=tower.transformer.get_input_embeddings()(ids))
    else:
        out = tower.transformer(input_ids=ids, attention_mask=real)
    return tower.proj(out.last_hidden_state), tower.proj(tower.pooler(out, real))
