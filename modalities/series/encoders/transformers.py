"""Any time-series model of 🤗 transformers: PatchTST, PatchTSMixer, TimesFM, Informer...

The arguments of a model's forward and its configuration decide how a series is fed: all channels
together, or one by one. Of an encoder-decoder the output of its encoder is taken.

Legend: `B` batch, `C` channels, `N` samples, `T` tokens of a channel, `D` width.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from ...base import Features, ReadError, Sample
from ...messages import quiet_loading
from ...submodules import freeze_unreached, lacks_values, list_of_layers, outline, unreached
from ..preprocessing import Preprocessing, SeriesProcessor
from ..series import Series
from .base import SeriesEncoder
from .hf_models import (
    Json,
    configuration_of,
    context_length,
    parse_repo_id,
    reads_together,
    run_model,
)

DEPTHS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers")


@dataclass(frozen=True)
class Trial:
    """What a run of a model showed. dim: width of the tokens. unused: parameters that they do not
    depend on. is_random: two runs differ in `eval()` (Informer draws keys). mixes_rows: a row
    depends on the other ones of its batch (Autoformer)."""

    dim: int
    unused: frozenset[str]
    is_random: bool
    mixes_rows: bool


class TransformersSeries(SeriesEncoder):
    """name: a hub id (`org/name`, `org/name@revision`) or a folder; its weights are read by `load`.
    config: the configuration with its `model_type`; beside a `name` it replaces values of the
    checkpoint's. A series is normalized twice if the model does so too: `normalize: none` leaves it
    to the model.

    Tokens have the grid `(C, T)` if the model has tokens of each channel, else `(T,)`. A model of a
    fixed context takes series of that length: set `preprocessing: {length: ...}`.
    """

    batch_invariant = False

    def __init__(
        self, *, preprocessing: Preprocessing, name: str = "", config: Json | None = None
    ) -> None:
        super().__init__(preprocessing)
        self.name = name
        if name and "model_type" not in (config or {}):
            config = self.resolve({"name": name, "config": config})["config"]
        self.config = configuration_of(dict(config or {}))
        self.together = reads_together(self.config, self.channels)
        self.steps = context_length(self.config) if self.together else None
        self.processor = FixedLength(preprocessing, self.steps)
        self.model: Any = AutoModel.from_config(self.config, dtype=torch.float32)
        self.trial = self._try_model()
        self.dim = self.trial.dim
        freeze_unreached(self.model, self.trial.unused)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Read the configuration of `name`."""
        if not options.get("name"):
            return options
        try:
            model = AutoConfig.from_pretrained(**parse_repo_id(options["name"]))
        except (OSError, ValueError) as error:
            if "model_type" in (options.get("config") or {}):
                return options  # of a run that holds the weights, whose source is gone
            line = " ".join(str(error).split())
            raise ValueError(
                f"name: {options['name']} has no model, expected a model's folder or hub "
                f"id ({line})"
            ) from error
        settings = json.loads(model.to_json_string(use_diff=False))
        config = {**settings, **(options.get("config") or {}), "model_type": model.model_type}
        return {**options, "config": config}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        """Return True for a hub id and for a folder with safetensors in it."""
        if not options.get("name"):
            return False
        path = Path(str(parse_repo_id(options["name"])["pretrained_model_name_or_path"]))
        return any(path.glob("*.safetensors")) if path.exists() else True

    def load(self) -> None:
        """Fill from the checkpoint; refused where it lacks a weight that is used."""
        if not self.name:
            super().load()
        with quiet_loading():
            pretrained, report = AutoModel.from_pretrained(
                **parse_repo_id(self.name), config=self.config, dtype=torch.float32,
                use_safetensors=True, output_loading_info=True,
            )  # fmt: skip
        used = {name for name, p in self.model.named_parameters() if p.requires_grad}
        lacking = sorted(used & set(report["missing_keys"]))
        if lacking:
            raise ValueError(
                f"name: {self.name} lacks {len(lacking)} weights of {type(self.model).__name__}, "
                f"{lacking[0]} among them; name a checkpoint of that model, or set weights: none"
            )
        self.model.load_state_dict(pretrained.state_dict())

    def blocks(self) -> Sequence[nn.Module]:
        depth = next((d for n in DEPTHS if (d := getattr(self.config, n, None))), None)
        return list_of_layers(self.model, depth)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return `values`, `observed` `[B, C, N]`."""
        names = {"values": "values", "observed": "mask"}
        return {name: torch.stack([s[key] for s in samples]) for name, key in names.items()}

    def forward(self, values: Tensor, observed: Tensor) -> Features:
        """values, observed `[B, C, N]`."""
        tokens = self._tokens(values, observed)
        if tokens.ndim == 3 and self.together:
            return Features.dense(tokens, grid=(tokens.shape[1],), **self._places(tokens, values))
        grid = (self.channels, tokens.shape[-2])
        mask = observed.any(2).repeat_interleave(grid[1], 1)  # [B, C * T]
        tokens = tokens.reshape(len(values), -1, tokens.shape[-1])
        tokens = tokens.masked_fill(~mask.unsqueeze(-1), 0)
        return Features(tokens, mask, grid=grid, **self._places(tokens, values, grid[1]))

    def _tokens(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return what `_run` does; in `eval()` independent of chance and of the other rows."""
        run = functools.partial(run_model, self.model, self.config, together=self.together)
        if self.training or values.is_meta:
            try:
                return run(values, observed)
            except Exception as error:
                if not lacks_values(error, values):
                    raise
                count = -(-values.shape[2] // self.config.patch_length)
                return outline(
                    self.model, values.new_zeros(values[..., 0].numel(), count, self.dim)
                )
        rows = range(len(values)) if self.trial.mixes_rows else [slice(None)]
        devices = [values.device] if values.is_cuda else []
        with torch.random.fork_rng(devices, enabled=self.trial.is_random):
            if self.trial.is_random:
                torch.manual_seed(0)
            parts = [run(values[row], observed[row]) for row in map(_as_slice, rows)]
        return torch.cat(parts)

    def _places(self, tokens: Tensor, values: Tensor, count: int = 0) -> dict[str, Any]:
        """Return spacing and origin, by the configured patches or the samples of a token."""
        if self.rate is None or getattr(self.config, "use_cls_token", False):
            return {}
        patch = getattr(self.config, "patch_length", 1)
        stride = getattr(self.config, "patch_stride", None) or patch
        count = count or tokens.shape[1]
        first = values.shape[2] - (patch + stride * (count - 1))
        spacing, origin = stride / self.rate, (first + patch / 2) / self.rate
        if count == tokens.shape[1]:
            return {"spacing": (spacing,), "origin": (origin,)}
        return {"spacing": (1.0, spacing), "origin": (0.5, origin)}

    @torch.enable_grad()
    def _try_model(self) -> Trial:
        """Run a copy of one layer on the CPU."""
        config = copy.deepcopy(self.config)
        for name in DEPTHS:
            if getattr(config, name, None):
                setattr(config, name, 1)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            model = AutoModel.from_config(config, dtype=torch.float32).eval()
            values = torch.randn(8, self.channels, self.steps or 2 * config.patch_length)
            mask = torch.ones_like(values, dtype=torch.bool)
            run = functools.partial(run_model, model, config, together=self.together)
            tokens, again = run(values, mask), run(values, mask)
            alone = torch.cat([run(values[i : i + 1], mask[i : i + 1]) for i in range(8)])
            is_random = not torch.equal(tokens, again)
            mixes = not torch.allclose(alone, tokens, atol=1e-4)
            return Trial(
                tokens.shape[-1], unreached(model, tokens), is_random, mixes and not is_random
            )


def _as_slice(row: int | slice) -> slice:
    return slice(row, row + 1) if isinstance(row, int) else row


class FixedLength(SeriesProcessor):
    """As `SeriesProcessor`; refuses series of another length than the model's context, if it has a
    fixed one."""

    def __init__(self, preprocessing: Preprocessing, steps: int | None) -> None:
        super().__init__(preprocessing)
        self.steps = steps

    def prepare(self, raw: Series) -> Sample:
        sample = super().prepare(raw)
        steps = sample["values"].shape[1]
        if self.steps is not None and steps != self.steps:
            raise ReadError(
                raw.values, f"{steps} samples",
                f"the model's context, preprocessing: {{length: {self.steps}}}",
            )  # fmt: skip
        return sample

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "steps": self.steps}
