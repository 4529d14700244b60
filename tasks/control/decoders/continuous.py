"""Regression of control points: BEAST-ACT (arXiv 2506.06072), with or without its conditional VAE.

Legend: `B` rows, `L` tokens of a chunk, `Q` query positions that predict `W` of them each, `D`
width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ....backbones.base import Backbone
from ....modalities.action.tokenizers import ActionTokenizer
from ....modalities.base import Features, Loss
from ...batch import Batch
from .base import INIT_STD, ActionDecoder, ActionOutput, fixed_length
from .chunks import Chunk, ChunkStatistics
from .cvae import ActionVAE, divergence


class Points:
    """Continuous encoding of a tokenizer: control points `[B, L]` in [-1, 1]."""

    def __init__(self, tokenizer: ActionTokenizer) -> None:
        if not hasattr(tokenizer, "encode_continuous"):
            raise ValueError(
                f"tokenizer: {type(tokenizer).__name__} has no control points to regress; set "
                "tokenizer: bspline"
            )
        self.tokenizer: Any = tokenizer

    def encode(self, chunk: Chunk) -> Tensor:
        points: Tensor = self.tokenizer.encode_continuous(
            chunk.actions, padding=chunk.padding, start=chunk.start
        )
        return points.flatten(1).float()

    def decode(self, points: Tensor, steps: int, start: Tensor | None) -> Tensor:
        """Return `[B, steps, dof]`. Raise ValueError for points that are not finite."""
        if not torch.isfinite(points).all():
            row = int((~torch.isfinite(points)).any(1).nonzero()[0])
            raise ValueError(
                f"actions: row {row} of the batch has control points that are not finite; the "
                "model has diverged: train it with a smaller train.optimizer.lr"
            )
        inside = points.clamp(-1, 1)
        actions: Tensor = self.tokenizer.decode_continuous(inside, steps=steps, start=start)
        return actions


class Continuous(ActionDecoder):
    """Control points regressed at learned queries with an L1 loss. latent: width of the latent of a
    conditional VAE, by default none. kl: weight of its divergence."""

    options: ClassVar[tuple[str, ...]] = ("latent", "kl")
    discrete: ClassVar[bool] = False

    def __init__(
        self,
        tokenizer: ActionTokenizer,
        chunk: ChunkStatistics,
        *,
        latent: int | None = None,
        kl: float | None = None,
    ) -> None:
        super().__init__(tokenizer, chunk)
        if kl is not None and (latent is None or kl < 0):
            raise ValueError(
                f"kl: found {kl} with latent: {latent}; expected 0 or more, beside the number of "
                "the latent"
            )
        self.points = Points(tokenizer)
        self.latent, self.kl = latent, 10.0 if kl is None else kl
        self.vae: ActionVAE | None = None

    def build(self, backbone: Backbone) -> None:
        length = fixed_length(self.tokenizer, self.chunk.steps, "continuous")
        # One query for each basis and one number a joint, if all joints have as many bases.
        width = 1 if length % self.chunk.dof else self.chunk.dof
        self.slots = nn.Parameter(torch.randn(length // width, backbone.dim) * INIT_STD)
        self.out = nn.Linear(backbone.dim, width)
        if self.latent is not None:
            self.vae = ActionVAE(self.chunk, backbone.dim, self.latent)

    def regress(self, context: Features, backbone: Backbone, latent: Tensor | None) -> Tensor:
        """Return control points `[B, L]`."""
        if self.vae is not None and latent is not None:
            token = self.vae.token(latent).to(context.tokens.dtype)
            mask = torch.cat([torch.ones_like(context.mask[:, :1]), context.mask], 1)
            context = Features(torch.cat([token, context.tokens], 1), mask)
        embeds = self.slots.expand(len(context.tokens), -1, -1)
        hidden = backbone(embeds, context=context, attention="block")
        points: Tensor = self.out(hidden.to(self.out.weight.dtype))
        return points.flatten(1).float()

    def encode(self, chunk: Chunk) -> ActionOutput:
        return self.points.encode(chunk)

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """Return the absolute error, the mean of a chunk's points, plus `kl` times the divergence,
        a sum over rows. The latent is sampled in training, the mean of its distribution otherwise.
        """
        if self.vae is None:
            error = (self.regress(context, backbone, None) - target).abs().mean(1).sum()
            return Loss(error, len(target), {"l1": error.detach()})
        mean, log_variance = self.vae.posterior(context.mean(), Chunk.of(batch))
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        error = (self.regress(context, backbone, latent) - target).abs().mean(1).sum()
        kl = divergence(mean, log_variance).sum()
        total = error + self.kl * kl
        return Loss(total, len(target), {"l1": error.detach(), "kl": kl.detach()})

    def generate(self, context: Features, backbone: Backbone) -> ActionOutput:
        """Return the points of the latent 0."""
        latent = None
        if self.vae is not None:
            latent = context.tokens.new_zeros(len(context.tokens), self.vae.latent)
        return self.regress(context, backbone, latent)

    def decode(self, tokens: ActionOutput, steps: int, start: Tensor | None) -> Tensor:
        assert isinstance(tokens, Tensor)
        return self.points.decode(tokens, steps, start)
