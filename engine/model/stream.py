"""One input: the encoder, its hidden layers, and the connector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...connectors.base import Connector
from ...modalities.base import Encoder, Features
from ...modalities.features import HasTargets
from ...modalities.groups import EncoderInputs, ShapeGroups, StreamInput, Tensors, encode_by_group
from .parameters import is_frozen
from .sliding_window import encode_windowed, options_of


class Stream(nn.Module):
    """An input's encoder and its connector (or None).

    layers: hidden layers that a store of its features holds, in this order: the connector's, then
    those that tasks request. The encoder's output begins with the connector's too. ema,
    ema_connector: moving averages of the encoder and the connector, if a task requests them.
    """

    encoder: Encoder
    ema: Encoder | None
    ema_connector: Connector | None

    def __init__(self, encoder: Encoder, connector: Connector | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.connector = connector
        self.ema = self.ema_connector = None
        self.connector_layers = () if connector is None else connector.hidden_layers
        self.layers = self.connector_layers

    @property
    def dim(self) -> int:
        return self.encoder.dim if self.connector is None else self.connector.out_dim

    def width(self, point: str = "") -> int:
        """Return the width after the connector, or, at another point (`encoder`), before it; at
        `targets`, of the encoder's targets."""
        if point == "targets":
            return self.target_encoder().target_dim
        return self.encoder.dim if point else self.dim

    def target_encoder(self) -> HasTargets:
        """Return the encoder. Raise ValueError if it has no targets to predict."""
        if not isinstance(self.encoder, HasTargets):
            raise ValueError(f"{type(self.encoder).__name__} has no targets to predict")
        return self.encoder

    def point(self, name: str) -> Callable[[StreamInput, Mapping[str, Any]], Features]:
        """Return the function that computes a point: `encoder`, `ema`, `targets`, or the end."""
        points = {
            "": self.run,
            "encoder": self.encode_or_load,
            "ema": self.encode_ema,
            "targets": self.encode_targets,
        }
        if name not in points or (name == "ema" and self.ema is None):
            raise ValueError(f"a stream has no point {name!r} here; there are: encoder, the end")
        return points[name]

    def encode_or_load(self, inputs: StreamInput, options: Mapping[str, Any]) -> Features:
        """Return the encoder's features of a batch, computed now or stored."""
        numbers = (*self.connector_layers, *options.get("hidden_states", ()))
        if not isinstance(inputs, Features):
            return self.encode(
                inputs, **{**options, **({"hidden_states": numbers} if numbers else {})}
            )
        stored = inputs.to(torch.float32)  # perhaps stored in a smaller precision than the weights
        by_number = dict(zip(self.layers, stored.hidden_states, strict=False))
        return stored.replace(hidden_states=tuple(by_number[layer] for layer in numbers))

    def for_tasks(self, features: Features) -> Features:
        """Return features without the hidden layers that the connector requested."""
        return (
            features.replace(hidden_states=features.hidden_states[len(self.connector_layers) :])
            if self.connector_layers
            else features
        )

    def run(
        self, inputs: StreamInput, options: Mapping[str, Any], items: Tensor | None = None
    ) -> Features:
        """Return the connector's features, from a batch or from stored features. items: `[B]` of
        each row, of a stream of lists."""
        features: Features = self(self.encode_or_load(inputs, options), items)
        return features

    def without_items(self, point: str, options: Mapping[str, Any]) -> Features:
        """Return the features `[0, 0, D]` of a batch none of whose rows has an item, without a
        graph; neither the encoder nor the connector runs."""
        device = next((p.device for p in self.parameters()), None)
        empty = Features.dense(torch.zeros(0, 0, self.width(point), device=device))
        numbers = (*(self.connector_layers if point else ()), *options.get("hidden_states", ()))
        hidden = Features.dense(torch.zeros(0, 0, self.encoder.dim, device=device))
        return empty.replace(hidden_states=(hidden,) * len(numbers))

    def encode(self, inputs: EncoderInputs, **options: Any) -> Features:
        """Run the encoder, without a graph if nothing in it trains."""
        trains = not is_frozen(self.encoder) or "layer_hooks" in options
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            return encode(self.encoder, inputs, options)

    def encode_ema(self, inputs: StreamInput, options: Mapping[str, Any]) -> Features:
        """Return the features of the encoder's moving average, and of the connector's if it has
        one, for a batch, without a graph."""
        if self.ema is None or isinstance(inputs, Features):
            raise ValueError("a teacher reads batches, not stored features; is its encoder frozen?")
        numbers = (*self.connector_layers, *options.get("hidden_states", ()))
        with torch.no_grad():
            features = encode(
                self.ema, inputs, {**options, **({"hidden_states": numbers} if numbers else {})}
            )
            if self.ema_connector is None:
                return features
            connected: Features = self.ema_connector(features)
            return connected.replace(hidden_states=features.hidden_states)

    def encode_targets(self, inputs: StreamInput, options: Mapping[str, Any]) -> Features:
        """Return the targets of a masked objective for a batch, without a graph."""
        encoder = self.target_encoder()
        if isinstance(inputs, Features):
            raise ValueError("targets are read off batches, not stored features")
        with torch.no_grad():
            return encode_by_group(inputs, lambda tensors, _: encoder.targets(**tensors))

    @property
    def is_bag(self) -> bool:
        """Whether the connector reads the items of a row together."""
        return self.connector is not None and self.connector.reads_items

    def forward(self, features: Features, items: Tensor | None = None) -> Features:
        """Return the connector's features. items: `[B]` of each row, of a stream of lists."""
        if self.connector is None:
            return features
        hidden = features.hidden_states[: len(self.connector_layers)]
        if self.is_bag and items is None:
            raise ValueError(
                f"connector: {type(self.connector).__name__} reads the items of rows, which this "
                "use of the stream does not have; take another connector"
            )
        extra = {"items": items} if self.is_bag else {}
        connected = self.connector(features.replace(hidden_states=hidden), **extra)
        connected = check_features(connected, self.connector, self.connector.out_dim)
        if self.is_bag:
            return connected
        return connected.replace(hidden_states=self.for_tasks(features).hidden_states)


def check_features(value: Any, part: nn.Module, dim: int) -> Features:
    """Return the output of a part. Raise ValueError if it is no Features of the declared width."""
    kind = type(part).__name__
    if not isinstance(value, Features):
        raise ValueError(
            f"{kind}.forward returned {type(value).__name__}, expected Features; for tokens "
            "[B, T, D] return Features.dense(tokens)"
        )
    if value.dim != dim:
        name = "out_dim" if hasattr(part, "out_dim") else "dim"
        raise ValueError(
            f"{kind}.{name} is {dim}, and its forward returned tokens of width {value.dim}; make "
            "both the same"
        )
    return value


def encode(encoder: Encoder, inputs: EncoderInputs, options: Mapping[str, Any]) -> Features:
    """Return an encoder's features of a batch; groups of equal shapes are encoded one by one."""
    if isinstance(inputs, ShapeGroups) and options.get("token_mask") is not None:
        raise ValueError(
            "token_mask: the samples differ in shape, and padding would change what "
            f"{type(encoder).__name__} returns, so they are encoded apart; cut or resize them to "
            "one shape"
        )

    def run(tensors: Tensors, rows: list[int] | None) -> Features:
        features = encode_windowed(
            encoder, tensors, options if rows is None else options_of(options, rows)
        )
        return check_features(features, encoder, encoder.dim)

    return encode_by_group(inputs, run)
