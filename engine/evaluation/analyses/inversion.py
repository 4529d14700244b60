"""The vector from which a frozen decoder writes a given text.

Subramani et al., "Can Unconditional Language Models Recover Arbitrary Sentences?", 2019;
Subramani & Suresh, "Discovering Useful Sentence Representations from Large Pretrained Language
Models", 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....backbones.base import Backbone
from ....modalities.base import Features
from ....tasks.text import TextMetrics
from .subject import Subject

Rows = list[dict[str, Any]]


def inversion(
    subject: Subject,
    part: str | None = None,
    target: str | None = None,
    sizes: list[int] | None = None,
    tokens: int = 4,
    texts: int = 8,
    steps: int = 200,
    learning_rate: float = 0.05,
    restarts: int = 1,
    seed: int = 0,
) -> Rows:
    """Recovery of texts from vectors of several sizes that are optimized for them; the decoder
    does not move.

    A vector goes through a fixed random orthogonal map to `tokens` embeddings before the text.
    sizes: of the vector; by default 8, 32, 128 and the largest. texts: how many of the column
    `target`. restarts: of each text; the one with the lowest loss counts. `random` is the recovery
    from random vectors of the same length.
    """
    decoder = subject.decoder(part)
    subject.model.to(subject.device)
    sentences = subject.texts(target)[:texts]
    largest = tokens * decoder.dim
    chosen = sizes or sorted({8, 32, 128, largest})
    rows: Rows = []
    for size in chosen:
        if not 1 <= size <= largest:
            raise ValueError(f"sizes: found {size}, expected 1 to {largest} (tokens x width)")
        recovery = Recovery(decoder, size, tokens, seed)
        vectors, loss = recovery.fit(
            sentences, steps=steps, learning_rate=learning_rate, restarts=restarts
        )
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed + 1))
        random = noise.to(vectors) * vectors.norm(dim=1, keepdim=True) / size**0.5
        scores, control = (recovery.scores(v, sentences) for v in (vectors, random))
        rows.append(
            {
                "size": size,
                "loss": loss,
                "bleu4": scores["bleu4"],
                "words": scores["words"],
                "exact_match": scores["exact_match"],
                "random": control["words"],
            }
        )
    return rows


class Recovery:
    """A frozen decoder behind a fixed map from vectors `[B, size]` to embeddings."""

    def __init__(self, decoder: Backbone, size: int, tokens: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        square = torch.randn(tokens * decoder.dim, size, generator=generator)
        embedding = decoder.embed(torch.zeros(1, dtype=torch.long, device=_device(decoder)))
        self.decoder, self.tokens, self.generator = decoder, tokens, generator
        self.map = torch.linalg.qr(square).Q.to(embedding)  # [tokens * D, size]
        self.dtype, self.device = embedding.dtype, embedding.device

    def context(self, vectors: Tensor) -> Features:
        """Return the embeddings of vectors `[B, size]` as the prefix of the decoder."""
        embeds = (vectors.to(self.dtype) @ self.map.T).unflatten(1, (self.tokens, -1))
        return Features.dense(embeds)

    def fit(
        self, sentences: list[str], *, steps: int, learning_rate: float, restarts: int
    ) -> tuple[Tensor, float]:
        """Return the vectors `[B, size]` and the mean loss of a token."""
        target = self._target(sentences)
        best = torch.full((len(sentences),), torch.inf, device=self.device)
        vectors = torch.zeros(len(sentences), self.map.shape[1], device=self.device)
        for _ in range(restarts):
            start = torch.randn(vectors.shape, generator=self.generator).to(self.device)
            free = start.requires_grad_()
            optimizer = torch.optim.Adam([free], learning_rate)
            for _ in range(steps):
                losses = self._losses(free, target)
                optimizer.zero_grad()
                losses.sum().backward(inputs=[free])
                optimizer.step()
            with torch.no_grad():
                losses = self._losses(free, target)
            better = losses < best
            best = torch.where(better, losses, best)
            vectors = torch.where(better[:, None], free.detach(), vectors)
        return vectors, float(best.sum() / target["mask"].sum())

    @torch.no_grad()
    def scores(self, vectors: Tensor, sentences: list[str]) -> dict[str, float]:
        """Return how much of the sentences the decoder writes from vectors, greedily."""
        target = self._target(sentences)
        ids = self.decoder.generate(
            self.context(vectors), max_new_tokens=target["ids"].shape[1], do_sample=False
        ).tolist()
        tokenizer, metrics = self.decoder.tokenizer, TextMetrics()
        eos = tokenizer.eos_id
        cut = [row[: row.index(eos)] if eos in row else row for row in ids]
        metrics.add([tokenizer.decode(row).strip() for row in cut], [[s] for s in sentences])
        return metrics.compute()

    def _target(self, sentences: list[str]) -> dict[str, Tensor]:
        tokenizer = self.decoder.tokenizer
        ids = [torch.tensor([*tokenizer.encode(s), tokenizer.eos_id]) for s in sentences]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)
        lengths = torch.tensor([len(each) for each in ids], device=self.device)
        mask = torch.arange(padded.shape[1], device=self.device) < lengths[:, None]
        return {"ids": padded, "mask": mask}

    def _losses(self, vectors: Tensor, target: dict[str, Tensor]) -> Tensor:
        """Return `[B]` the negative log likelihood of each text."""
        ids, mask = target["ids"], target["mask"]
        hidden = self.decoder.teacher_force(self.context(vectors), ids, mask)
        logp = self.decoder.logits(hidden).float().log_softmax(-1)
        chosen = logp.gather(-1, ids[..., None]).squeeze(-1)
        return -(chosen * mask).sum(1)


def _device(decoder: Backbone) -> torch.device:
    return next(decoder.parameters()).device
