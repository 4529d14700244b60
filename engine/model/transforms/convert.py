"""Transforms of a checkpoint's folder: `sensorium convert FOLDER --transforms ... --out NEW`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.utils import parametrize

from ....backbones.stack import register_pair
from ....modalities.messages import describe_error, quiet_loading
from ...recipe import TransformSection
from ...utils import ConfigError, atomic_folder
from .apply import apply_steps
from .context import TransformContext

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.gguf")
OWN = ("config.json", "generation_config.json")
"""What `save_pretrained` writes itself."""

PLACE = "--transforms"


def convert(folder: Path, steps: Sequence[TransformSection], out: Path) -> nn.Module:
    """Write a checkpoint's folder as transforms change it; return the model.

    The result is opened again by transformers and compared with the model in memory: a structure
    that no class of transformers can hold is refused, and nothing is written. Raise ConfigError,
    one line.
    """
    if not steps:
        raise ConfigError(
            f"{PLACE}: found none, expected a list such as [{{type: keep_layers, ...}}]"
        )
    model = open_checkpoint(folder)
    context = TransformContext(
        name=str(folder), load=lambda weights: open_checkpoint(Path(weights.partition(":")[0]))
    )
    torch.manual_seed(0)
    changed: Any = apply_steps(model, steps, PLACE, context)
    for module in list(changed.modules()):
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    tokenizers = [step.options["tokenizer"] for step in steps if "tokenizer" in step.options]
    source = Path(tokenizers[-1]) if tokenizers else folder
    with atomic_folder(out, "--out") as beside:
        with quiet_loading():
            changed.save_pretrained(beside)
        _check_opens(changed, beside)
        _copy_rest(folder, beside, tokenizer=not tokenizers)
        if tokenizers:
            _copy_rest(source, beside, tokenizer=True)
    return changed


def open_checkpoint(folder: Path) -> Any:
    """Return the model of a folder, of the class that its configuration names. Raise ConfigError
    if there is none, or its weights are no safetensors."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: holds no config.json; expected a checkpoint of transformers")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder}: holds no *.safetensors; save it with save_pretrained first")
    try:
        register_pair(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        config = transformers.AutoConfig.from_pretrained(folder)
        names = config.architectures or ()
        name = next(iter(names), "AutoModel")
        family: Any = getattr(transformers, name, None)
        if family is None:
            raise ValueError(f"transformers has no class {name}")
        with quiet_loading():
            model, report = family.from_pretrained(
                folder, dtype="auto", use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{folder}: {describe_error(error)}") from error
    if report["missing_keys"]:
        raise ConfigError(
            f"{folder}: lacks {min(report['missing_keys'])} of {type(model).__name__}"
        )
    return model.eval()


def _check_opens(model: Any, folder: Path) -> None:
    """Raise ConfigError unless transformers opens a folder as the model in memory."""
    kind = type(model).__name__
    cure = "name the transform in a recipe, whose runs store it"
    try:
        with quiet_loading():
            again, report = type(model).from_pretrained(
                folder, dtype="auto", use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        text = describe_error(error)
        raise ConfigError(f"{PLACE}: {kind} does not open it again ({text}); {cure}") from error
    wrong = [*report["missing_keys"], *report["unexpected_keys"]]
    wrong += [str(each[0]) for each in report["mismatched_keys"]]
    old, new = model.state_dict(), again.state_dict()
    wrong += [k for k in old if k in new and not torch.equal(old[k].cpu(), new[k].cpu())]
    if wrong:
        raise ConfigError(
            f"{PLACE}: {kind} has no place for {min(wrong)} ({len(wrong)} tensors); {cure}"
        )
    before, after = _outputs(model), _outputs(again.to(next(model.parameters()).dtype).eval())
    if before is not None and (after is None or not torch.allclose(before, after, 1e-4, 1e-4)):
        raise ConfigError(f"{PLACE}: {kind} computes something else once it is opened; {cure}")


@torch.no_grad()
def _outputs(model: Any) -> torch.Tensor | None:
    """Return a model's outputs for its own example of inputs; None if it does not take one."""
    model.eval()
    try:
        inputs = dict(model.dummy_inputs)
        if model.config.is_encoder_decoder:
            inputs.setdefault("decoder_input_ids", inputs["input_ids"])
        output = model(**inputs)
    except Exception:  # a model of pictures or sound has no example
        return None
    return output[0].float() if isinstance(output[0], torch.Tensor) else None


def _copy_rest(source: Path, target: Path, *, tokenizer: bool) -> None:
    """Copy the files of a folder besides weights and configuration."""
    for path in sorted(source.iterdir()):
        skip = path.name in OWN or any(path.match(pattern) for pattern in WEIGHTS)
        skip |= path.name.startswith(".") or not path.is_file()
        is_tokenizer = path.suffix == ".txt" or any(
            word in path.name for word in ("token", "vocab", "merges", "spiece", "sentencepiece")
        )
        if not skip and (tokenizer or not is_tokenizer):
            shutil.copyfile(path, target / path.name)
