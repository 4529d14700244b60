"""The contract of a connector, and of a head, which has the same signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..connectors.base import Connector
from ..modalities.base import Features
from .common import (
    check_features,
    check_gradients,
    check_meta,
    check_resolve,
    check_state,
    checking,
    close,
    expect,
    gap,
    outputs,
    plan_options,
    same,
)

Grid = tuple[int, ...] | None

GRIDS: tuple[Grid, ...] = (None, (16,), (4, 4), (2, 2, 4))
IN_DIM, OUT_DIM = 16, 24
LENGTHS = (16, 10, 1)
"""Real tokens of the rows of a batch."""


def check_connector(
    cls: type[Connector],
    *,
    grids: Sequence[Grid] = GRIDS,
    pooled: bool = False,
    **options: Any,
) -> None:
    """Check a connector or head class against the contract of `connectors.base.Connector`.

    Args:
        cls: the class; `options` are its recipe's.
        grids: how the 16 tokens of its input may lie; leave out those that it does not take.
        pooled: True if it reads `Features.pooled`; its input then has one.

    Raises:
        AssertionError: the violated rule, in one line.
    """
    contract = ConnectorContract(cls, pooled)
    contract.build(options)
    for grid in grids:
        contract.check_output(grid)
    contract.check_rows(grids[0])
    contract.check_causal()
    contract.check_padding(grids)
    usual = next((grid for grid in grids if grid is not None and len(grid) > 1), grids[0])
    contract.check_training(usual)
    contract.check_copies(usual)


class ConnectorContract:
    """A connector under test."""

    def __init__(self, cls: type[Connector], pooled: bool) -> None:
        self.cls, self.name, self.pooled = cls, cls.__name__, pooled

    def build(self, options: dict[str, Any]) -> None:
        with checking(self.name, "options"):
            base = "is no subclass of connectors.base.Connector"
            expect(isinstance(self.cls, type) and issubclass(self.cls, Connector), base)
            self.plan = plan_options(self.cls, "connector", options)
        with checking(self.name, "resolve"):
            check_resolve(self.plan)
        with checking(self.name, "constructor"):
            self.part = self.make()
            widths = getattr(self.part, "in_dim", None), getattr(self.part, "out_dim", None)
            expect(widths == (IN_DIM, OUT_DIM), f"in_dim and out_dim are {widths}, as attributes")

    def make(self, seed: int = 0) -> Connector:
        part: Connector = self.plan.build(seed, in_dim=IN_DIM, out_dim=OUT_DIM)
        return part.eval()

    def features(self, grid: Grid) -> Features:
        """Return random features `[3, 16, 16]`, ragged, with the hidden layers it needs."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(len(LENGTHS), max(LENGTHS), IN_DIM, generator=generator)
        mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
        features = Features(
            tokens * mask[..., None],
            mask,
            grid=grid,
            spacing=None if grid is None else (2.0,) * len(grid),
            origin=None if grid is None else (1.0,) * len(grid),
            pooled=torch.randn(len(LENGTHS), IN_DIM, generator=generator) if self.pooled else None,
        )
        return self.with_layers(features)

    def with_layers(self, features: Features) -> Features:
        """Return the features with hidden layers, each another multiple of the tokens."""
        count = len(self.part.hidden_layers)
        hidden = (features.replace(tokens=features.tokens * (i + 1)) for i in range(count))
        return features.replace(hidden_states=tuple(hidden))

    def check_output(self, grid: Grid) -> None:
        with checking(self.name, f"grid {grid}"), torch.no_grad():
            features = self.features(grid)
            output = self.part(features)
            check_features(output, len(LENGTHS), OUT_DIM)
            expect(same(output.tokens, self.part(features).tokens), "eval(): not deterministic")
            if output.pooled is not None:
                single = output.tokens.shape[1] == 1 and bool(output.mask.all())
                expect(single and output.grid is None, "pooled is set: expected one token, no grid")
                expect(
                    torch.equal(output.pooled, output.tokens[:, 0]), "pooled is not its one token"
                )
            if self.part.hidden_layers:
                expect(not output.hidden_states, "it keeps hidden states that it read")
            else:
                passed = self.part(features.replace(hidden_states=(features,))).hidden_states
                expect(passed == (features,), "hidden states of the input do not pass through")

    def check_rows(self, grid: Grid) -> None:
        with checking(self.name, "rows"), torch.no_grad():
            features = self.features(grid)
            reference = self.part(features)
            for row in range(len(LENGTHS)):
                alone = self.part(self.row(features, row)).tokens[0]
                expect(close(alone, reference.tokens[row]), f"row {row} alone and in a batch: "
                       f"{gap(alone, reference.tokens[row])}")  # fmt: skip
        with checking(self.name, "a row without tokens"):
            part, present = self.make(), torch.tensor([True, True, False])[:, None]
            empty = self.with_layers(
                features.replace(mask=features.mask & present, hidden_states=())
            )
            output = part(empty)
            expect(output.tokens.isfinite().all(), "returns NaN or infinity")
            output.tokens.square().sum().backward()
            grads = [p.grad for p in part.parameters() if p.grad is not None]
            expect(all(grad.isfinite().all() for grad in grads), "returns gradients not finite")

    def row(self, features: Features, row: int) -> Features:
        pooled = None if features.pooled is None else features.pooled[row : row + 1]
        rows = slice(row, row + 1)
        row_features = features.replace(
            tokens=features.tokens[rows],
            mask=features.mask[rows],
            pooled=pooled,
            hidden_states=(),
        )
        return self.with_layers(row_features)

    def check_causal(self) -> None:
        """With other tokens at the end, outputs of those before it are as they were."""
        if not self.part.causal:
            return
        with checking(self.name, "causal"), torch.no_grad():
            features, kept = self.features((16,)), LENGTHS[0] * 3 // 4
            changed = features.tokens.clone()
            changed[0, kept:] += 1.0
            other = features.replace(tokens=changed, hidden_states=())
            before, after = (self.part(f).tokens[0] for f in (features, self.with_layers(other)))
            stays = kept * len(before) // LENGTHS[0]
            expect(stays, "one token reads all: it is not causal")
            expect(close(after[:stays], before[:stays]), "it looks ahead: "
                   f"{gap(after[:stays], before[:stays])}")  # fmt: skip

    def check_padding(self, grids: Sequence[Grid]) -> None:
        """Padded positions, their number and their values, do not affect the result."""
        with checking(self.name, "padding"), torch.no_grad():
            features = self.features(grids[0])
            reference = self.part(features)
            hidden = ~features.mask[..., None]
            garbage = features.tokens.masked_fill(hidden, torch.nan)
            output = self.part(self.with_layers(features.replace(tokens=garbage, hidden_states=())))
            expect(same(output.tokens, reference.tokens), "values in the padding change the result")
            longer = features.replace(
                tokens=F.pad(garbage, (0, 0, 0, len(garbage[0]))),
                mask=F.pad(features.mask, (0, len(garbage[0]))),
                grid=doubled(features.grid),
                hidden_states=(),
            )
            output = self.part(self.with_layers(longer))
            length = reference.tokens.shape[1]
            expect(close(output.tokens[:, :length], reference.tokens), "more padding changes the "
                   f"result: {gap(output.tokens[:, :length], reference.tokens)}")  # fmt: skip
            same_mask = torch.equal(output.mask[:, :length], reference.mask)
            expect(same_mask and not output.mask[:, length:].any(), "more padding changes the mask")

    def check_training(self, grid: Grid) -> None:
        with checking(self.name, "gradients"):
            part, features = self.make(), self.features(grid)
            tokens = features.tokens.clone().requires_grad_()
            features = self.with_layers(features.replace(tokens=tokens, hidden_states=()))
            check_gradients(part, outputs(part(features)))
            if self.pooled or part.selects_tokens:
                return
            expect(tokens.grad is not None, "no gradient reaches its input")
            assert tokens.grad is not None
            reached = tokens.grad.abs().sum(-1) > 0
            expect(not reached[~features.mask].any(), "a gradient reaches the padding of its input")
            share = reached[features.mask].float().mean().item()
            expect(share > 0.5, f"a gradient reaches {share:.0%} of the tokens")

    def check_copies(self, grid: Grid) -> None:
        features = self.features(grid)
        with checking(self.name, "meta device"):
            with torch.device("meta"):
                meta = self.make()
            check_meta(meta)
            shapes = [tuple(t.shape) for t in outputs(meta(features.to("meta")))]
            real = [tuple(t.shape) for t in outputs(self.part(features))]
            expect(shapes == real, f"shapes {shapes}, on a real device {real}")
        with checking(self.name, "state as safetensors"), torch.no_grad():
            other = self.make(seed=1)
            check_state(self.part, other)
            expect(
                same(other(features).tokens, self.part(features).tokens), "read back: it differs"
            )
        with checking(self.name, "autocast to bfloat16"), torch.no_grad():
            reference = self.part(features)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rough = self.part(features).tokens
            expect(not rough[~reference.mask].any(), "tokens of the padding are not zero")
            near = torch.allclose(rough.float(), reference.tokens, 0.1, 0.1)
            expect(near, f"far from float32: {gap(rough.float(), reference.tokens)}")


def doubled(grid: Grid) -> Grid:
    """Return the grid with twice as many places along its first axis."""
    return None if grid is None else (2 * grid[0], *grid[1:])
