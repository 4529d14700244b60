"""Text read as pixels: a transformer over the patches of its strip (PIXEL, arXiv 2207.06991).

Legend: `B` batch, `T` patches, `h` px of a side of a patch, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...base import Encoder, Features, LayerHook, PositiveInt, Processor, Sample
from ...features import split_signal
from ...text_processor import CutCounter
from .render import Renderer


class StripProcessor(Processor):
    """`{"strip": uint8 [h, h T]}`; a longer text is cut, its end stays, and it is counted."""

    def __init__(self, patch: int, fonts: Sequence[str], max_patches: int) -> None:
        self.patch, self.fonts, self.max_patches = patch, tuple(fonts), max_patches
        self.renderer = Renderer(patch, fonts)
        self.cut = CutCounter()

    def prepare(self, raw: str) -> Sample:
        strip, side = self.renderer.render(raw), self.patch
        if strip.shape[1] > side * self.max_patches:
            self.cut.add(f"max_patches {self.max_patches}", raw)
            strip[:, side * (self.max_patches - 1) : side * self.max_patches] = 0
            strip = strip[:, : side * self.max_patches]
        return {"strip": torch.from_numpy(strip)}

    def settings(self) -> dict[str, Any]:
        return {"patch": self.patch, "fonts": list(self.fonts), "max_patches": self.max_patches}


class RenderedText(Encoder):
    """A transformer with learned positions over the patches of a text's picture; no vocabulary.

    patch: px of a side. fonts: see `Renderer`. max_patches: a longer text is cut. dim, depth,
    heads: of the layers.
    """

    supports = frozenset({"hidden_states", "token_mask", "layer_hooks", "targets"})

    def __init__(
        self,
        *,
        dim: PositiveInt = 128,
        depth: PositiveInt = 4,
        heads: PositiveInt = 4,
        patch: PositiveInt = 16,
        max_patches: PositiveInt = 256,
        fonts: list[str] | None = None,
    ) -> None:
        super().__init__()
        if dim % heads or max_patches < 2:
            raise ValueError(
                f"rendered: dim {dim}, heads {heads}, max_patches {max_patches}; heads must divide "
                "dim, and max_patches be 2 or more"
            )
        self.dim, self.target_dim = dim, patch * patch
        self.processor: StripProcessor = StripProcessor(patch, fonts or (), max_patches)
        self.embed = nn.Linear(self.target_dim, dim)
        self.position = nn.Parameter(torch.randn(1, max_patches, dim) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(dim)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """strip `[B, h, h T]` uint8, white in the padding, and mask `[B, T]`."""
        side = self.processor.patch
        lengths = torch.tensor([s["strip"].shape[1] // side for s in samples])
        longest = int(lengths.max())
        strip = torch.full((len(samples), side, side * longest), 255, dtype=torch.uint8)
        for row, sample in enumerate(samples):
            strip[row, :, : sample["strip"].shape[1]] = sample["strip"]
        return {"strip": strip, "mask": torch.arange(longest) < lengths[:, None]}

    def targets(self, strip: Tensor, mask: Tensor) -> Features:
        """Return the pixels of each patch, 0 white to 1 black."""
        side, count = self.processor.patch, mask.shape[1]
        ink = 1 - strip[:, None].to(self.position.dtype) / 255
        return self._features(split_signal(ink, (1, count), (side, side)), mask)

    def forward(
        self,
        strip: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Features:
        """strip `[B, h, h T]`, mask `[B, T]` -> tokens `[B, T, D]`; padding is seen by none."""
        x = self.embed(self.targets(strip, mask).tokens)
        if token_mask is not None:
            x = torch.where(token_mask[..., None], self.mask_token.to(x.dtype), x)
        x = x + self.position[:, : x.shape[1]]
        chosen = [self._index(n) for n in hidden_states]
        hooks = {self._index(n): hook for n, hook in (layer_hooks or {}).items()}
        hide = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        hide = hide.masked_fill(~mask, torch.finfo(x.dtype).min)
        states: dict[int, Tensor] = {}
        for number, layer in enumerate(self.layers):
            x = layer(x, src_key_padding_mask=hide)
            x = hooks[number](x, mask) if number in hooks else x
            states[number] = x
        layers = tuple(self._features(self.norm(states[n]), mask) for n in chosen)
        return self._features(self.norm(x), mask).replace(hidden_states=layers)

    def _index(self, number: int) -> int:
        if not -len(self.layers) <= number < len(self.layers):
            raise ValueError(f"rendered: there is no layer {number}; it has {len(self.layers)}")
        return number % len(self.layers)

    def _features(self, tokens: Tensor, mask: Tensor) -> Features:
        side = float(self.processor.patch)
        tokens = tokens.masked_fill(~mask[..., None], 0)
        grid = (tokens.shape[1],)
        return Features(tokens, mask, grid=grid, spacing=(side,), origin=(side / 2,))
