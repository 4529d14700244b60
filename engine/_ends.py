"""Where streams end: the widths that tasks want of them, and what else tasks ask of a stream.

Widths are read from the objects; a mismatch is one line with both parts, both numbers, the key.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..backbones.base import Backbone
from ..connectors.base import Connector
from .adapt import is_frozen
from .errors import RecipeError
from .plan import RecipePlan
from .stream import Stream

Streams = Mapping[str, Stream]


def leaders_first(plan: RecipePlan) -> list[str]:
    """The streams; those that end in the width of another one come last."""
    followers = {name for part in plan.tasks.values() for name in part.task.follows}
    return sorted(plan.streams, key=followers.__contains__)


def _wanted(
    plan: RecipePlan, name: str, streams: Streams, backbone: Backbone | None
) -> dict[str, int]:
    """The widths that tasks want of a stream, by who wants them."""
    wanted: dict[str, int] = {}
    for key, part in plan.tasks.items():
        task = part.task
        if name not in task.streams:
            continue
        width = task.width(name)
        if width is not None:
            wanted[f"tasks.{key}.dim"] = width
        elif task.uses_backbone and backbone is not None and name not in task.aside:
            wanted["backbone"] = backbone.dim
        elif name in task.follows:
            leader = task.follows[name]
            wanted[f"tasks.{key} (as wide as inputs.{leader})"] = streams[leader].dim
    return wanted


def end_width(plan: RecipePlan, name: str, streams: Streams, backbone: Backbone | None) -> int:
    """The width that a stream's connector has to end in: its encoder's, where no task says."""
    wanted = _wanted(plan, name, streams, backbone)
    if len(set(wanted.values())) > 1:
        widths = " and ".join(f"{who} {dim}" for who, dim in wanted.items())
        raise RecipeError(
            f"inputs.{name}.connector: must end in two widths at once, {widths}; "
            "give each its own stream, or make the widths equal"
        )
    return next(iter(wanted.values()), streams[name].encoder.dim)


def hidden_layers(plan: RecipePlan, name: str) -> tuple[int, ...]:
    """The hidden layers that tasks want of a stream."""
    wanted = {n for part in plan.tasks.values() for n in part.task.layers.get(name, ())}
    return tuple(sorted(wanted))


def head_layers(plan: RecipePlan, where: str, stream: str, head: nn.Module, own: Stream) -> None:
    """Keep the hidden layers that a head wants of its stream; refuse an encoder without any."""
    wanted = head.hidden_layers if isinstance(head, Connector) else ()
    if wanted and "layers" not in own.encoder.supports:
        name = stream.partition(".")[0]
        type_ = plan.streams[name].encoder.section.type
        raise RecipeError(
            f"{where}: needs hidden layers of inputs.{name}.encoder, and {type_} supports none; "
            "leave its layers out"
        )
    own.layers += tuple(layer for layer in wanted if layer not in own.layers)


def offers(plan: RecipePlan, name: str, stream: Stream) -> None:
    """Refuse an encoder that lacks what its connector or a task asks of it."""
    encoder, type_ = stream.encoder, plan.streams[name].encoder.section.type
    if stream.own and "layers" not in encoder.supports:
        raise RecipeError(
            f"inputs.{name}.connector: needs hidden layers, and {type_} supports none; "
            "take another connector"
        )
    for key, part in plan.tasks.items():
        lacking = part.task.needs.get(name, frozenset()) - encoder.supports
        if lacking:
            raise RecipeError(
                f"tasks.{key}: needs {', '.join(sorted(lacking))} of inputs.{name}.encoder, "
                f"and {type_} supports "
                f"{', '.join(sorted(encoder.supports)) or 'nothing beyond a forward'}"
            )


def meets(plan: RecipePlan, name: str, streams: Streams, backbone: Backbone | None) -> None:
    """Refuse a stream that ends in another width than a task takes."""
    for who, dim in _wanted(plan, name, streams, backbone).items():
        if streams[name].dim != dim:
            part = plan.streams[name].encoder
            raise RecipeError(
                f"inputs.{name}: {part.section.type} gives tokens of width {streams[name].dim}, "
                f"{who} takes {dim}; add `connector: linear` to inputs.{name}"
            )


def stays_as_it_is(plan: RecipePlan, streams: Streams) -> None:
    """Refuse a stream that trains where a task takes it for fixed (a teacher)."""
    for key, part in plan.tasks.items():
        for name in part.task.fixed:
            stream, where = streams[name], f"inputs.{name}"
            open_ = [] if is_frozen(stream.encoder) else [f"{where}.encoder"]
            if stream.connector is not None and any(
                p.requires_grad for p in stream.connector.parameters()
            ):
                open_.append(f"{where}.connector")
            if open_:
                raise RecipeError(
                    f"{open_[0]}: trains, and is what tasks.{key} learns from, which has to stay "
                    f"as it is; say freeze: true on {' and '.join(open_)}"
                )
