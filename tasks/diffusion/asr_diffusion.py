"""Speech recognition by masked diffusion: a hypothesis is corrected, many tokens at a time.

dLLM-ASR (arXiv 2601.17902) on LLaDA's process (Nie et al. 2025). A CTC head on the stream's encoder
writes the draft, which also sets the canvas length (`draft.py`); passes over the canvas reveal
confident tokens (`sampler.py`). The prompt attends only to itself, so it is prefilled once and a
pass costs the canvas. Training canvases are made as in decoding (`canvas.py`); the loss is LLaDA's
for SFT.

Legend: `B` rows, `G` positions of a canvas, `T` frames, `V` vocabulary, `N` positions with a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import Backbone, ContextCache
from ...modalities.base import (
    Count,
    Features,
    Fraction,
    Loss,
    NonNegativeFloat,
    PositiveInt,
    Probability,
    Tokenizer,
)
from ..base import Context, Row
from ..batch import Batch, Example, Tools
from ..common import assemble, example_row, require_streams
from ..speech import ASR, Normalizer, fitting_rows, frame_logits, greedy
from ..uses import BACKBONE, DecoderUse, HeadUse
from .canvas import NoisyTargets, Special, empty, make_initial_canvas, make_training_canvas
from .ctc_draft import feature_dropout, per_token_ctc_loss, select_rows
from .draft import (
    Draft,
    DraftConfig,
    layout_draft,
    make_draft,
)
from .sampler import Denoised, SamplerConfig, sample


class DiffusionASR(ASR):
    """Speech recognition by masked diffusion from a CTC draft.

    prompt, target, normalizer: as `ASR`. tokenizer: that of the CTC head that writes the draft; the
    head reads the encoder of the prompt's first stream. Its section is `prior`; it trains with
    `ctc_weight` times its own loss, or comes from a CTC run (`weights: runs/x:task.head, freeze:
    true`).

    threshold: the probability from which a pass reveals a token. min_confidence: words of the draft
    below it become masks. remask_below: other tokens of the draft are masked again, once, if the
    decoder's probability is lower; null keeps them. length_factor, length_margin: a canvas has
    `ceil(length_factor * m) + length_margin` positions for a draft of m tokens. min_length_ratio:
    no text ends before this fraction of the draft. canvas_length: positions of a canvas without a
    draft. max_passes: number of passes after which the rest is revealed at once.

    draft_prob: the fraction of training rows that begin from a draft. feature_dropout: the largest
    fraction of the encoder's values that is dropped for these drafts, so that the CTC head errs on
    training rows as it does on unseen speakers.
    """

    head_types: ClassVar[Mapping[str, str]] = {"prior": "per_token"}

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        tokenizer: Tokenizer,
        target: str = "{text}",
        normalizer: Normalizer = "unicode",
        threshold: Probability = 0.9,
        min_confidence: Probability = 0.9,
        remask_below: Probability | None = 0.3,
        length_factor: NonNegativeFloat = 1.2,
        length_margin: Count = 8,
        min_length_ratio: Probability = 0.5,
        canvas_length: PositiveInt = 64,
        max_passes: PositiveInt = 64,
        draft_prob: Probability = 1 / 3,
        feature_dropout: Fraction = 0.3,
        ctc_weight: NonNegativeFloat = 0.3,
    ) -> None:
        super().__init__(prompt=prompt, target=target, normalizer=normalizer)
        require_streams(self.prompt)
        self.decoders = {BACKBONE: DecoderUse(attention=frozenset({"block"}))}
        self.tokenizer = tokenizer
        self.threshold, self.remask_below, self.max_passes = threshold, remask_below, max_passes
        lengths = (length_factor, length_margin, min_length_ratio)
        self.draft_config = DraftConfig(min_confidence, *lengths)
        self.canvas_length, self.ctc_weight = canvas_length, ctc_weight
        self.draft_prob, self.feature_dropout = draft_prob, feature_dropout
        self.special = Special(-1, -1, -1)  # set by `build`

    @property
    def draft_stream(self) -> str:
        """The stream whose encoder the CTC head reads, before its connector."""
        return f"{self.prompt.streams[0]}.encoder"

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"prior": HeadUse(stream=self.draft_stream, out_dim=self.tokenizer.size + 1)}

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Fit the CTC tokenizer on the transcripts."""
        return self._references(row) if part == "tokenizer" else super().fit_examples(part, row)

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        """Add one token, the gap: a position of the canvas without a token."""
        decoder = decoders[BACKBONE]
        gap = decoder.add_tokens(1)
        if decoder.mask_id is None or "causal" in decoder.supports:
            raise ValueError(
                "asr_diffusion: predicts masked positions, which a causal decoder cannot; "
                "use `type: diffusion` in backbone"
            )
        self.special = Special(decoder.mask_id, decoder.tokenizer.eos_id, gap)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """As `ASR`, with the label `ids`, the tokens of the transcript for the CTC head. A row that
        its tokenizer cannot encode is an error if the head trains."""
        example = super().prepare(row, tools, rng)
        if "target" in example.labels:
            example.labels["target"] = example.labels["target"][
                :-1
            ]  # canvases have their own `eos`
        if "text" in example.reference:
            try:
                ids = self.tokenizer.encode(example.reference["text"])
                example.labels["ids"] = torch.tensor(ids, dtype=torch.long)
            except ValueError:
                if rng is not None and self._head_trains:
                    raise
                example.labels["ids"] = torch.zeros(0, dtype=torch.long)
        return example

    def example_rows(self) -> list[dict[str, Any]]:
        return [example_row((self.prompt, self.target), text) for text in ("a", "go")]

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the mean over the positions of each canvas, summed over rows. Parts: `denoise`,
        the loss of masked positions; `correct`, of visible ones of drafts; `ctc`, of the CTC head,
        by token. If the CTC head trains, a row whose text needs more frames than available fails
        and is left out."""
        decoder = ctx.decoder()
        texts = self._texts(batch)
        features = ctx.encode(self.draft_stream)
        rows, ids, failed = self._fitting(batch, features)
        context = select_rows(assemble(self.prompt.streams, batch, ctx), rows)
        features = select_rows(features, rows)
        if not rows:
            return Loss((context.tokens.sum() + features.tokens.sum()) * 0, 0, failed=failed)
        canvases = make_training_canvas(
            [texts[i] for i in rows],
            self._drafts(features, decoder, ctx),
            self.draft_config,
            self.canvas_length,
            self.special,
            ctx.generator,
        )
        losses = self._losses(context, canvases, decoder)  # [B, G]
        hidden = canvases.hidden.to(context.tokens.device)
        ctc = self._ctc(features, ids)
        denoise, correct = (losses * hidden).sum(), (losses * ~hidden).sum()
        parts = {"denoise": denoise.detach(), "correct": correct.detach(), "ctc": ctc.detach()}
        return Loss(losses.sum() + self.ctc_weight * ctc, len(rows), parts, failed)

    def _texts(self, batch: Batch) -> list[list[int]]:
        """Return the decoder's tokens of each row's transcript."""
        columns = self.target.template
        ids = batch.label("target", f"has no text to learn; its data must have {columns!r}")
        padded = [[0] * ids.shape[1]] * len(ids) if ids.is_meta else ids.tolist()
        lengths = batch.label_masks["target"].sum(1).tolist()
        return [row[:n] for row, n in zip(padded, lengths, strict=True)]

    def _fitting(
        self, batch: Batch, features: Features
    ) -> tuple[list[int], list[list[int]], list[tuple[str, str]]]:
        """As `fitting_rows`; if the CTC head does not train, every row fits."""
        if not self._head_trains:
            return list(range(len(batch))), [[] for _ in range(len(batch))], []
        has_values = not features.mask.is_meta
        frames = features.lengths.tolist() if has_values else [1 << 30] * len(batch)
        return fitting_rows(batch, frames)

    def _ctc(self, features: Features, ids: Sequence[Sequence[int]]) -> Tensor:
        if not self._head_trains:
            return features.tokens.new_zeros(())
        return per_token_ctc_loss(frame_logits(self, "prior", features), features, ids)

    @property
    def _head_trains(self) -> bool:
        head = self.heads["prior"] if "prior" in self.heads else None  # noqa: SIM401
        trains = head is None or any(p.requires_grad for p in head.parameters())
        return self.ctc_weight > 0 and trains

    def _drafts(self, features: Features, decoder: Backbone, ctx: Context) -> list[Draft | None]:
        """Return the CTC head's hypotheses with feature dropout, for the fraction of rows that
        begin from one."""
        count = len(features.tokens)
        turns = torch.arange(count + 1) + ctx.step % 1000
        chosen = (turns * self.draft_prob).floor().long().diff().bool()
        rows = chosen.nonzero().squeeze(1).tolist()
        drafts: list[Draft | None] = [None] * count
        if not rows or features.tokens.is_meta:
            return drafts
        noisy = feature_dropout(select_rows(features, rows), self.feature_dropout, ctx.generator)
        for row, draft in zip(rows, self.priors(noisy, decoder), strict=True):
            drafts[row] = draft
        return drafts

    def _losses(self, context: Features, canvases: NoisyTargets, decoder: Backbone) -> Tensor:
        """Return `[B, G]`, the weighted cross-entropy of each position of a canvas."""
        device = context.tokens.device
        positions = canvases.weight.flatten().nonzero().squeeze(1)
        ids, real = canvases.ids.to(device), canvases.real.to(device)
        hidden = decoder(decoder.embed(ids), real, context, "block")  # [B, G, D]
        logits = decoder.logits(hidden.flatten(0, 1)[positions.to(device)]).float()  # [N, V]
        cells = (canvases.target, canvases.weight)
        labels, weight = (each.flatten()[positions].to(device) for each in cells)
        losses = F.cross_entropy(logits, labels, reduction="none") * weight
        flat = torch.zeros(canvases.weight.numel(), device=device)
        return flat.index_add(0, positions.to(device), losses).view(canvases.weight.shape)

    def predict(
        self,
        batch: Batch,
        ctx: Context,
        *,
        prior: bool = True,
        steps: PositiveInt | None = None,
        threshold: Probability | None = None,
        **options: Any,
    ) -> list[Any]:
        """Return `text`, the decoder's `passes`, and `prior`, the CTC head's hypothesis, for each
        row. prior: False begins with masks only. steps: number of passes that reveal equal numbers
        of positions, in place of the threshold."""
        decoder = ctx.decoder()
        cache = decoder.prefill(assemble(self.prompt.streams, batch, ctx), "block")
        drafts: Sequence[Draft | None] = [None] * len(batch)
        if prior:
            drafts = self.priors(ctx.encode(self.draft_stream), decoder)
        canvas = self.decode(cache, drafts, decoder, threshold=threshold, steps=steps)
        return [
            {"text": text, "passes": passes, **({"prior": draft.text} if draft else {})}
            for text, passes, draft in zip(
                self.texts(canvas, decoder), canvas.passes, drafts, strict=True
            )
        ]

    @torch.no_grad()
    def priors(self, features: Features, decoder: Backbone) -> list[Draft]:
        """Return the CTC head's hypotheses, in the decoder's tokens."""
        logs = frame_logits(self, "prior", features).log_softmax(-1).cpu()  # [B, T, V]
        return [
            make_draft(greedy(row[:length], self.tokenizer.size), self.tokenizer, decoder.tokenizer)
            for row, length in zip(logs, features.lengths.tolist(), strict=True)
        ]

    def decode(
        self,
        cache: ContextCache,
        priors: Sequence[Draft | None],
        decoder: Backbone,
        threshold: float | None = None,
        steps: int | None = None,
    ) -> Denoised:
        """Denoise a canvas for each row of a prefilled prompt."""
        rule = SamplerConfig(
            mask_id=self.special.mask_id,
            eos_id=self.special.eos_id,
            threshold=self.threshold if threshold is None else threshold,
            remask_below=self.remask_below,
            steps=steps,
            max_passes=self.max_passes,
        )
        slots = [
            empty(self.canvas_length) if p is None else layout_draft(p, self.draft_config)
            for p in priors
        ]
        canvas = make_initial_canvas(slots, self.special).to(cache.mask.device)

        def predict(ids: Tensor, real: Tensor, masked: Tensor) -> Tensor:
            rows = masked.any(1).nonzero().squeeze(1)  # decided rows are not computed
            row_cache = cache if len(rows) == len(ids) else decoder.select_rows(cache, rows)
            hidden = decoder(decoder.embed(ids[rows]), real[rows], row_cache, "block")  # [b, G, D]
            return decoder.logits(hidden[masked[rows]])

        return sample(canvas, predict, rule)

    def texts(self, canvas: Denoised, decoder: Backbone) -> list[str]:
        """Return the transcripts of denoised canvases."""
        gap, tokenizer = self.special.gap_id, decoder.tokenizer
        return [tokenizer.decode([i for i in row if i != gap]).strip() for row in canvas.ids]
