"""What the encoders on models of transformers share: configuration, weights, layers.

Legend: `B` batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoFeatureExtractor

from ...base import Encoder, Sample
from ...messages import quiet_loading
from ...submodules import list_of_layers
from ..hf_extractor import Extractor
from ..read import Sound
from .padding import layer_indices

Json = dict[str, Any]


class HubSound(Encoder):
    """An audio model of transformers. Subclasses define `kind`, `types` and the forward.

    name: a hub id (`org/name`, `org/name@revision`) or a folder; its weights are read by `load`.
    config: the configuration with its `model_type`; beside a `name` it replaces values of the
    checkpoint's. processor: the feature extractor's settings, with its class as
    `feature_extractor_type`; without a name and without it, those the model type has.
    """

    kind: ClassVar[str]
    types: ClassVar[tuple[str, ...]]
    supports: frozenset[str] = frozenset({"hidden_states"})

    def __init__(
        self, name: str = "", config: Json | None = None, processor: Json | None = None
    ) -> None:
        super().__init__()
        self.name = name
        if name and (processor is None or "model_type" not in (config or {})):
            resolved = self.resolve({"name": f"local-dir:{path_of(name)}", "config": config})
            config, processor = resolved["config"], processor or resolved["processor"]
        self.config = self._configuration(dict(config or {}))
        self.model: Any = self.build()
        self.processor: Extractor = self.extractor(processor or self.default_settings())

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Read the configurations of `name`: the model's and the feature extractor's."""
        if not options.get("name"):
            return options
        where = parse_repo_id(options["name"])
        try:
            model = json.loads(AutoConfig.from_pretrained(**where).to_json_string(use_diff=False))
            extractor = AutoFeatureExtractor.from_pretrained(**where)
        except (OSError, ValueError) as error:
            complete = "model_type" in (options.get("config") or {})
            if complete and "feature_extractor_type" in (options.get("processor") or {}):
                return options  # of a run that holds the weights, whose source is gone
            line = " ".join(str(error).split())
            raise ValueError(
                f"name: {options['name']} has no model or no feature extractor, expected a "
                f"model's folder or hub id ({line})"
            ) from error
        steps = {
            **json.loads(extractor.to_json_string()),
            "feature_extractor_type": type(extractor).__name__,
        }
        return {
            **options,
            "config": {**model, **(options.get("config") or {}), "model_type": model["model_type"]},
            "processor": {**steps, **(options.get("processor") or {})},
        }

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        """Return True for a hub id and for a folder with safetensors in it."""
        if not options.get("name"):
            return False
        path = Path(path_of(options["name"]))
        return any(path.glob("*.safetensors")) if path.exists() else True

    def load(self) -> None:
        """Fill from the checkpoint; refused where it lacks a weight of this model."""
        if not self.name:
            super().load()
        with quiet_loading():
            pretrained, report = self.loader().from_pretrained(
                **parse_repo_id(self.name),
                config=self.config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
        pairs = list(self.loaded(pretrained))
        names = {id(p): n for n, p in pretrained.named_parameters()}
        lacking = [names[id(p)] for _, source in pairs for p in source.parameters()]
        lacking = sorted(set(lacking) & set(report["missing_keys"]))
        if lacking:
            kind = type(pairs[0][1] if len(pairs) == 1 else pretrained).__name__
            raise ValueError(
                f"name: {self.name} lacks {len(lacking)} weights of {kind}, "
                f"{lacking[0]} among them; name a checkpoint of that model, or set weights: none"
            )
        for part, source in pairs:
            part.load_state_dict(source.state_dict())

    def loaded(self, model: Any) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield the parts of this encoder, each with that of the checkpoint's model it is filled
        from."""
        yield self.model, self.part(model)

    def _configuration(self, settings: Json) -> Any:
        kind = settings.get("model_type")
        if kind not in self.types:
            raise ValueError(
                f"config: found model_type {kind!r}, expected {' or '.join(self.types)}; "
                "name a folder or hub id, or give a config with its model_type"
            )
        return CONFIG_MAPPING[kind].from_dict(settings)

    def build(self) -> Any:
        """Return the model without weights, in fp32 for any precision of the checkpoint."""
        return self.part(self.loader()._from_config(self.config, dtype=torch.float32))

    def loader(self) -> Any:
        """Return the class of transformers that reads the checkpoint."""
        raise NotImplementedError

    def part(self, model: Any) -> Any:
        """Return the part of that model which is run."""
        return model

    def default_settings(self) -> Json:
        """Return the settings of a feature extractor for a model from nothing."""
        raise NotImplementedError

    def extractor(self, settings: Json) -> Extractor:
        """Return the processor; `settings` are the feature extractor's."""
        raise NotImplementedError

    def padding_samples(self) -> Sequence[Sample]:
        """Return a short and a longer noise."""
        noise = np.random.default_rng(0).normal(0, 0.1, 14_400).astype(np.float32)
        return [self.processor.prepare(Sound(noise[None, :n], 16_000)) for n in (9_600, 14_400)]

    def blocks(self) -> Sequence[nn.Module]:
        """Return the layers from input to output."""
        count = getattr(self.config, "num_hidden_layers", None)
        return list_of_layers(self.model, count)

    def hidden(self, output: Any, hidden_states: Sequence[int]) -> list[Tensor]:
        """Return the outputs of the layers, by place, 0 the first, -1 the last."""
        states = output.hidden_states[1:] if hidden_states else ()
        return [states[layer] for layer in layer_indices(hidden_states, len(states))]


def path_of(name: str) -> str:
    """Return a folder or hub id without `hf-hub:`, `local-dir:` and revision."""
    return str(parse_repo_id(name)["pretrained_model_name_or_path"])


def parse_repo_id(name: str) -> dict[str, Any]:
    """Return a name, with or without `hf-hub:` or `local-dir:`, as keywords of
    `from_pretrained`."""
    if name.startswith("local-dir:") or (not name.startswith("hf-hub:") and Path(name).exists()):
        path = name.removeprefix("local-dir:")
        return {"pretrained_model_name_or_path": path, "local_files_only": True}
    path, at, revision = name.removeprefix("hf-hub:").partition("@")
    return {"pretrained_model_name_or_path": path, **({"revision": revision} if at else {})}


MASKS = ("attention_mask", "input_features_mask", "padding_mask")
"""What models call the mask of real steps."""


def call(
    model: nn.Module, arguments: Sequence[str], values: Tensor, more: Mapping[str, Tensor]
) -> Any:
    """Call a model with the output of a feature extractor. Raise ValueError if it needs more."""
    matched = {name: value for name, value in more.items() if name in arguments}
    masks = [value for name, value in more.items() if name.endswith("mask")]
    if len(masks) == 1:
        alias = next((name for name in MASKS if name in arguments), None)
        matched |= {alias: masks[0]} if alias and not matched.keys() & set(MASKS) else {}
    empty = inspect.Parameter.empty
    for name, parameter in list(inspect.signature(model.forward).parameters.items())[1:]:
        named = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if named and parameter.default is empty and name not in matched:
            raise ValueError(
                f"config: the forward of {type(model).__name__} wants {name}, which its feature "
                "extractor does not return"
            )
    return model(values, **matched)


def encoder_of(model: Any) -> Any:
    """Return the encoder of a pair, and any other model unchanged."""
    pair = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return model.get_encoder() if pair and hasattr(model, "get_encoder") else model


def tokens_of(output: Any) -> Tensor:
    """Return the hidden states of an output; raise ValueError if it has none."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    last = output if isinstance(output, Tensor) else getattr(output, "last_hidden_state", None)
    if last is None and isinstance(output, Mapping):  # a codec's latents, under a name of its own
        values = (v for v in output.values() if isinstance(v, Tensor))
        sequences = [v for v in values if v.ndim == 3 and v.is_floating_point()]
        last = sequences[0] if len(sequences) == 1 else None
    if not isinstance(last, Tensor) or last.ndim != 3:
        raise ValueError(f"config: {type(output).__name__} has no last_hidden_state [B, T, D]")
    return last
