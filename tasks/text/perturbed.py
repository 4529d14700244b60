"""Decoder pre-training from texts alone, the features of a text tower standing for a picture's.

Zhao et al., "Decoder Pre-Training with only Text for Scene Text Recognition" (DPTR, arXiv
2408.05706): a tower that was trained with another one, as CLIP's, has texts where pictures of them
are, up to a gap; a little of the features of any pictures, added to those of the text, fills it.
The tower is swapped afterwards: the same decoder and connector read the pictures' tower.

Legend: `B` rows, `T` tokens of the texts, `L` of the pictures, `D` width.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

from ...modalities.base import Features, Loss, NonNegativeFloat, PositiveInt
from ..base import Context
from ..batch import Batch
from ..uses import BACKBONE, StreamUse
from .captioning import Captioning


class PerturbedCaptioning(Captioning):
    """noise: a stream of any pictures. noise_weight: of their tokens, added in training to those of
    every stream of the prompt: of a random row, at random places. Both end in the same width; with
    one connector for both, `connector: {share: ...}`, it learns what it will read. Other options:
    see `captioning`.
    """

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        noise: str,
        noise_weight: NonNegativeFloat = 0.1,
        target: str = "{caption}",
        attention: Literal["causal", "prefix"] = "causal",
        max_new_tokens: PositiveInt = 64,
        decoder: str = BACKBONE,
    ) -> None:
        super().__init__(
            prompt=prompt,
            target=target,
            attention=attention,
            max_new_tokens=max_new_tokens,
            decoder=decoder,
        )
        if not self.prompt.streams or noise in self.prompt.streams:
            raise ValueError(
                f"noise: found {noise!r} with the prompt {self.prompt.template!r}; expected a "
                "stream of the prompt, and another one for the noise"
            )
        self.noise, self.noise_weight = noise, noise_weight
        self.streams = {**self.streams, noise: StreamUse(role="label", width=decoder)}

    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.prompt.streams))

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return captioning's loss on perturbed features."""
        return super().loss(batch, cast(Context, _Perturbed(ctx, self, batch)))


class _Perturbed:
    """A context whose streams of the prompt are perturbed."""

    def __init__(self, ctx: Context, task: PerturbedCaptioning, batch: Batch) -> None:
        self._ctx, self._task, self._batch = ctx, task, batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def encode(self, stream: str, view: str = "main", **options: Any) -> Features:
        features = self._ctx.encode(stream, view, **options)
        if stream not in self._task.prompt.streams or not self._task.noise_weight:
            return features
        noise = self._ctx.encode(self._task.noise)
        return perturb(features, noise, self._task.noise_weight, self._ctx.generator)


def perturb(
    features: Features, noise: Features, weight: float, generator: torch.Generator
) -> Features:
    """Add `weight` times the noise's tokens `[B, L, D]`, of a random row each and at random places
    among the real ones, to the tokens `[B, T, D]`."""
    if features.mask.is_meta:
        return features.replace(tokens=features.tokens + weight * noise.tokens.detach().mean())
    rows, count = features.tokens.shape[:2]
    device = features.tokens.device
    row = torch.randint(len(noise.tokens), (rows,), generator=generator).to(device)
    draws = torch.rand(rows, count, generator=generator).to(device)
    place = (draws * noise.mask.sum(1)[row][:, None]).long()
    order = noise.mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[row]
    chosen: Tensor = noise.tokens.detach()[row[:, None], order.gather(1, place)]
    return features.replace(tokens=features.tokens + weight * chosen * features.mask[..., None])
