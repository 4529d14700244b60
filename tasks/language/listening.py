"""Speaking while listening: a second stream, aligned in time, enters the decoder at every step.

Ma et al., "Language Model Can Listen While Speaking" (LSLM, arXiv 2408.02622): a decoder of speech
tokens hears another stream and falls silent when it is interrupted.

Legend: `B` rows, `L` steps of the longest target, `T` tokens of what is heard, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...modalities.base import Count, Features, LayerHook, Loss, PositiveInt
from ..base import Context, Row, Task
from ..batch import Batch, Example, Tools
from ..uses import BACKBONE, DecoderUse, StreamUse


class Listening(Task):
    """speak: the stream of signal tokens to be spoken, each of one span (`aligned`). listen:
    the stream that is heard: its token i at step i, none earlier, so its encoder and its connector
    must be `causal`, and its tokens as long as those that are spoken.

    fusion: where it enters: `early`, the embeddings; `middle`, behind every layer; `late`, the last
    hidden states. stop: the column of the step at which the speaker is
    interrupted, null if never. delay: steps after which the token of the turn is learned. patience:
    steps within which it counts as in time.
    """

    metric_names = {
        "stopped": "fraction of the interrupted rows that end within `patience` steps of the cue",
        "false_stops": "fraction of the rows that give up their turn before any cue",
    }

    def __init__(
        self,
        *,
        speak: str,
        listen: str,
        fusion: Literal["early", "middle", "late"] = "middle",
        stop: str = "stop",
        delay: Count = 0,
        patience: PositiveInt = 5,
        max_new_tokens: PositiveInt = 256,
    ) -> None:
        super().__init__()
        if speak == listen:
            raise ValueError(f"listen: is {listen!r}, what is spoken; name another stream")
        self.speak, self.listen, self.fusion, self.stop = speak, listen, fusion, stop
        self.delay, self.patience, self.max_new_tokens = delay, patience, max_new_tokens
        self.streams = {
            speak: StreamUse(role="label", supports=frozenset({"codes", "aligned"})),
            listen: StreamUse(width=BACKBONE, supports=frozenset({"causal"})),
        }
        supports = frozenset({"layer_hooks"}) if fusion == "middle" else frozenset()
        self.decoders = {BACKBONE: DecoderUse(supports=supports)}
        self.maps = nn.ModuleList()
        self.first = self.turn = 0  # set by `build`

    def columns(self) -> tuple[str, ...]:
        return (self.stop,)

    def nullable(self) -> tuple[str, ...]:
        return (self.stop,)

    def inputs(self) -> tuple[str, ...]:
        return (self.listen,)

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        """Add the tokens of speech and the one of the turn; create the maps."""
        decoder, size = decoders[BACKBONE], self.signal_tokenizers[self.speak].size
        self.first = decoder.add_tokens(size + 1, spread=1.0)
        self.turn = self.first + size
        count = len(decoder.blocks()) if self.fusion == "middle" else 1
        maps = [nn.Linear(decoder.dim, decoder.dim) for _ in range(count)]
        self.maps = nn.ModuleList(maps)
        for layer in maps:
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Label: `stop`, the step of the interruption, -1 for none."""
        step = row.get(self.stop)
        if step is not None and (isinstance(step, bool) or int(step) != step or step < 0):
            raise ValueError(f"{self.stop}: found {step!r}, expected a step from 0, or null")
        value = -1 if step is None else int(step)
        return Example({"stop": torch.tensor(value)}, {"stop": value})

    def target(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """Return the ids `[B, L]` to be spoken and their mask: until the end, or, interrupted,
        until `delay` steps after the cue and the token of the turn."""
        spoken = ctx.encode(f"{self.speak}.encoder")
        if spoken.codes is None:
            raise ValueError(f"inputs.{self.speak}.encoder: returned no codes")
        ids, lengths = spoken.codes + self.first, spoken.mask.sum(1)
        stops = batch.label("stop", "has no step of an interruption").to(ids.device)
        cut = (stops >= 0) & (stops + self.delay <= lengths)
        ends = torch.where(cut, stops + self.delay, lengths)[:, None]
        last = torch.where(cut, self.turn, ctx.decoder().tokenizer.eos_id)[:, None]
        places = torch.arange(ids.shape[1] + 1, device=ids.device)
        ids = torch.where(places == ends, last, F.pad(ids, (0, 1)))
        return ids, places <= ends

    def _check_pace(self, spoken: Features, heard: Features) -> None:
        """Raise ValueError if tokens that are heard are of another length, where both are known."""
        if spoken.spacing is None or heard.spacing is None:
            return
        step, other = spoken.spacing[0], heard.spacing[-1]
        if abs(step / other - 1) > 0.01:
            raise ValueError(
                f"listen: a token of inputs.{self.listen} lasts {other:g} s, one of "
                f"inputs.{self.speak} {step:g} s; expected equal ones, at step i of both"
            )

    def hidden(self, decoder: Backbone, ids: Tensor, mask: Tensor, heard: Features) -> Tensor:
        """Return hidden `[B, L, D]` whose position i predicts `ids[:, i]`, having heard the tokens
        0 to i."""
        tokenizer = decoder.tokenizer
        start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        before = F.pad(ids[:, :-1], (1, 0), value=start)
        embeds = decoder.embed(before)
        aligned = heard.tokens * heard.mask[..., None]
        aligned = F.pad(aligned, (0, 0, 0, max(0, ids.shape[1] - aligned.shape[1])))
        aligned = aligned[:, : ids.shape[1]].to(embeds.dtype)
        hooks: dict[int, LayerHook] = {}
        if self.fusion == "early":
            embeds = embeds + self.maps[0](aligned)
        elif self.fusion == "middle":
            hooks = {n: _adding(layer(aligned)) for n, layer in enumerate(self.maps)}
        hidden = decoder(embeds, mask, layer_hooks=hooks or None)
        return hidden + self.maps[0](aligned) if self.fusion == "late" else hidden

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the cross-entropy in float32, summed over target tokens."""
        decoder = ctx.decoder()
        ids, mask = self.target(batch, ctx)
        heard = ctx.encode(self.listen)
        self._check_pace(ctx.encode(f"{self.speak}.encoder"), heard)
        hidden = self.hidden(decoder, ids, mask, heard)
        logits = decoder.logits(hidden).float().transpose(1, 2)
        labels = ids.masked_fill(~mask, -100)
        return Loss(F.cross_entropy(logits, labels, reduction="sum"), mask.sum())

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return a row: `tokens`, spoken by the most probable choice at each step, and `turn`, the
        step at which the turn was given up, null if it was not."""
        decoder, heard = ctx.decoder(), ctx.encode(self.listen)
        allowed = torch.tensor(
            [*range(self.first, self.turn + 1), decoder.tokenizer.eos_id],
            device=heard.tokens.device,
        )
        ids = torch.full((len(batch), 0), 0, dtype=torch.long, device=allowed.device)
        ended = torch.zeros(len(batch), dtype=torch.bool, device=allowed.device)
        while ids.shape[1] < self.max_new_tokens and not bool(ended.all()):
            longer = F.pad(ids, (0, 1), value=decoder.tokenizer.eos_id)
            mask = torch.ones_like(longer, dtype=torch.bool)
            hidden = self.hidden(decoder, longer, mask, heard)[:, -1]
            chosen = allowed[decoder.logits(hidden, allowed).argmax(-1)]
            chosen = chosen.where(~ended, decoder.tokenizer.eos_id)
            ids = torch.cat([ids, chosen[:, None]], 1)
            ended |= (chosen == self.turn) | (chosen == decoder.tokenizer.eos_id)
        return [self._row(row, decoder.tokenizer.eos_id) for row in ids.tolist()]

    def _row(self, ids: Sequence[int], eos: int) -> dict[str, Any]:
        turn = ids.index(self.turn) if self.turn in ids else None
        end = turn if turn is not None else (ids.index(eos) if eos in ids else len(ids))
        return {"tokens": [i - self.first for i in ids[:end]], "turn": turn}

    def metrics(self) -> TurnMetrics:
        return TurnMetrics(self.patience)

    def example_rows(self) -> list[dict[str, Any]]:
        return [{self.stop: 1}, {self.stop: None}]


def _adding(value: Tensor) -> LayerHook:
    return lambda tokens, mask: tokens + value


class TurnMetrics:
    """stopped: fraction of the interrupted rows that end within `patience` steps of the cue.
    false_stops: fraction of all rows that end before a cue. delay: mean steps from the cue, of
    those that end after it."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.rows = self.cues = self.stopped = self.early = 0
        self.delays: list[int] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for prediction, reference in zip(predictions, references, strict=True):
            turn, cue = prediction["turn"], reference["stop"]
            self.rows += 1
            self.cues += cue >= 0
            if turn is None:
                continue
            if cue < 0 or turn < cue:
                self.early += 1
            else:
                self.delays.append(turn - cue)
                self.stopped += turn - cue <= self.patience

    def compute(self) -> dict[str, float]:
        if not self.rows:
            raise ValueError("listening: no row was accumulated; is the split empty?")
        result = {"false_stops": self.early / self.rows}
        if self.cues:
            result["stopped"] = self.stopped / self.cues
        if self.delays:
            result["delay"] = sum(self.delays) / len(self.delays)
        return result
