"""A conditional VAE over chunks: a latent for the demonstrator's choice among several solutions.

ACT (Zhao et al., RSS 2023), as used by BEAST-ACT (arXiv 2506.06072): in training an encoder maps
the actions and the observation to a latent; at prediction the latent is 0.

Legend: `B` rows, `steps` samples, `Z` latent numbers, `D` width of the decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .chunks import Chunk, ChunkStatistics

WIDTH, HEADS, LAYERS = 64, 4, 2


class ActionVAE(nn.Module):
    """chunk: standardizes the actions. dim: `D`. latent: `Z`."""

    def __init__(self, chunk: ChunkStatistics, dim: int, latent: int) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"latent: found {latent}, expected at least 1")
        self.chunk, self.latent = chunk, latent
        self.summary = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.situation = nn.Linear(dim, WIDTH)
        self.step = nn.Linear(chunk.dof, WIDTH)
        self.places = nn.Parameter(torch.randn(chunk.steps, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.out = nn.Linear(WIDTH, 2 * latent)
        self.back = nn.Linear(latent, dim)

    def posterior(self, observation: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Return mean and log variance `[B, Z]` from the observation `[B, D]` and a batch's chunks.

        Padded samples are masked.
        """
        device = observation.device
        padding = chunk.padding.to(device)
        actions = self.chunk.encode(chunk.actions.to(device)).masked_fill(padding[..., None], 0.0)
        steps = self.step(actions) + self.places
        condition = self.situation(observation)[:, None]
        tokens = torch.cat([self.summary.expand(len(steps), -1, -1), condition, steps], 1)
        hidden = torch.cat([torch.zeros_like(padding[:, :1]).expand(-1, 2), padding], 1)
        blind = torch.zeros(hidden.shape, device=device).masked_fill(hidden, -1e4)
        read = self.layers(tokens, src_key_padding_mask=blind)[:, 0]
        mean, log_variance = self.out(read).float().chunk(2, -1)
        return mean, log_variance

    def token(self, latent: Tensor) -> Tensor:
        """Return `[B, 1, D]`, the decoder's token for a latent `[B, Z]`."""
        token: Tensor = self.back(latent)
        return token[:, None]


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return `[B]`, the KL divergence of `N(mean, e^log_variance)` from `N(0, 1)`, summed over the
    latent numbers."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
