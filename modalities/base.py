"""The contracts of every modality: encoder, processor, decoder and fitted part.

Legend: `B` batch, `T` tokens of a sample, `D` width of a token.

A row of a data set becomes a raw value (`read`), a raw value becomes a sample
(`Processor.prepare`), samples become a batch (`Encoder.collate`), a batch becomes
`Features`. Connectors take `Features` and return `Features`; nothing else passes.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from .features import Features as Features
from .features import Loss as Loss
from .figures import Chart as Chart
from .messages import ReadError as ReadError
from .messages import RowErrors as RowErrors
from .messages import only_read_errors as only_read_errors
from .messages import read_errors as read_errors
from .modality import Modality as Modality
from .rows import Source as Source
from .rows import StreamingSource as StreamingSource
from .rows import Unreadable as Unreadable

PositiveInt = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
"""Numbers with their ranges: a recipe's values are checked against them before a model is built."""

Sample = dict[str, Tensor]
"""The output of a processor for one raw value; the sample cache stores it."""

TO_SOURCE = "to_source"
"""Key of a sample's matrix to what was read (`prepare_located`); what moves the sample moves it."""

Annotations = Mapping[str, tuple[Any, Any]]
"""What a report draws on a raw value, by name: (prediction, reference), None where
there is none. `words` `[[word, first second, last second], ...]`; `boxes` `[[low corner, high
corner], ...]` in mm or px, flat; `peak`, a place; `forecast`, `[channels][samples]` behind the end;
`mask` and `map` as its modality reads them."""


class Processor:
    """Raw value -> sample. Small, picklable, without modules or weights. Its settings come from the
    weights' own configuration, never from a silent default."""

    def prepare(self, raw: Any) -> Sample:
        """Return the sample of one raw value; deterministic."""
        raise NotImplementedError

    def prepare_located(self, raw: Any) -> tuple[Sample, Tensor | None]:
        """As `prepare`, and a matrix from the sample to `raw`; None: not known, or `affine`."""
        return self.prepare(raw), None

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what `prepare` returns, as JSON: part of the cache's keys
        and of a run's fingerprints. By default, the fields of a dataclass and all attributes but
        cached properties."""
        fields: dict[str, Any] = dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}
        cached = {
            name
            for each in type(self).__mro__
            for name, value in vars(each).items()
            if isinstance(value, functools.cached_property)
        }
        attributes = {k: v for k, v in vars(self).items() if k not in cached and k not in fields}
        return fields | attributes


class Component:
    """A piece that a recipe names by `type`: three steps bring it up.

    `resolve` finds the configuration (the only step that may download), `__init__`
    builds from it (safe on the meta device; no download, no seed), `load` fills it.

    A part may contain parts: a constructor argument annotated `Encoder`, `Connector`, `Backbone`,
    `Decoder`, or a subclass of one, takes a section in the recipe; the constructor receives the
    part built, and keeps it under the argument's name. The section has the keys of any part:
    `weights`, `freeze`, `lora`, `train_only`, `quantize`, `lr`. Short names of an inner encoder or
    decoder are those of the modality of the outer part; `Annotated[Encoder, "image"]` names another
    one, and `type: image/timm` does so in the recipe. An inner connector declares the parts that it
    connects (`connectors.base.Between`). A task keeps its inner parts in the constructor and uses
    them from `build` on, since they are initialized once their inputs are fitted.
    """

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a recipe's section, completed so that `__init__` needs nothing
        else."""
        return options

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        """Return True where the options name weights (a tag, a hub id, a folder with a
        checkpoint)."""
        return False

    @classmethod
    def list_names(cls) -> Sequence[str]:
        """Return the built-in values of the option `name`; empty if it has none."""
        return ()

    transforms_follow: bool = False
    weights_follow: bool = False
    """Set by the engine before the constructor: `transformed` and `load` are called next."""

    def transformed(self, check: bool = True) -> None:
        """Derive again the values that the constructor read off its modules (widths, `supports`),
        after transforms changed them. check: raise ValueError if the part does not hold together
        any more."""

    def load(self) -> None:
        """Fill with the weights that the options name (`weights: pretrained`)."""
        raise ValueError(f"{type(self).__name__} carries no pretrained weights; set weights: none")


LayerHook = Callable[[Tensor, Tensor], Tensor]
"""The tokens `[B, T, D]` behind a layer and their mask `[B, T]` -> the tokens that go on."""


