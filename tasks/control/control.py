"""Control: any streams to a chunk of actions, by one of four action decoders on the backbone.

`parallel` (BEAST-D and BEAST-F, arXiv 2506.06072), `continuous` (BEAST-ACT), `autoregressive`
(RT-2, OpenVLA, FAST), `fourier` (arXiv 2410.22269); see `ACTION_DECODERS`.

Legend: `B` rows, `steps` samples of a chunk, `dof` numbers of an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ...backbones.base import Backbone
from ...modalities.action.tokenizers import ActionTokenizer
from ...modalities.base import Loss, NonNegativeFloat, PositiveInt
from ..base import Context, Row
from ..batch import Batch, Example, Tools
from ..common import assemble, parse_prompt, require_streams
from ..uses import BACKBONE, DecoderUse, StreamUse
from .base import ControlTask
from .decoders import (
    ActionDecoder,
    Autoregressive,
    Chunk,
    ChunkStatistics,
    Continuous,
    Fourier,
    Parallel,
)

ACTION_DECODERS: dict[str, type[ActionDecoder]] = {
    "autoregressive": Autoregressive,
    "continuous": Continuous,
    "fourier": Fourier,
    "parallel": Parallel,
}


class Control(ControlTask):
    """Prediction of action chunks by a language decoder.

    prompt: names streams and columns, `"<state> {instruction}"`. tokenizer: of the actions. action:
    the column of chunks. previous_action: the column of the action executed last, for a tokenizer
    with `start_order`. action_decoder: how the backbone predicts a chunk.

    Options of single action decoders: vocabulary (parallel, autoregressive): `added` rows of the
    backbone's vocabulary, or its `tail`. attention (autoregressive): over the context. latent, kl
    (continuous): width of the latent of a conditional VAE, and the weight of its divergence.
    frequencies, smoothness (fourier): of the series, and the weight of its roughness.
    """

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        tokenizer: ActionTokenizer,
        chunk: ChunkStatistics,
        action: str = "action",
        previous_action: str = "previous_action",
        action_decoder: Literal["parallel", "continuous", "autoregressive", "fourier"] = "parallel",
        vocabulary: Literal["added", "tail"] | None = None,
        attention: Literal["causal", "prefix"] | None = None,
        latent: PositiveInt | None = None,
        kl: NonNegativeFloat | None = None,
        frequencies: PositiveInt | None = None,
        smoothness: NonNegativeFloat | None = None,
    ) -> None:
        super().__init__(tokenizer, chunk, action, previous_action)
        self.prompt = parse_prompt(prompt)
        self.streams = {name: StreamUse(width=BACKBONE) for name in require_streams(self.prompt)}
        options = {
            "vocabulary": vocabulary,
            "attention": attention,
            "latent": latent,
            "kl": kl,
            "frequencies": frequencies,
            "smoothness": smoothness,
        }
        options = {name: value for name, value in options.items() if value is not None}
        self.action_decoder = ACTION_DECODERS[action_decoder](
            tokenizer, chunk, **_decoder_options(action_decoder, options)
        )
        kind = (attention or "causal") if action_decoder == "autoregressive" else "block"
        self.decoders = {BACKBONE: DecoderUse(attention=frozenset({kind}))}

    def prompt_columns(self) -> tuple[str, ...]:
        return self.prompt.columns

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.prompt.columns, self.action)))

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: the prompt's texts, and those of `ControlTask`, which a row has not when a robot
        requests an action."""
        example = super().prepare(row, tools, rng)
        example.labels |= self.prompt.encode(row, tools.tokenizer())
        return example

    def encode(self, chunk: Chunk) -> Tensor | list[Tensor]:
        return self.action_decoder.encode(chunk)

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        if part.endswith(".tokenizer"):
            return [text for text in self.prompt.render(row) if text]
        return super().fit_examples(part, row)

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        self.action_decoder.build(decoders[BACKBONE])

    def validate_loaded(self) -> None:
        self.action_decoder.validate_loaded()

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the action decoder's loss; padded samples have no weight."""
        target = self.target(batch)
        context = assemble(self.prompt.streams, batch, ctx)
        return self.action_decoder.loss(context, batch, target, ctx.decoder())

    def predict(
        self, batch: Batch, ctx: Context, *, steps: PositiveInt | None = None, **options: Any
    ) -> list[Any]:
        """Return `{"actions": [steps][dof]}` a row, in the robot's units, always finite and
        deterministic; `tokens`, if the action decoder generates ids.

        steps: number of samples over the same time (another control rate). A
        sequence of tokens that cannot be decoded (FAST) is replaced by the mean action and
        `undecodable: true`.
        """
        steps, start = steps or self.chunk.steps, self.starts(batch)
        output = self.action_decoder.generate(
            assemble(self.prompt.streams, batch, ctx), ctx.decoder()
        )
        rows: list[dict[str, Any]]
        if isinstance(output, Tensor):
            output = output.cpu()
            rows = [
                {"actions": a} for a in self.action_decoder.decode(output, steps, start).tolist()
            ]
        else:
            starts = [None] * len(output) if start is None else list(start[:, None])
            rows = [self._decoded(t.cpu(), steps, s) for t, s in zip(output, starts, strict=True)]
        if not self.action_decoder.discrete:
            return rows
        return [{**row, "tokens": t.tolist()} for row, t in zip(rows, output, strict=True)]

    def _decoded(self, tokens: Tensor, steps: int, start: Tensor | None) -> dict[str, Any]:
        """Decode tokens whose number varies, and which may not be decodable."""
        try:
            return {"actions": self.action_decoder.decode([tokens], steps, start)[0].tolist()}
        except ValueError:
            return {"actions": self.chunk.mean_action(steps), "undecodable": True}

    def example_rows(self) -> list[dict[str, Any]]:
        return self.chunk_rows([self.prompt])


def _decoder_options(action_decoder: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options. Raise ValueError if one belongs to other action decoders."""
    for name in options:
        if name not in ACTION_DECODERS[action_decoder].options:
            owners = [key for key, part in ACTION_DECODERS.items() if name in part.options]
            raise ValueError(
                f"{name}: belongs to action_decoder: {' or '.join(owners)}, found "
                f"{action_decoder}; remove it, or use the other action decoder"
            )
    return dict(options)
