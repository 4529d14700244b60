"""The classes of text towers, which AutoModel does not map by their configuration."""

from __future__ import annotations

import importlib
from typing import Any

from transformers import MODEL_MAPPING, PreTrainedModel


def class_of(config: Any) -> Any:
    """Return the class of a configuration that AutoModel does not map, as those of the towers of
    dual models; None if it does, or there is no one class that reads ids."""
    if type(config) in MODEL_MAPPING:
        return None
    path = type(config).__module__.replace(".configuration_", ".modeling_")
    known: dict[str, Any] = vars(importlib.import_module(path))
    classes: list[Any] = [
        kind
        for kind in known.values()
        if isinstance(kind, type)
        and issubclass(kind, PreTrainedModel)
        and getattr(kind, "config_class", None) is type(config)
        and kind.__module__ == path
        and getattr(kind, "main_input_name", None) == "input_ids"
    ]
    return _Direct(classes[0]) if len(classes) == 1 else None


class _Direct:
    """A class of transformers, used as an Auto class is."""

    def __init__(self, kind: Any) -> None:
        self.from_config, self.from_pretrained = kind._from_config, kind.from_pretrained
