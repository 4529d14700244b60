"""One component of a run for other libraries: as safetensors, as ONNX, as a transformers folder.

Adapters are merged. What was written is opened again and compared before it is moved into place.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ....backbones.base import Backbone
from ....connectors.base import Connector
from ....modalities.base import Encoder, Features
from ....modalities.messages import describe_error, did_you_mean, quiet_loading
from ...model import BuiltComponent, Model, encode
from ...utils import ConfigError, atomic_folder, atomic_path
from ..run_folder import load_model
from .export import merge_adapters, save_model, save_tokenizer
from .rerankers import FOLDERS

FORMATS = ("safetensors", "onnx", "hf", *FOLDERS)
WORDS = {"encoder": Encoder, "connector": Connector, "backbone": Backbone}
"""Words that name the only component of their kind."""

TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportedPart:
    """What was written. difference: the largest one between the run's outputs and those of the
    written file, in units of their standard deviation; 0.0 where tensors were compared."""

    component: str
    path: Path
    format: str
    difference: float


def export_part(run: Path | Model, part: str, kind: str, out: Path) -> ExportedPart:
    """Write a component of a run. part: `encoder`, `connector`, `head`, `backbone`, or its place
    in the recipe (`inputs.image.encoder`); a stream or a task for `FOLDERS`. kind: one of
    `FORMATS`. out: a file, or a folder.

    Raise ConfigError, one line, where the format has no place for the component.
    """
    if kind not in FORMATS:
        raise ConfigError(f"--format: there is no {kind!r}{did_you_mean(kind, FORMATS)}")
    model = run if isinstance(run, Model) else load_model(run)
    model = model.cpu().eval()
    if kind in FOLDERS:
        return ExportedPart(FOLDERS[kind](model, part, out), out, kind, 0.0)
    component = find_component(model, part)
    module = copy.deepcopy(component.module).eval()
    merge_adapters(module)
    write = {"safetensors": _safetensors, "onnx": _onnx, "hf": _transformers}[kind]
    difference = write(model, component, module, out)
    return ExportedPart(str(component.where), out, kind, difference)


def find_component(model: Model, part: str) -> BuiltComponent:
    """Return a component by its place, or by a word for the only one of its kind."""
    places = {str(component.where): component for component in model.components}
    if part in places:
        return places[part]
    if part != "head" and part not in WORDS:
        raise ConfigError(f"--part: there is no {part!r}{did_you_mean(part, places)}")
    heads = {id(head) for task in model.tasks.values() for head in _heads(task)}
    fits = [
        place
        for place, component in places.items()
        if (
            id(component.module) in heads
            if part == "head"
            else isinstance(component.module, WORDS[part])
        )
        and not any(place.startswith(f"{other}.") for other in places if other != place)
    ]
    if len(fits) != 1:
        candidates = ", ".join(fits) or "none"
        raise ConfigError(f"--part {part}: found {candidates}, expected one; name its place")
    return places[fits[0]]


def _heads(task: Any) -> Sequence[nn.Module]:
    return list(task.heads.values())


def _safetensors(model: Model, component: BuiltComponent, module: nn.Module, out: Path) -> float:
    state = {name: value.detach().clone().contiguous() for name, value in _state(module).items()}
    if not state:
        raise ConfigError(f"--part {component.where}: has no weights")
    about = {"component": str(component.where), "class": type(module).__name__, "format": "pt"}
    with atomic_path(out) as beside:
        save_file(state, beside, about)
        written = load_file(beside)
        different = [name for name in state if not torch.equal(state[name], written[name])]
        if different:
            raise ConfigError(f"{out}: {different[0]} came back with other values")
    return 0.0


def _state(module: nn.Module) -> Mapping[str, Tensor]:
    """Return the state of a module, a tensor that several names share once."""
    seen: set[tuple[int, int, tuple[int, ...]]] = set()
    result = {}
    for name, value in module.state_dict().items():
        key = (value.data_ptr(), value.storage_offset(), tuple(value.shape))
        if value.numel() and key in seen:
            continue
        seen.add(key)
        result[name] = value
    return result


def _transformers(model: Model, component: BuiltComponent, module: nn.Module, out: Path) -> float:
    """Write the transformers model within a backbone or an encoder, and its tokenizer."""
    inner = _inner_model(component, module)
    part: Any = module
    ids = torch.arange(12)[None]
    with torch.no_grad(), quiet_loading(), atomic_folder(out, "--out") as beside:
        if isinstance(part, Backbone):
            rows = part.tokenizer.size + part.num_added_tokens
            ids = (rows - 1 - ids) % rows  # the added ones among them
            ours = part.logits(part(part.embed(ids)))
            if part.num_added_tokens:
                _add_rows(part, inner)
        save_model(beside, inner, getattr(part, "config", None))
        if hasattr(part, "tokenizer"):
            save_tokenizer(beside, part.tokenizer)
        if hasattr(getattr(part, "processor", None), "library"):
            part.processor.library().save_pretrained(beside)
        opened = type(inner).from_pretrained(beside).eval()
        if isinstance(part, Backbone):
            theirs = opened(input_ids=ids).logits
            return _compared(component, ours, theirs[..., : ours.shape[-1]])
        state, written = inner.state_dict(), opened.state_dict()
        if any(not torch.equal(state[name], written[name]) for name in state):
            raise ConfigError(f"--part {component.where}: came back with other weights")
    return 0.0


def _inner_model(component: BuiltComponent, module: nn.Module) -> Any:
    from transformers import PreTrainedModel

    inner = getattr(module, "model", None)
    if not isinstance(inner, PreTrainedModel):
        raise ConfigError(
            f"--part {component.where}: {type(module).__name__} holds no model of transformers; "
            "take --format safetensors or onnx"
        )
    foreign = [m for m in inner.modules() if type(m).__module__.startswith("sensorium.")]
    if foreign:
        raise ConfigError(
            f"--part {component.where}: holds a {type(foreign[0]).__name__}, which transformers "
            "does not have"
        )
    return inner


def _add_rows(backbone: Any, inner: Any) -> None:
    """Move the added tokens into the tables of the model."""
    rows, first = backbone.new_rows, backbone.table.num_embeddings
    inner.resize_token_embeddings(first + backbone.num_added_tokens, mean_resizing=False)
    with torch.no_grad():
        inner.get_input_embeddings().weight[first:] = rows["input"]
        output = inner.get_output_embeddings()
        if output is not None and "output" in rows:
            output.weight[first:] = rows["output"]


def _compared(component: BuiltComponent, ours: Tensor, theirs: Tensor) -> float:
    difference = float((ours - theirs).abs().max() / (ours.std() + 1e-12))
    if not difference <= TOLERANCE:
        raise ConfigError(
            f"--part {component.where}: the written file returns other values (they differ by "
            f"{difference:.2g} of their standard deviation); nothing was written"
        )
    return difference


class _Tokens(nn.Module):
    """A component with tensors as inputs and output. names: of an encoder's inputs."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        module: Any = self.module
        if isinstance(module, Encoder):
            inputs = dict(zip(self.names, tensors, strict=True))
            return module(**inputs).tokens
        if isinstance(module, Backbone):
            logits: Tensor = module.logits(module(tensors[0]))
            return logits
        features = Features(tensors[0], torch.ones(tensors[0].shape[:2], dtype=torch.bool))
        result = module(features)
        return result.tokens if isinstance(result, Features) else result


