"""A task built as the engine builds it, over random features in place of encoders."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from ..backbones.base import Backbone
from ..backbones.encoder import BackboneEncoder
from ..engine.recipe import (
    ComponentPath,
    Modules,
    Section,
    TaskPlan,
    TaskSection,
    find,
    plan_part,
    plan_task,
)
from ..modalities.base import Decoder, Features, Loss
from ..modalities.signal_tokens import SignalTokenizer
from ..tasks.base import Task
from ..tasks.batch import Batch, Tools
from .common import expect, fit_parts
from .context import StubContext

WIDTH = 16
POINTS = ("", ".encoder", ".targets")
TOKENS = (5, 4, 3)
"""Tokens of the longest row, of the first stream, the second, ..."""

DECODER = {
    "name": "tiny-llama",
    "tokenizer": "bytes",
    "weights": "none",
    "options": {
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}


class Letters(SignalTokenizer):
    """Texts of four letters as signals: the tokenizer of streams of signal tokens."""

    letters = "abcd"
    size = len(letters)

    def encode(self, signals: Any, *args: Any, **options: Any) -> list[torch.Tensor]:
        return [torch.tensor([self.letters.index(c) for c in text]) for text in signals]

    def decode(self, ids: Any, *args: Any, **options: Any) -> list[str]:
        return ["".join(self.letters[int(i)] for i in row) for row in ids]

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


class TaskBuilder:
    """Builds a task, its heads, its inner parts and tiny decoders; language models read bytes.

    decoder: type of the decoders, of one that is no language model `module:Class`.
    axes: axes of the grid on which tokens of streams lie.
    """

    def __init__(self, cls: type[Task], options: Mapping[str, Any], decoder: str, axes: int):
        self.cls, self.options = cls, dict(options)
        self.decoder_type, self.axes = decoder, axes
        self.plan = self.make_plan()
        self.rows = self.plan.task.example_rows()
        for argument, fittable in self.plan.plan.fitted.items():
            rows = (self.plan.task.fit_examples(argument, row) for row in self.rows)
            fittable.fit(example for examples in rows for example in examples)
        self.decoders = {name: self.make_decoder() for name in self.plan.task.decoders}
        self.encoders = {name: self.make_encoder() for name in self.text_streams()}
        for name, use in self.plan.task.streams.items():
            if use.shares is not None:
                self.encoders[name] = self.encoders[use.shares]
        self.task = self.compose(self.plan, self.decoders)

    def make_plan(self) -> TaskPlan:
        kind = f"{self.cls.__module__}:{self.cls.__qualname__}"
        section = TaskSection.model_validate({**self.options, "type": kind})
        return plan_task(self.cls, section, ComponentPath(self.cls.__name__))

    def make_decoder(self) -> Decoder:
        part = find("decoder", self.decoder_type, "decoder")
        options = DECODER if issubclass(part, Backbone) else {}
        section = Section.model_validate({**options, "type": self.decoder_type})
        decoder: Decoder = plan_part(part, section, "decoder", ComponentPath("backbone")).build()
        return decoder.eval()

    def text_streams(self) -> list[str]:
        """Return the streams whose encoder the task uses by its vocabulary."""
        uses = self.plan.task.streams.items()
        return [name for name, use in uses if use.supports & {"vocabulary", "inputs_embeds", "ids"}]

    def make_encoder(self) -> BackboneEncoder:
        backbone = self.make_decoder()
        assert isinstance(backbone, Backbone)
        return BackboneEncoder(backbone=backbone)

    def compose(self, plan: TaskPlan, decoders: Mapping[str, Decoder], seed: int = 0) -> Task:
        """Build what depends on the model: inner parts, the task's own modules, heads."""
        for part in plan.plan.children.values():
            fit_parts(part, self.rows)
        modules = Modules()
        modules[id(plan.plan)] = plan.task
        plan.plan.build_children(seed, modules, {})
        torch.manual_seed(seed)
        plan.task.signal_tokenizers = {
            stream: Letters()
            for stream, use in plan.task.streams.items()
            if "codes" in use.supports
        }
        points = {f"{s}{point}": WIDTH for s in plan.task.streams for point in POINTS}
        plan.task.build(points, cast(Mapping[str, Backbone], decoders))
        for name, use in plan.task.head_uses.items():
            expect(name in plan.heads, f"head_uses names {name!r}, which is not in head_types")
            ends = {"in_dim": WIDTH, "out_dim": use.out_dim}
            plan.task.heads[name] = plan.heads[name].build(seed, modules, **ends)
        return plan.task

    def read_back(self) -> tuple[Task, dict[str, Decoder]]:
        """Return another task whose fitted parts come from JSON and arrays, as from a run."""
        plan = self.make_plan()
        for argument, fittable in plan.plan.fitted.items():
            state = self.plan.plan.fitted[argument].state()
            arrays = {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
            values = {k: v for k, v in state.items() if k not in arrays}
            fittable.load_state({**json.loads(json.dumps(values)), **arrays})
        decoders = {name: self.make_decoder() for name in self.decoders}
        return self.compose(plan, decoders, seed=1), decoders

    def prepare(
        self, task: Task, rows: Sequence[Mapping[str, Any]], training: bool = True
    ) -> Batch:
        """Return rows as the loader hands them to the task, without their streams."""
        backbones = {k: d for k, d in self.decoders.items() if isinstance(d, Backbone)}
        tools = Tools(
            {name: backbone.tokenizer for name, backbone in backbones.items()},
            {name: encoder.backbone.tokenizer for name, encoder in self.encoders.items()},
        )
        examples = [
            task.prepare(row, tools, np.random.default_rng(i) if training else None)
            for i, row in enumerate(rows)
        ]
        batch = Batch.of("task", [str(i) for i in range(len(rows))], examples)
        task.prepare_batch(batch)
        return batch

    def features(self) -> dict[str, Features]:
        """Return random features of every stream, ragged, with noise in the padding."""
        by_stream = {}
        for index, (name, use) in enumerate(self.task.streams.items()):
            count, longest = len(self.rows), TOKENS[index % len(TOKENS)]
            generator = torch.Generator().manual_seed(index)
            lengths = torch.tensor([1 + (row * 2 + index) % longest for row in range(count)])
            features = Features(
                torch.randn(count, longest, WIDTH, generator=generator),
                torch.arange(longest) < lengths[:, None],
                grid=(longest, *[1] * (self.axes - 1)),
                spacing=(2.0,) * self.axes,
                origin=(0.5,) * self.axes,
            )
            if "codes" in use.supports:
                codes = torch.randint(Letters.size, (count, longest), generator=generator)
                features = features.replace(codes=codes)
            layers = [*use.hidden_states, *self.head_layers(name)]
            layers += [0] * (3 if "quantizer" in use.supports else 0)  # see `HasQuantizer`
            by_stream[name] = features.replace(hidden_states=(features,) * len(layers))
        return by_stream

    def head_layers(self, stream: str) -> list[int]:
        """Return the hidden layers that heads read of a stream."""
        heads = [n for n, u in self.task.head_uses.items() if u.stream.split(".")[0] == stream]
        return [n for head in heads for n in getattr(self.task.heads[head], "hidden_layers", ())]

    def context(
        self,
        features: Mapping[str, Features],
        decoders: Mapping[str, Decoder] | None = None,
        rows: slice = slice(None),
    ) -> StubContext:
        teachers = [name for name, use in self.task.streams.items() if use.role == "teacher"]
        context = StubContext(features, teachers=teachers)
        context.decoders = dict(self.decoders if decoders is None else decoders)
        for name, encoder in self.encoders.items():
            cells = [row.get(name, f"a text, {i}") for i, row in enumerate(self.rows)]
            texts = [str(cell) for cell in cells[rows]]
            context = context.reading(name, encoder, texts)
        return context

    def loss(
        self,
        rows: slice = slice(None),
        features: Mapping[str, Features] | None = None,
        task: Task | None = None,
        decoders: Mapping[str, Decoder] | None = None,
    ) -> Loss:
        """Compute the loss of some rows, at a seed; the task's buffers stay unchanged."""
        task = self.task if task is None else task
        buffers = copy.deepcopy(dict(task.named_buffers()))
        features_of = self.features() if features is None else features
        batch = self.prepare(task, self.rows[rows])
        batch.features = {name: _slice(f, rows) for name, f in features_of.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the engine seeds every step
            loss = task.loss(batch, self.context(batch.features, decoders, rows))
        with torch.no_grad():
            for name, buffer in task.named_buffers():
                buffer.copy_(buffers[name])
        return loss


def _slice(features: Features, rows: slice) -> Features:
    """Return some rows of features; those themselves if all are requested."""
    if rows == slice(None):
        return features
    hidden_states = tuple(_slice(layer, rows) for layer in features.hidden_states)
    return features.replace(
        tokens=features.tokens[rows],
        mask=features.mask[rows],
        codes=None if features.codes is None else features.codes[rows],
        hidden_states=hidden_states,
    )
