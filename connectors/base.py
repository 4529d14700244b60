"""The connector: `Features` of one width and length -> `Features` of another.

Legend: `B` batch, `T` tokens, `D` width. A head on a frozen encoder has the same
signature; its `out_dim` comes from its task.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..modalities.base import Component, Features


@dataclass(frozen=True)
class Between:
    """Where the widths of a connector within another part come from: names of arguments of that
    part's constructor, each a part itself (its `dim`) or a number.

    `Annotated[Connector, Between("encoder", "dim")]` goes from the width of the argument
    `encoder` to the number `dim`. Within a connector, `in_dim` and `out_dim` are its own.
    """

    in_dim: str
    out_dim: str


class Connector(Component, nn.Module):
    """Built as `Class(in_dim, out_dim, **options)`. Independent of modalities.

    `forward(Features [B, T, in_dim]) -> Features [B, T', out_dim]` with the new mask, grid, spacing
    and origin. A pooling connector returns `pooled [B, out_dim]` and the same vector as its only
    token.

    hidden_layers: layers of the encoder that it reads as `features.hidden_states`, in this order;
    for a head the task requests them. selects_tokens: it returns some of its tokens, or looks a
    vector up by them, so that no gradient reaches the others. lazy_parameters: names of its tables
    of which a step changes only the rows that have a gradient, with any optimizer. reads_items: a
    cell of its stream is a list of items; `forward(features, items)` gets the features of the items
    of all rows, and their number in each row, `[B]` on the CPU, and returns those of the rows.
    causal: its tokens, in the order of the input, read none of the input behind their own extent.
    """

    hidden_layers: tuple[int, ...] = ()
    selects_tokens: bool = False
    lazy_parameters: tuple[str, ...] = ()
    reads_items: bool = False
    causal: bool = False

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim

    def forward(self, features: Features) -> Features:
        raise NotImplementedError