def _onnx(model: Model, component: BuiltComponent, module: nn.Module, out: Path) -> float:
    """Write the computation of tokens `[B, T, D]` from an encoder's batch, or of a connector's,
    head's or backbone's outputs from tokens, and compare it in onnxruntime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  what torch.onnx writes with
    except ImportError as error:
        raise ConfigError(
            f"--format onnx: needs {error.name}; pip install 'sensorium[onnx]'"
        ) from error
    example = _example(model, component, module)
    wrapped = _Tokens(module, list(example)).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    tensors = tuple(torch.cat([value, value]) for value in example.values())
    with torch.no_grad(), atomic_path(out) as beside:
        ours = wrapped(*tensors)
        try:
            with _quiet():
                program: Any = torch.onnx.export(
                    wrapped,
                    tensors,
                    dynamo=True,
                    input_names=list(example),
                    output_names=["output"],
                    dynamic_shapes=(tuple({0: batch} for _ in tensors),),
                )
                program.save(beside, external_data=False)
        except Exception as error:
            raise ConfigError(
                f"--part {component.where}: cannot be exported: {describe_error(error)}"
            ) from error
        session = onnxruntime.InferenceSession(beside, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]
        worst = 0.0
        for count in (1, len(tensors[0])):
            values = (value[:count].numpy() for value in tensors)
            feed = dict(zip(names, values, strict=True))
            (theirs,) = session.run(None, feed)
            worst = max(worst, _compared(component, ours[:count], torch.from_numpy(theirs)))
    return worst


def _example(model: Model, component: BuiltComponent, module: nn.Module) -> dict[str, Tensor]:
    """Return inputs of one row: an example of the stream's modality through its processor, or
    tokens as the component gets them."""
    where = str(component.where)
    if isinstance(module, Backbone):
        ids = torch.arange(8)[None] % module.tokenizer.size
        return {"embeds": module.embed(ids).detach()}
    for name in model.plan.streams:
        if isinstance(module, Encoder) and where == f"inputs.{name}.encoder":
            return _encoder_batch(model, name)
        if where == f"inputs.{name}.connector":
            encoder = model.stream(name).encoder
            features = encode(encoder, _encoder_batch(model, name), {})
            return {"tokens": features.tokens}
    in_dim = getattr(module, "in_dim", None)
    if in_dim is None:
        raise ConfigError(
            f"--part {where}: ONNX is written of encoders, connectors, heads, backbones"
        )
    return {"tokens": torch.randn(1, 5, int(in_dim), generator=torch.Generator().manual_seed(0))}


def _encoder_batch(model: Model, stream: str) -> dict[str, Tensor]:
    from ...recipe import load as load_object

    modality, encoder = model.plan.streams[stream].modality, model.stream(stream).encoder
    if modality.example is None:
        raise ConfigError(f"inputs.{stream}: its modality has no example to export with")
    cell = load_object(modality.example)(np.random.default_rng(0))
    sample = encoder.processor.prepare(load_object(modality.read)(cell))
    batch = encoder.collate([sample])
    assert isinstance(batch, Mapping)
    return {name: value for name, value in batch.items() if torch.is_tensor(value)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
