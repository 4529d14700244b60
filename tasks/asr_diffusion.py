"""Transcription by masked diffusion: a first hypothesis is corrected, many tokens at a time.

dLLM-ASR (arXiv 2601.17902) on LLaDA's process (Nie et al. 2025). A CTC head on the stream's own
encoder gives the hypothesis, which is the prior and anchors the canvas's length (`_priors.py`);
passes over the canvas reveal what is sure (`_denoise.py`). The prompt sees itself alone, so that
it is read once, and a pass costs the canvas.

Training makes canvases as decoding does (`_canvases.py`); the loss is LLaDA's for SFT.

Legend: `B` rows, `G` places of a canvas, `T` frames, `V` vocabulary, `N` places with a loss.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone, ContextCache
from ..modalities.base import Features, Tokenizer
from ._canvases import Learned, Special, begin, empty, learn
from ._ctc_decode import greedy
from ._ctc_heads import frame_logits
from ._denoise import Denoised, Rule, denoise
from ._hearing import corrupted, loss_a_token, some, spelled
from ._priors import Layout, Prior, lay_out, prior_of
from .asr import Asr
from .base import Batch, Encode, Loss, Row
from .prompts import example_row
from .speech_metrics import Normalizer


class AsrDiffusion(Asr):
    """prompt, target, normalizer: as `Asr`. tokenizer: the spelling of the prior's CTC head, which
    reads the encoder of the prompt's first stream. Its section is `prior`; it trains with
    `ctc` times its own loss, or comes from a CTC run (`weights: runs/x:task.head, freeze: true`).

    threshold: the probability from which a pass reveals a token. keep: words of the prior that
    are less sure become masks. verify: other tokens of the prior are masked again, once, where
    the decoder gives them less; null trusts them. stretch, slack: a canvas has
    `ceil(stretch * m) + slack` places for a prior of m tokens. least: no text ends before this
    share of the prior. length: places of a canvas without a prior. max_passes: then the rest
    is revealed as it is.

    corrected: the share of the rows that learn from a prior. corrupt: of its encoder's values up to
    this share is dropped, so that the CTC makes the errors there that it makes on new voices.
    """

    head_names: ClassVar[tuple[str, ...]] = ("prior",)
    head_types: ClassVar[Mapping[str, str]] = {"prior": "per_token"}

    def __init__(
        self,
        *,
        prompt: str,
        tokenizer: Tokenizer,
        target: str = "{text}",
        normalizer: Normalizer = "basic",
        threshold: float = 0.9,
        keep: float = 0.9,
        verify: float | None = 0.3,
        stretch: float = 1.2,
        slack: int = 8,
        least: float = 0.5,
        length: int = 64,
        max_passes: int = 64,
        corrected: float = 1 / 3,
        corrupt: float = 0.3,
        ctc: float = 0.3,
    ) -> None:
        super().__init__(prompt=prompt, target=target, normalizer=normalizer)
        _shares(least=least, corrected=corrected, corrupt=corrupt, keep=keep)
        _numbers(length=(length, 1), slack=(slack, 1), max_passes=(max_passes, 1))
        if stretch < 1:
            raise ValueError(f"stretch: found {stretch}, expected at least 1")
        self.tokenizer = tokenizer
        self.threshold, self.verify, self.max_passes = threshold, verify, max_passes
        self.layout = Layout(keep, stretch, slack, least)
        self.length, self.corrected, self.corrupt, self.ctc = length, corrected, corrupt, ctc
        self.special = Special(-1, -1, -1)  # known when the task meets its decoder

    @property
    def heard(self) -> str:
        """The stream that the prior is heard in, before its connector."""
        return f"{self.streams[0]}.encoder"

    def head_widths(self) -> dict[str, tuple[str, int]]:
        return {"prior": (self.heard, self.tokenizer.size + 1)}

    def material(self, part: str, row: Row) -> Iterable[Any]:
        """The spelling is fitted on the transcripts."""
        return tuple(self._references(row))

    def new_tokens(self) -> int:
        """The gap: a place of the canvas that no token took."""
        return 1

    def attach(self, backbone: Backbone | None, first: int | None) -> None:
        if backbone is None or first is None:
            return
        if backbone.mask_id is None or "causal" in backbone.supports:
            raise ValueError(
                "asr_diffusion: fills masked places, which a decoder read from left to right does "
                "not do; say `type: diffusion` in backbone"
            )
        self.special = Special(backbone.mask_id, backbone.tokenizer.eos_id, first)

    def example(self) -> list[dict[str, Any]]:
        return [example_row((self.prompt, self.target), text) for text in ("a", "go")]

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """A mean over the places of each canvas, summed over rows. `denoise`: what masked places
        cost, `correct`: what visible ones of priors do, `ctc`: the prior's own, a token. A row
        whose text a prior that trains cannot spell in its frames is failed and left out."""
        backbone = _decoder(backbone)
        texts, features = self._chosen(batch), encode(self.heard)
        ids, failed = self._spelled(texts, features, batch.keys)
        kept = [i for i, row in enumerate(ids) if row is not None]
        context = some(self._context(batch, encode, backbone), kept)
        features = some(features, kept)
        draws = torch.Generator().manual_seed(zlib.crc32(f"{self._now}/{batch.keys}".encode()))
        if not kept:
            return Loss((context.tokens.sum() + features.tokens.sum()) * 0, 0, failed=failed)
        made = learn(
            [backbone.tokenizer.encode(texts[i]) for i in kept],
            self._first_heard(features, backbone, draws),
            self.layout,
            self.length,
            self.special,
            draws,
        )
        each, hidden = self._each(context, made, backbone), made.hidden.to(context.tokens.device)
        own = self._own(features, [row for row in ids if row is not None])
        parts = {"denoise": (each * hidden).sum(), "correct": (each * ~hidden).sum(), "ctc": own}
        parts = {name: value.detach() for name, value in parts.items()}
        return Loss(each.sum() + self.ctc * own, len(kept), parts, failed)

    def _spelled(
        self, texts: Sequence[str], features: Features, keys: Sequence[str]
    ) -> tuple[list[list[int] | None], list[tuple[str, str]]]:
        """As `spelled`; for a prior that does not train nothing is, and nothing fails."""
        if not self._prior_trains:
            return [[] for _ in texts], []
        return spelled(self.tokenizer, texts, features, keys)

    def _own(self, features: Features, ids: Sequence[Sequence[int]]) -> Tensor:
        if not self._prior_trains:
            return features.tokens.new_zeros(())
        return loss_a_token(frame_logits(self, "prior", features), features, ids)

    @property
    def _prior_trains(self) -> bool:
        return self.ctc > 0 and any(p.requires_grad for p in self.heads["prior"].parameters())

    @property
    def _now(self) -> int:
        return 0 if self.step.is_meta else int(self.step)

    def _first_heard(
        self, features: Features, backbone: Backbone, draws: torch.Generator
    ) -> list[Prior | None]:
        """Hypotheses with the CTC's own errors for the share of the rows that learn from one."""
        rows = len(features.tokens)
        turns = torch.arange(rows + 1) + self._now % 1000
        chosen = (turns * self.corrected).floor().long().diff().bool()
        places = chosen.nonzero().squeeze(1).tolist()
        found: list[Prior | None] = [None] * rows
        if not places or features.tokens.is_meta:
            return found
        noisy = corrupted(some(features, places), self.corrupt, draws)
        heard = self.priors(noisy, backbone)
        for place, prior in zip(places, heard, strict=True):
            found[place] = prior
        return found

    def _each(self, context: Features, made: Learned, backbone: Backbone) -> Tensor:
        """`[B, G]` the weighted cross entropy of each place of a canvas."""
        device = context.tokens.device
        places = made.weight.flatten().nonzero().squeeze(1)
        ids, real = made.ids.to(device), made.real.to(device)
        hidden = backbone(backbone.embed(ids), real, context, "block")  # [B, G, D]
        logits = backbone.logits(hidden.flatten(0, 1)[places.to(device)]).float()  # [N, V]
        wanted, weight = made.wanted.flatten()[places], made.weight.flatten()[places]
        found = F.cross_entropy(logits, wanted.to(device), reduction="none") * weight.to(device)
        flat = torch.zeros(made.weight.numel(), device=device).index_add(
            0, places.to(device), found
        )
        return flat.view(made.weight.shape)

    def predict(
        self,
        batch: Batch,
        encode: Encode,
        backbone: Backbone | None,
        *,
        prior: bool = True,
        steps: int | None = None,
        threshold: float | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """`text`, `passes` of the decoder, and `prior`: what was heard first, a row. prior: False
        begins at nothing but masks. steps: passes that reveal equal numbers of places, in place
        of the threshold."""
        if options:
            raise ValueError(
                f"asr_diffusion: found {', '.join(options)}; expected prior, steps, threshold"
            )
        backbone = _decoder(backbone)
        memory = backbone.prefill(self._context(batch, encode, backbone), "block")
        heard = self.priors(encode(self.heard), backbone) if prior else [None] * len(batch)
        found = self.decode(memory, heard, backbone, threshold=threshold, steps=steps)
        return [
            {"text": text, "passes": passes, **({"prior": first.text} if first else {})}
            for text, passes, first in zip(
                self.texts(found, backbone), found.passes, heard, strict=True
            )
        ]

    @torch.no_grad()
    def priors(self, features: Features, backbone: Backbone) -> list[Prior]:
        """What the CTC head hears in the encoder's features, in the decoder's tokens."""
        logs = frame_logits(self, "prior", features).log_softmax(-1).cpu()  # [B, T, V]
        return [
            prior_of(greedy(row[:length], self.tokenizer.size), self.tokenizer, backbone.tokenizer)
            for row, length in zip(logs, features.lengths.tolist(), strict=True)
        ]

    def decode(
        self,
        memory: ContextCache,
        priors: Sequence[Prior | None],
        backbone: Backbone,
        threshold: float | None = None,
        steps: int | None = None,
    ) -> Denoised:
        """Denoise a canvas for each row of a prompt that was read."""
        rule = Rule(
            mask_id=self.special.mask_id,
            eos_id=self.special.eos_id,
            threshold=self.threshold if threshold is None else threshold,
            verify=self.verify,
            steps=steps,
            most=self.max_passes,
        )
        slots = [empty(self.length) if p is None else lay_out(p, self.layout) for p in priors]
        canvas = begin(slots, self.special).to(memory.mask.device)

        def predict(ids: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
            rows = wanted.any(1).nonzero().squeeze(1)  # decided rows cost nothing more
            mine = memory if len(rows) == len(ids) else backbone.select_rows(memory, rows)
            hidden = backbone(backbone.embed(ids[rows]), real[rows], mine, "block")  # [b, G, D]
            return backbone.logits(hidden[wanted[rows]])

        return denoise(canvas, predict, rule)

    def texts(self, found: Denoised, backbone: Backbone) -> list[str]:
        """The transcripts of canvases that were denoised."""
        kept = [[i for i in row if i != self.special.gap_id] for row in found.ids]
        return [backbone.tokenizer.decode(row).strip() for row in kept]


def _decoder(backbone: Backbone | None) -> Backbone:
    if backbone is None:
        raise ValueError("asr_diffusion needs a decoder; add a `backbone` section to the recipe")
    return backbone


def _shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: found {share}, expected 0 to 1")


def _numbers(**numbers: tuple[int, int]) -> None:
    for name, (found, least) in numbers.items():
        if found < least:
            raise ValueError(f"{name}: found {found}, expected at least {least}")
