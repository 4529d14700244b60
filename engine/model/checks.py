"""Checks of streams against tasks: widths, and the abilities that the encoder must support.

Widths are read from the objects; a mismatch is one line with both parts, both numbers, the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ...connectors.base import Connector
from ...modalities.base import Decoder, Encoder, Processor, Tokenizer
from ...modalities.messages import describe_error, shorten
from ...modalities.text_processor import lost_in_text
from ..cache import processor_identity
from ..recipe import ResolvedRecipe
from ..utils import ConfigError, located_errors
from .parameters import is_frozen
from .stream import Stream

Streams = Mapping[str, Stream]
Decoders = Mapping[str, Decoder]


def check_encoder(name: str, encoder: Encoder) -> None:
    """Raise ConfigError if an encoder lacks a part that the engine reads of every one."""
    where, kind = f"inputs.{name}.encoder", type(encoder).__name__
    dim, processor = getattr(encoder, "dim", None), getattr(encoder, "processor", None)
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise ConfigError(
            f"{where}: {kind}.dim is {shorten(repr(dim), 60)}, expected the width of its tokens; "
            "set self.dim in __init__"
        )
    if not isinstance(processor, Processor):
        raise ConfigError(
            f"{where}: {kind}.processor is {shorten(repr(processor), 60)}, expected a Processor, "
            "which makes its samples; set self.processor in __init__"
        )


def check_processor(name: str, encoder: Encoder) -> None:
    """Raise ConfigError if the settings of a stream's processor cannot be a key of the cache."""
    with located_errors(f"inputs.{name}.encoder"):
        try:
            processor_identity(encoder.processor)
        except Exception as error:
            kind = type(encoder.processor).__name__
            raise ValueError(f"processor: {kind}: {describe_error(error)}") from error


def order_by_dependency(plan: ResolvedRecipe) -> list[str]:
    """Return the streams; those that end in the width of another one come last."""
    followers = {
        name
        for part in plan.tasks.values()
        for name, use in part.task.streams.items()
        if isinstance(use.width, str) and use.width in plan.streams
    }
    return sorted(plan.streams, key=followers.__contains__)


def _widths(
    plan: ResolvedRecipe, name: str, streams: Streams, decoders: Decoders
) -> dict[str, int]:
    """Return the required output widths of a stream, by what requires them."""
    widths: dict[str, int] = {}
    for key, part in plan.tasks.items():
        use = part.task.streams.get(name)
        if use is None or use.width is None:
            continue
        if isinstance(use.width, int):
            widths[f"tasks.{key}.dim"] = use.width
        elif use.width in streams:
            widths[f"tasks.{key} (as wide as inputs.{use.width})"] = streams[use.width].dim
        else:
            decoder, _, place = use.width.partition(".")
            if decoder in decoders:
                widths[str(plan.decoders[decoder].where)] = _condition_width(
                    plan, f"tasks.{key}", decoder, decoders[decoder], int(place or 0)
                )
    return widths


def _condition_width(
    plan: ResolvedRecipe, task: str, name: str, decoder: Decoder, place: int
) -> int:
    """Return the width of a decoder's condition. Raise ConfigError if it takes fewer."""
    if place >= len(decoder.dims):
        raise ConfigError(
            f"{task}: names {place + 1} conditions, and {plan.decoders[name].where} takes "
            f"{len(decoder.dims)}"
        )
    return decoder.dims[place]


def check_decoders(plan: ResolvedRecipe, task: str, decoders: Decoders) -> None:
    """Raise ConfigError if a decoder does not support what a task requires."""
    for name, use in plan.tasks[task].task.decoders.items():
        for ability in sorted(use.attention | use.supports):
            if reason := decoders[name].unsupported_reason(ability):
                raise ConfigError(f"tasks.{task}: {name}: {reason}")


def required_width(plan: ResolvedRecipe, name: str, streams: Streams, decoders: Decoders) -> int:
    """Return the output width of a stream's connector: its encoder's, if no task requires one."""
    part = plan.streams[name].connector
    sharing = [name] if part is None else plan.streams_of(part)
    required = {
        reader: d for n in sharing for reader, d in _widths(plan, n, streams, decoders).items()
    }
    if len(set(required.values())) > 1:
        widths = " and ".join(f"{reader} {dim}" for reader, dim in required.items())
        raise ConfigError(
            f"inputs.{name}.connector: must end in two widths at once, {widths}; "
            "give each its own stream, or make the widths equal"
        )
    return next(iter(required.values()), streams[name].encoder.dim)


def check_shared_widths(plan: ResolvedRecipe, name: str, streams: Streams) -> None:
    """Raise ConfigError if a connector that is shared was built for encoders of another width."""
    connector, part = streams[name].connector, plan.streams[name].connector
    if connector is not None and part is not None:
        width = streams[name].encoder.dim
        if connector.in_dim != width:
            raise ConfigError(
                f"inputs.{name}.connector: {part.where} takes tokens of width {connector.in_dim}, "
                f"the encoder of inputs.{name} returns {width}; give it a connector of its own"
            )


def hidden_layers(plan: ResolvedRecipe, name: str) -> tuple[int, ...]:
    """Return the hidden layers that tasks request of a stream."""
    uses = (part.task.streams.get(name) for part in plan.tasks.values())
    return tuple(sorted({n for use in uses if use is not None for n in use.hidden_states}))