class Encoder(Component, nn.Module):
    """A batch of samples -> `Features`. Knows nothing of tasks or decoders.

    dim: width of the tokens. processor: makes its samples. batch_invariant: False if padding
    changes a sample's features, as declared or seen in a trial of the built module
    (`padding_samples`); samples of different shapes are then encoded apart. supports:
    what `forward` takes beyond its batch: `hidden_states` (layers to return), `token_mask`
    (`[B, T]` bool, True = replaced by a learned mask token), `layer_hooks` (`{layer: LayerHook}`),
    `inputs_embeds` (`[B, L, E]`, read in place of the embeddings of `ids`); `vocabulary`: it has
    `embed(ids) -> [..., E]` and `logits(hidden, ids=None) -> [..., V]`; `ids`: its batch is `ids`
    of its tokenizer and `mask`; `types`: 0 of a first, 1 of a second text; `segments`: measured
    tokens; `targets`, `quantizer`: see `features.py`; `codes`: those of its `tokenizer`. And of the
    tokens: `causal`, none depends on the signal behind its extent; `aligned`, each is of one span.
    time_inputs: the inputs of its batch that run along time (one is the bool mask), and the
    steps of a token.
    """

    dim: int
    processor: Processor
    batch_invariant: bool = True
    supports: frozenset[str] = frozenset()
    time_inputs: Mapping[str, int] = {}

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Samples -> the keyword arguments of `forward`; equal shapes are stacked."""
        return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}

    def __call__(self, *args: Any, to_source: Any = None, **inputs: Any) -> Any:
        """Return `forward`'s features. to_source: `[B, n + 1, n + 1]`, the `affine` of features
        that have none of their own."""
        features = super().__call__(*args, **inputs)
        if to_source is None or getattr(features, "affine", 0) is not None:
            return features
        hidden = tuple(layer.replace(affine=to_source) for layer in features.hidden_states)
        return features.replace(affine=to_source, hidden_states=hidden)

    def padding_samples(self) -> Sequence[Sample]:
        """Return two samples of different shapes, on which it is tried whether padding changes
        features; none, as by default, if the class defines it."""
        return ()

    def blocks(self) -> Sequence[nn.Module]:
        """Return the layers from input to output, for `freeze: {last: n}`; empty where unknown."""
        return ()


class Decoder(Component, nn.Module):
    """`Features` -> a signal: a language model, a flow head, a vocoder, an image generator.

    dim: width of the features that condition it. A target is the signal as the tensors of a batch;
    the task `generation` passes `values [B, *grid, C]` and `mask [B, *grid]`, and expects such
    values of `generate(condition, seeds=...)`. supports: further abilities (see `Backbone`).
    """

    dim: int
    supports: frozenset[str] = frozenset()

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths of its conditions; several are passed as a sequence."""
        return (self.dim,)

    def unsupported_reason(self, ability: str) -> str | None:
        """Return why the decoder does not support something, in one line; None if it does."""
        if ability in self.supports:
            return None
        return f"{type(self).__name__} does not support {ability}; it supports {self._supported}"

    @property
    def _supported(self) -> str:
        return ", ".join(sorted(self.supports)) or "nothing else"

    def loss(self, condition: Any, target: Mapping[str, Tensor]) -> Loss:
        """Compute the loss of a target given its condition, features `[B, T, D]`."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(self, condition: Any, **options: Any) -> Any:
        """Generate one signal for each row of the condition, features `[B, T, D]`."""
        raise NotImplementedError

    def as_json(self, generated: Any) -> list[dict[str, Any]]:
        """Return what `generate` returned, a JSON object a row: `{kind: cell of such a stream}`;
        files are texts, `data:image/png;base64,...`."""
        raise NotImplementedError

    def blocks(self) -> Sequence[nn.Module]:
        """Return the layers from input to output, for `freeze: {last: n}`; empty if unknown."""
        return ()


class Fittable(ABC):
    """A part that is fitted on the training split before the model is composed.

    A constructor that takes one (an argument annotated with a subclass) gets it
    fitted. `kind` names the catalogue that a recipe's short names are looked up in;
    None where the annotated class itself is the only choice.
    """

    kind: ClassVar[str | None] = None

    def fit(self, rows: Iterable[Any]) -> None:  # noqa: B027
        """Learn from the training split: raw values for a stream, texts for a backbone, rows
        (dicts) for a task. A part that has nothing to learn leaves this alone."""

    def check_example(self, example: Any) -> None:  # noqa: B027
        """Raise ValueError if `fit` cannot learn from an example. The engine calls this first, so
        that a bad row fails by its key, or is left out and counted."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the fitted state: JSON values, and numpy arrays (saved as safetensors)."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""

    def charts(self) -> Sequence[Chart]:
        """Return the charts of the fitted state for a report; none by default."""
        return ()


class Tokenizer(Fittable):
    """Text <-> ids. Ids are plain integers below `size`."""

    kind = "text_tokenizer"

    size: int
    pad_id: int
    eos_id: int
    bos_id: int | None = None
    mask_id: int | None = None

    @abstractmethod
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return ids of a text; with `special`, between the tokens that the model expects at the
        ends."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""

    def special_id(self, token: str) -> int | None:
        """Return the id of a special token by its text, `<extra_id_0>`; None if there is none."""
        return None

    def chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
        """Return messages, `[{role: ..., content: ...}]`, as the text that the model was trained
        on, up to where the answer begins; `encode_chat` takes it. Contents are in it verbatim,
        so that it can be split at a placeholder of theirs. options: variables of the template.

        Raise ValueError if there is no chat template, or it leaves a content out.
        """
        raise ValueError(
            f"tokenizer: {type(self).__name__} has no chat template; write the prompt as one text"
        )

    def encode_chat(self, text: str) -> list[int]:
        """Return ids of what `chat` returned, or of a part of it: the special tokens of the
        template become their ids."""
        return self.encode(text)

    def encode_batch(self, texts: Sequence[str], **options: Any) -> tuple[Tensor, Tensor]:
        """Texts -> ids `[B, L]` and mask `[B, L]` bool, padded on the right with `pad_id`."""
        ids = [torch.tensor(self.encode(t, **options), dtype=torch.long) for t in texts]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(i) for i in ids])
        return padded, torch.arange(padded.shape[1]) < lengths[:, None]
