"""The recognisers that `bench_asr` compares, on features that were computed once.

Legend: `B` rows, `P` positions of the prompt, `n` tokens, `D` width.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from sensorium.engine.data import load_split, task_dataset
from sensorium.engine.model import Model
from sensorium.engine.utils import autocast
from sensorium.modalities.audio.read import read
from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.common import assemble
from sensorium.tasks.diffusion import DiffusionASR
from sensorium.tasks.speech import ASR

TASK = "transcribe"


@dataclass
class Row:
    """A row: the engine's input, its target, its tokens for the decoder, seconds of
    sound; its features `[T, D]`, the transcript of the CTC head, and the milliseconds of both."""

    item: Any
    target: dict[str, Any]
    tokens: int
    seconds: float
    features: Features
    prior: Any = None
    encoder: float = 0.0
    ctc: float = 0.0


@dataclass
class SystemOutput:
    """The results of one recogniser for each row: texts, decoder's passes, milliseconds of decoding
    and of them those in which the prompt was read."""

    texts: list[str] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)


class Clock:
    """Milliseconds: of this process's own work on a CPU, of the wall on an accelerator."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time() * 1000
        torch.accelerator.synchronize(self.device)
        return time.perf_counter() * 1000

    def __call__(self, work: Callable[[], Any]) -> tuple[Any, float]:
        began = self.now()
        result = work()
        return result, self.now() - began


def bench_rows(model: Model, split: str, shortest: int, longest: int, count: int) -> list[Row]:
    """Return rows whose text has so many tokens; `encode_audio` has yet to encode them."""
    source = load_split(model.plan, TASK, split)
    task = cast(DiffusionASR, model.task(TASK))
    backbone: Any = model.backbone
    rows = task_dataset(model.plan, model.encoders(), TASK, source)
    rows_of: list[Row] = []
    for index in range(len(source)):
        row = source[index]
        tokens = len(backbone.tokenizer.encode(row["text"])) + 1
        if not shortest <= tokens <= longest or len(rows_of) == count:
            continue
        item = rows.prepare(index)
        batch = model.collator()(TASK, [item])
        if not batch.failed:
            nothing = Features.pad([torch.zeros(0, 1)])
            seconds = read(row[task.prompt.streams[0]]).seconds  # the column `seconds` is a guess
            rows_of.append(Row(item, batch.references[0], tokens, seconds, nothing))
    return rows_of


@torch.no_grad()
def encode_audio(model: Model, rows: Sequence[Row], size: int) -> None:
    """What the encoder and the CTC head of a diffusion model make of rows, in batches of like
    lengths, the encoder in the precision that its recipe stored features in; a row's milliseconds
    are its share of its batch's."""
    task, clock = cast(DiffusionASR, model.task(TASK)), Clock(model.device)
    stream, order = task.prompt.streams[0], sorted(rows, key=lambda row: row.seconds)
    for start in range(0, len(order), size):
        mine = order[start : start + size]
        batch = model.collator()(TASK, [row.item for row in mine]).to(model.device)
        inputs = batch.streams[stream]["main"]
        with autocast(model.device, model.precision):
            features, encoder = clock(functools.partial(model.stream(stream).encode, inputs))
        features = features.to(torch.float32)
        priors, ctc = clock(functools.partial(task.priors, features, cast(Any, model.backbone)))
        tokens_of = [
            tokens[mask] for tokens, mask in zip(features.tokens, features.mask, strict=True)
        ]
        for row, values, prior in zip(mine, tokens_of, priors, strict=True):
            row.features, row.prior = Features.pad([values]), prior
            row.encoder, row.ctc = encoder / len(mine), ctc / len(mine)


def joined(rows: Sequence[Row], stream: str) -> Batch:
    """Return rows as a batch whose features are there already."""
    features = Features.pad([row.features.tokens[0][row.features.mask[0]] for row in rows])
    keys = [str(i) for i in range(len(rows))]
    batch = Batch.of(TASK, keys, [row.item.example for row in rows])
    batch.features[stream] = features
    return batch


@torch.no_grad()
def autoregress(model: Model, rows: Sequence[Row], bare: bool, most: int) -> SystemOutput:
    """Transcripts of a causal decoder, greedy: by transformers' `generate`, or by a bare loop."""
    task, clock = cast(ASR, model.task(TASK)), Clock(model.device)
    backbone: Any = model.backbone
    batch = joined(rows, task.prompt.streams[0])
    began = clock.now()
    context = assemble(task.prompt.streams, batch, model.context(batch))
    elapsed = clock.now() - began
    _, read = clock(lambda: backbone.prefill(context))
    options = {"max_new_tokens": most, "do_sample": False}
    way = (
        (lambda: _loop(backbone, context, most))
        if bare
        else (lambda: backbone.generate(context, **options).tolist())
    )
    ids, took = clock(way)  # it reads the prompt itself
    eos, size = backbone.tokenizer.eos_id, len(rows)
    texts_of = [row[: row.index(eos)] if eos in row else row for row in ids]
    texts = [backbone.tokenizer.decode(row).strip() for row in texts_of]
    steps = [len(row) + 1 for row in texts_of]
    return SystemOutput(
        texts, steps, [(elapsed + took) / size] * size, [(elapsed + read) / size] * size
    )


def _loop(backbone: Any, context: Features, most: int) -> list[list[int]]:
    """Greedy decoding with a cache and nothing else; a batch is padded on the left."""
    lengths = context.lengths.tolist()
    longest = max(lengths)
    tokens = torch.stack(
        [_left_pad(t[:n], longest) for t, n in zip(context.tokens, lengths, strict=True)]
    )
    even = min(lengths) == longest
    mask = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    mask = mask.long().to(tokens.device)
    inputs: dict[str, Tensor] = {"inputs_embeds": tokens}
    done = torch.zeros(len(lengths), dtype=torch.bool, device=tokens.device)
    cache, steps_of = None, []
    for _ in range(most):
        places = {} if even else {"attention_mask": mask, "position_ids": _positions(mask, inputs)}
        out = backbone.model(**inputs, **places, past_key_values=cache, use_cache=True)
        best = out.logits[:, -1].argmax(-1)
        steps_of.append(best)
        done |= best == backbone.tokenizer.eos_id
        if bool(done.all()):
            break
        cache, inputs = out.past_key_values, {"input_ids": best[:, None]}
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    ids_of: list[list[int]] = torch.stack(steps_of, 1).tolist()
    return ids_of


def _left_pad(tokens: Tensor, length: int) -> Tensor:
    return torch.cat([tokens.new_zeros(length - len(tokens), tokens.shape[1]), tokens])


def _positions(mask: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    new = next(iter(inputs.values())).shape[1]
    return (mask.cumsum(1) - 1).clamp(min=0)[:, -new:]


@torch.no_grad()
def diffuse(
    model: Model, rows: Sequence[Row], prior: bool, features: Sequence[Row] | None = None
) -> SystemOutput:
    """Transcripts by denoising. heard: rows whose sound the decoder gets instead."""
    task, clock = cast(DiffusionASR, model.task(TASK)), Clock(model.device)
    backbone: Any = model.backbone
    batch = joined(features or rows, task.prompt.streams[0])
    began = clock.now()
    context = assemble(task.prompt.streams, batch, model.context(batch))
    memory = backbone.prefill(context, "block")
    read = clock.now()
    denoised = task.decode(memory, [row.prior if prior else None for row in rows], backbone)
    texts = task.texts(denoised, backbone)
    ended = clock.now()
    size = len(rows)
    return SystemOutput(
        texts, denoised.passes, [(ended - began) / size] * size, [(read - began) / size] * size
    )