def request_head_layers(
    plan: ResolvedRecipe, where: str, stream: str, head: nn.Module, module: Stream
) -> None:
    """Record the hidden layers that a head requests of its stream. Raise ConfigError for an encoder
    without any."""
    requested = head.hidden_layers if isinstance(head, Connector) else ()
    if requested and "hidden_states" not in module.encoder.supports:
        name = stream.partition(".")[0]
        type_ = plan.streams[name].encoder.section.type
        raise ConfigError(
            f"{where}: needs hidden layers of inputs.{name}.encoder, and {type_} supports none; "
            "leave its layers out"
        )
    module.layers += tuple(layer for layer in requested if layer not in module.layers)


def check_encoder_support(plan: ResolvedRecipe, name: str, stream: Stream) -> None:
    """Raise ConfigError for an encoder that lacks what its connector or a task requires."""
    encoder, type_ = stream.encoder, plan.streams[name].encoder.section.type
    if stream.connector_layers and "hidden_states" not in encoder.supports:
        raise ConfigError(
            f"inputs.{name}.connector: needs hidden layers, and {type_} supports none; "
            "take another connector"
        )
    for key, part in plan.tasks.items():
        use = part.task.streams.get(name)
        if use is not None and use.many and stream.is_bag:
            raise ConfigError(
                f"inputs.{name}.connector: joins the items of a row, and tasks.{key} reads them "
                "one by one; take another connector"
            )
        if use is not None and use.shares in plan.streams:
            _check_shares(plan, key, name, str(use.shares))
        lacking = frozenset() if use is None else use.supports - encoder.supports
        if lacking:
            raise ConfigError(
                f"tasks.{key}: needs {', '.join(sorted(lacking))} of inputs.{name}.encoder, "
                f"and {type_} supports "
                f"{', '.join(sorted(encoder.supports)) or 'nothing beyond a forward'}"
            )
        connector = stream.connector
        if use is not None and "causal" in use.supports and not getattr(connector, "causal", True):
            spec = plan.streams[name].connector
            raise ConfigError(
                f"tasks.{key}: needs causal of inputs.{name}.connector, and "
                f"{spec.section.type if spec else 'it'} looks ahead; take linear, mlp or stack"
            )


def _check_shares(plan: ResolvedRecipe, task: str, name: str, source: str) -> None:
    """Raise ConfigError if two streams of a task have encoders of their own."""
    if plan.streams[name].encoder is not plan.streams[source].encoder:
        raise ConfigError(
            f"tasks.{task}: inputs.{name} must share the encoder of inputs.{source}; set "
            f"inputs.{name}.encoder: {{share: {source}}}"
        )


def check_width(plan: ResolvedRecipe, name: str, streams: Streams, decoders: Decoders) -> None:
    """Raise ConfigError for a stream whose width a task does not accept."""
    for reader, dim in _widths(plan, name, streams, decoders).items():
        if streams[name].dim != dim:
            part = plan.streams[name].encoder
            raise ConfigError(
                f"inputs.{name}: {part.section.type} returns tokens of width {streams[name].dim}, "
                f"{reader} takes {dim}; add `connector: linear` to inputs.{name}"
            )


def check_frozen(plan: ResolvedRecipe, streams: Streams, decoders: Decoders) -> None:
    """Raise ConfigError if a stream or a decoder trains that a task uses as a teacher."""
    for key, part in plan.tasks.items():
        for name, use in part.task.streams.items():
            if use.role == "teacher":
                stream, where = streams[name], f"inputs.{name}"
                trained = [] if is_frozen(stream.encoder) else [f"{where}.encoder"]
                if stream.connector is not None and any(
                    p.requires_grad for p in stream.connector.parameters()
                ):
                    trained.append(f"{where}.connector")
                _refuse_trained_teacher(key, trained)
        for name, decoder_use in part.task.decoders.items():
            if decoder_use.role == "teacher" and not is_frozen(decoders[name]):
                _refuse_trained_teacher(key, [str(plan.decoders[name].where)])


def _refuse_trained_teacher(task: str, trained: Sequence[str]) -> None:
    if trained:
        raise ConfigError(
            f"{trained[0]}: trains, and is the target of tasks.{task}, which has to stay "
            f"constant; set freeze: true on {' and '.join(trained)}"
        )


def tokenizer_notes(plan: ResolvedRecipe) -> list[str]:
    """Return the characters of texts that each tokenizer loses, which predictions can never
    match."""
    notes = []
    for where, part in plan.fitted().items():
        if isinstance(part, Tokenizer) and (dropped := lost_in_text(part)):
            notes.append(
                f"{where}: does not keep {', '.join(dropped)}; a text that holds them comes back "
                "changed, and no prediction can equal it"
            )
    return notes


def decoder_notes(decoders: nn.ModuleDict) -> list[str]:
    """Return a note for each decoder whose vocabulary tasks extended, and for each of which the
    dry run saw no more than the output's shape."""
    added = {name: getattr(decoder, "num_added_tokens", 0) for name, decoder in decoders.items()}
    notes = [
        f"{name}: {count} tokens added to its vocabulary" for name, count in added.items() if count
    ]
    return notes + [
        f"{name}: its layers were not walked, their FLOP and memory are not counted ({reason})"
        for name, decoder in decoders.items()
        if (reason := getattr(decoder, "not_walked", None))
    ]


def tasks_to_meta(tasks: nn.ModuleDict) -> None:
    """Move what trains in tasks, which were built with the plan, to the meta device. Their buffers
    stay: some are read (a step's number)."""
    for module in tasks.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_meta:
                meta_parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
                setattr(module, name, meta_parameter)
