"""Control: from any streams to a chunk of actions, said by the decoder in one of four forms.

`parallel` (BEAST-D and BEAST-F, arXiv 2506.06072), `continuous` (BEAST-ACT), `autoregressive`
(RT-2, OpenVLA, FAST), `fourier` (arXiv 2410.22269); each is a class of `FORMS`.

Legend: `B` rows, `steps` samples of a chunk, `dof` numbers of an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from ..backbones.base import Backbone
from ..modalities.action.base import ActionTokenizer
from ._action_forms import Form, Fourier, Parallel
from ._action_points import Continuous
from ._action_prompt import context, decoder, parsed
from ._action_rows import ActionTask
from ._action_sequences import Autoregressive
from .base import Batch, Encode, Loss, Row
from .chunks import Chunks

FORMS: dict[str, type[Form]] = {
    "autoregressive": Autoregressive,
    "continuous": Continuous,
    "fourier": Fourier,
    "parallel": Parallel,
}


class Control(ActionTask):
    """prompt: names streams and columns, `"<state> {instruction}"`. tokenizer: of the actions.
    action: the column of chunks, a window of the data. last_action: the column of the action
    executed last, for a tokenizer that begins there. form: how a chunk is said.

    Of one form alone: vocabulary (parallel, autoregressive): `added` rows of the decoder's
    vocabulary, or its `tail`. attention (autoregressive): how the context is read. latent, kl
    (continuous): numbers of a conditional VAE, and the weight of its divergence. frequencies,
    smoothness (fourier): of the series, and the weight of its roughness.
    """

    uses_backbone = True

    def __init__(
        self,
        *,
        prompt: str,
        tokenizer: ActionTokenizer,
        chunk: Chunks,
        action: str = "action",
        last_action: str = "last_action",
        form: Literal["parallel", "continuous", "autoregressive", "fourier"] = "parallel",
        vocabulary: Literal["added", "tail"] | None = None,
        attention: Literal["causal", "prefix"] | None = None,
        latent: int | None = None,
        kl: float | None = None,
        frequencies: int | None = None,
        smoothness: float | None = None,
    ) -> None:
        super().__init__(tokenizer, chunk, action, last_action)
        self.prompt = parsed(prompt)
        self.streams = tuple(dict.fromkeys(self.prompt.streams))
        own = {
            "vocabulary": vocabulary,
            "attention": attention,
            "latent": latent,
            "kl": kl,
            "frequencies": frequencies,
            "smoothness": smoothness,
        }
        said = {name: value for name, value in own.items() if value is not None}
        self.form = FORMS[form](tokenizer, chunk, **_of_form(form, said))

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.prompt.columns, self.action)))

    def targets(self, row: Row) -> dict[str, Any]:
        """`prompt`: the texts around the streams; the rest as in `ActionTask`, none of it where
        the row has no actions (a robot asks what to do)."""
        return {"prompt": self.prompt.render(row), **super().targets(row)}

    def corpus(self, row: Row) -> Iterable[str]:
        return [text for text in self.prompt.render(row) if text]

    def new_tokens(self) -> int:
        return self.form.new_tokens()

    def attach(self, backbone: Backbone | None, first: int | None) -> None:
        self.form.attach(decoder(backbone), first)

    def loaded(self) -> None:
        self.form.loaded()

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """The form's own; padded samples decide nothing."""
        known = context(self.prompt, batch, encode, backbone)
        return self.form.loss(known, self.chunks_of(batch), decoder(backbone))

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, Any]]:
        """`{"actions": [steps][dof]}` a row, in the robot's units, always finite and the same for
        the same row; `tokens`, where the form says ids.

        options: `steps`, the samples over the same time (another control rate). A sequence of
        tokens that means nothing (FAST) gives the mean action and `undecodable: true`.
        """
        steps, start = self.steps_of(options), self.starts(batch)
        said = self.form.say(context(self.prompt, batch, encode, backbone), decoder(backbone))
        made: list[dict[str, Any]]
        if isinstance(said, Tensor):
            said = said.cpu()
            made = [{"actions": one} for one in self.form.decode(said, steps, start).tolist()]
        else:
            starts = [None] * len(said) if start is None else list(start[:, None])
            made = [self._decoded(r.cpu(), steps, s) for r, s in zip(said, starts, strict=True)]
        if not self.form.discrete:
            return made
        return [{**one, "tokens": row.tolist()} for one, row in zip(made, said, strict=True)]

    def _decoded(self, tokens: Tensor, steps: int, start: Tensor | None) -> dict[str, Any]:
        """Of tokens whose number varies, and that may mean nothing."""
        try:
            return {"actions": self.form.decode([tokens], steps, start)[0].tolist()}
        except ValueError:
            return {"actions": self.chunk.rest(steps), "undecodable": True}

    def example(self) -> list[dict[str, Any]]:
        return self.example_rows([self.prompt])


def _of_form(form: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """The options said, if they are the form's own."""
    for name in said:
        if name not in FORMS[form].options:
            owners = [key for key, part in FORMS.items() if name in part.options]
            raise ValueError(
                f"{name}: is of form: {' or '.join(owners)}, found form: {form}; take it out, or "
                "say the other form"
            )
    return dict(said)
