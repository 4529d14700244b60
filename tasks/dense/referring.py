"""Masks that a text asks for, by bridges between two frozen towers (ETRIS, arXiv 2307.11545).

At chosen depths of both towers, narrow adapters let the picture's tokens attend to the text's and
the text's to the picture's. Each tower is run twice: once as it is, which gives the other one's
hidden states, and once with them. The adapters begin at zero, so that the towers begin as they are.

Legend: `B` rows, `T` tokens of the picture, `L` of the text, `D` widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ...connectors.base import Connector
from ...modalities.base import (
    Features,
    LayerHook,
    NonNegativeFloat,
    PositiveInt,
    Probability,
)
from ..base import Context
from ..uses import StreamUse
from .segmentation import WHO, Segmentation


class Bridge(nn.Module):
    """Tokens of one tower, changed by those of the other: down, cross-attention, up, added."""

    def __init__(self, dim: int, other: int, width: int, heads: int) -> None:
        super().__init__()
        self.down, self.from_other = nn.Linear(dim, width), nn.Linear(other, width)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up = nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor, other: Features) -> Tensor:
        """tokens `[B, T, D]`, other `[B, L, D']` -> tokens `[B, T, D]`."""
        query, key = self.down(tokens), self.from_other(other.tokens)
        hidden = other.mask.new_zeros(other.mask.shape, dtype=key.dtype)
        hidden = hidden.masked_fill(~other.mask, -1e4)
        mixed, _ = self.attention(self.norm(query), key, key, key_padding_mask=hidden)
        changed: Tensor = tokens + self.up(nn.functional.gelu(query + mixed))
        return changed


class Referring(Segmentation):
    """input, text: the streams of both towers, which may be frozen. mask: the stream of true masks.
    layers: of the picture's tower, behind which a bridge stands; text_layers: of the text's, as
    many; the same by default. width, heads: of the bridges. head: reads the picture's tokens, each
    multiplied by the text's vector; by default `{type: unetr, axes: 2}`. Other options: see
    `segmentation`.
    """

    ability: ClassVar[str] = ""
    head_types: ClassVar[Mapping[str, Any]] = {"head": {"type": "unetr", "axes": 2}}

    def __init__(
        self,
        *,
        input: str,
        text: str,
        mask: str = "mask",
        layers: list[int],
        text_layers: list[int] | None = None,
        width: PositiveInt = 64,
        heads: PositiveInt = 4,
        dice: NonNegativeFloat = 1.0,
        ce: NonNegativeFloat = 1.0,
        threshold: Probability = 0.5,
        prior: Probability = 0.01,
    ) -> None:
        super().__init__(input=input, mask=mask, dice=dice, ce=ce, threshold=threshold, prior=prior)
        chosen = layers if text_layers is None else text_layers
        if not layers or len(layers) != len(chosen):
            raise ValueError(
                f"text_layers: found {len(chosen)}, expected as many as layers, one or more: "
                f"{len(layers)}"
            )
        if width % heads:
            raise ValueError(f"heads: found {heads} at width {width}, expected a divisor of it")
        self.text, self.width, self.bridge_heads = text, width, heads
        self.layers = {input: tuple(layers), text: tuple(chosen)}
        abilities = frozenset({"hidden_states", "layer_hooks"})
        for stream in (input, text):
            self.streams = {
                **self.streams,
                stream: StreamUse(supports=abilities, hidden_states=self.layers[stream]),
            }
        self.bridges = nn.ModuleDict()

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        dims = {stream: widths[f"{stream}.encoder"] for stream in (self.input, self.text)}
        for stream, other in ((self.input, self.text), (self.text, self.input)):
            self.bridges[stream] = nn.ModuleList(
                Bridge(dims[stream], dims[other], self.width, self.bridge_heads)
                for _ in self.layers[stream]
            )
        self.condition = nn.Linear(dims[self.text], dims[self.input])

    def bridged(self, ctx: Context) -> tuple[Features, Features]:
        """Return the features of both towers, picture and text, run with the other's hidden
        states."""
        plain = {
            stream: ctx.encode(f"{stream}.encoder", hidden_states=layers).hidden_states
            for stream, layers in self.layers.items()
        }

        def run(stream: str, other: str) -> Features:
            hooks = {
                layer: _crossing(bridge, hidden)
                for layer, bridge, hidden in zip(
                    self.layers[stream], self._of(stream), plain[other], strict=True
                )
            }
            return ctx.encode(f"{stream}.encoder", layer_hooks=hooks)

        return run(self.input, self.text), run(self.text, self.input)

    def _of(self, stream: str) -> Sequence[nn.Module]:
        bridges: Any = self.bridges[stream]
        return list(bridges)

    def _head_output(self, ctx: Context, view: str = "main") -> Features:
        head = self.heads["head"]
        if isinstance(head, Connector) and head.hidden_layers:
            raise ValueError(f"{WHO}: head.layers: the bridged tower returns no other layers")
        picture, text = self.bridged(ctx)
        asked = 1 + self.condition(text.pool())[:, None]
        output: Features = head(picture.replace(tokens=picture.tokens * asked))
        if output.grid is None or output.dim != 1:
            raise ValueError(f"{WHO}: its head returns tokens of {output.dim}; use head: unetr")
        return output.replace(tokens=output.tokens + self.start)


def _crossing(bridge: nn.Module, other: Features) -> LayerHook:
    return lambda tokens, mask: bridge(tokens, other)
