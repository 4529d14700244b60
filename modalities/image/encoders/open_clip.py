"""The visual tower of any open_clip model as an encoder; its text tower is never built.

Legend: `B` batch, `T` tokens, `D` width, `E` width of the space shared with text, `H`, `W` px.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from open_clip.model import CLIPVisionCfg
from open_clip.model import _build_vision_tower as build_tower
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from ...base import Encoder, Features
from ..processor import OpenClipProcessor
from . import open_clip_config, timm_features
from .grid import from_map, token_geometry

RESNET_STRIDES = (2, 4, 8, 16, 32)


class OpenClipVision(Encoder):
    """A visual tower by the names open_clip has: `ViT-B-32` (no weights), `ViT-B-32:openai` (as
    `open_clip.list_pretrained(as_str=True)` prints them), `hf-hub:org/name`, `local-dir:folder`.

    options: changes to the named model, as in open_clip's model files (`embed_dim`,
    `quick_gelu`, `vision_cfg: {layers: 2}`), and `preprocess_cfg`. output: `tokens` returns the
    trunk's tokens, with its pooled vector before the projection; `embedding` returns
    `encode_image`, not yet normalised, as `pooled [B, E]` and the only token.
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any] | None = None,
        *,
        output: Literal["tokens", "embedding"] = "tokens",
    ) -> None:
        super().__init__()
        self.name, self.output = name, output
        config = open_clip_config.complete(name, options or {}, online=False)
        self.model = build_tower(
            config["embed_dim"],
            CLIPVisionCfg(**{**config["vision_cfg"], "timm_model_pretrained": False}),
            config["quick_gelu"],
        )
        self.dim = config["embed_dim"] if output == "embedding" else _width(self.model)
        self.dropped = () if output == "embedding" else _drop_projection(self.model)
        size = self.model.image_size
        height_width = (size, size) if isinstance(size, int) else tuple(size)
        self.processor = OpenClipProcessor(
            size=height_width, **open_clip_config.steps(config["preprocess_cfg"])
        )
        self.supports = frozenset({"hidden_states"} if output == "tokens" else ())

    @classmethod
    def list_names(cls) -> Sequence[str]:
        return open_clip_config.list_names()

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        config_options = options.get("options") or {}
        return {
            **options,
            "options": open_clip_config.complete(options["name"], config_options, online=True),
        }

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        return open_clip_config.has_pretrained_weights(options["name"])

    def load(self) -> None:
        open_clip_config.load(self.name, self.model, self.dropped)

    def blocks(self) -> Sequence[nn.Module]:
        if isinstance(self.model, TimmModel):
            return timm_features.blocks(self.model.trunk)
        if isinstance(self.model, ModifiedResNet):
            return [getattr(self.model, f"layer{i}") for i in range(1, 5)]
        return list(self.model.transformer.resblocks)

    def forward(self, pixel_values: Tensor, hidden_states: Sequence[int] = ()) -> Features:
        """pixel_values `[B, 3, H, W]` -> Features `[B, T, D]` with a grid, or `[B, 1, E]`.

        layers: blocks of a transformer, else stages, from 0 (a ResNet's stem) or the end (-1).
        """
        if self.output == "embedding":
            if hidden_states:
                raise ValueError(
                    f"open_clip: layers {tuple(hidden_states)} of a vector; set output: tokens"
                )
            outputs = self.model(pixel_values)
            pooled = (
                outputs[0] if isinstance(outputs, tuple) else outputs
            )  # CoCa returns its tokens too
            return Features.dense(pooled.unsqueeze(1), pooled=pooled)
        if isinstance(self.model, TimmModel):
            return timm_features.encode(self.model.trunk, pixel_values, hidden_states)
        if isinstance(self.model, ModifiedResNet):
            return _resnet(self.model, pixel_values, hidden_states)
        return _transformer(self.model, pixel_values, hidden_states)


def _width(tower: Any) -> int:
    if isinstance(tower, TimmModel):
        return timm_features.width(tower.trunk)
    if isinstance(tower, ModifiedResNet):
        return int(tower.attnpool.v_proj.in_features)
    return int(tower.ln_post.normalized_shape[0])


def _drop_projection(tower: Any) -> tuple[str, ...]:
    """Take out what only the embedding needs: it would stay without a gradient. Its names."""
    if isinstance(tower, TimmModel):
        tower.head = nn.Identity()
        return ("head.",)
    if isinstance(tower, ModifiedResNet):
        tower.attnpool = nn.Identity()
        return ("attnpool.",)
    tower.proj = None
    return ("proj",)


def _transformer(tower: Any, pixels: Tensor, hidden_states: Sequence[int]) -> Features:
    """open_clip's own ViT: its forward in pieces, since it returns the projected vector alone."""
    x = tower._embeds(pixels)  # [B, 1 + T, D]
    count = len(tower.transformer.resblocks)
    order = _order(hidden_states, count)
    if order:
        x, intermediates = tower.transformer.forward_intermediates(x, indices=sorted(set(order)))
    else:
        x, intermediates = tower.transformer(x), []
    pooled, tokens = tower._pool(x)
    size, patch = (pixels.shape[2], pixels.shape[3]), tower.patch_size[0]
    grid = (size[0] // patch, size[1] // patch)
    where = token_geometry(grid, size, patch)
    if tower.attn_pool is not None:  # CoCa's queries lie nowhere
        main = Features.dense(tokens, pooled=pooled if pooled.ndim == 2 else None)
    elif pooled.ndim == 3:  # no pooling: the class token is still in front
        main = Features.dense(tokens[:, 1:], **where, pooled=tokens[:, 0])
    else:
        main = Features.dense(tokens, **where, pooled=pooled)
    by_index = dict(zip(sorted(set(order)), intermediates, strict=True))
    hidden = [Features.dense(by_index[i][:, 1:], **where) for i in order]
    return main.replace(hidden_states=tuple(hidden))


def _resnet(tower: Any, pixels: Tensor, hidden_states: Sequence[int]) -> Features:
    """CLIP's ResNet: the last map's cells; its attention pool has another width."""
    size = (pixels.shape[2], pixels.shape[3])
    order = _order(hidden_states, len(RESNET_STRIDES))
    outputs = tower.forward_intermediates(pixels, indices=None, intermediates_only=True)
    maps = [
        from_map(m, size, stride)
        for m, stride in zip(outputs["image_intermediates"], RESNET_STRIDES, strict=True)
    ]
    return maps[-1].replace(hidden_states=tuple(maps[i] for i in order))


def _order(hidden_states: Sequence[int], count: int) -> list[int]:
    for layer in hidden_states:
        if not -count <= layer < count:
            raise ValueError(f"open_clip: layer {layer} of a tower that has {count}")
    return [layer % count for layer in hidden_states]
