"""Where a part's weights come from: the library, nothing, a run, a file, the hub.

`pretrained`, `none`, `runs/x` (the part at the same place of that run), `runs/x:image`
(that stream of it, or that task; `runs/x:ctc.head` names a head, `runs/x:image.ema` the average
of that stream's encoder), `file.safetensors`,
`hf-hub:org/name@revision`. A bare `a/b` that is no folder is refused: it could mean either.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ....backbones.base import Backbone
from ....modalities.base import Component
from ....modalities.messages import did_you_mean
from ....tasks.base import Task
from ...recipe import (
    WEIGHTS,
    ComponentPath,
    download,
    is_remote,
    joined,
    missing_folder,
    parse_file,
    split_source,
    unshared,
    validate_source,
)
from ...recipe.validation import part_arguments
from ...utils import ConfigError
from .adapters import without_adapter
from .merge import adapters_to_merge

EMA = "ema"


def load_weights(
    module: nn.Module, weights: str, where: ComponentPath, name: object = None
) -> None:
    """Fill a built part at `where` (`inputs.image.encoder`) from its `weights`.

    name: that of its pretrained weights, which may be a folder.
    """
    if weights == "none":
        return
    if weights == "pretrained":
        if not isinstance(module, Component):
            raise ConfigError(f"{where}.weights: {type(module).__name__} has no pretrained weights")
        if (folder := missing_folder(name)) is not None:
            raise ConfigError(
                f"{where}.name: there is no folder {folder}, which holds the weights; bring it "
                "back, or write its new path into the recipe (of a run: its recipe.yaml)"
            )
        try:
            module.load()
        except (OSError, ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"{where}.weights: pretrained: {text}") from error
        return
    validate_source(weights, f"{where}.weights")
    path, name = split_source(weights)
    if is_remote(weights):
        path, name = download(weights), None
    if path.is_file():
        _load(module, read_file(path, where), where, str(path))
        return
    _from_run(module, path, name, where)


def read_file(path: Path, where: str, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it; shared tensors are stored
    once in a run's file, and returned under all their names."""
    try:
        with safe_open(path, "pt") as file:
            shared: dict[str, str] = json.loads((file.metadata() or {}).get("same", "{}"))
            names = {**{name: name for name in file.keys()}, **shared}  # noqa: SIM118
            return {
                name.removeprefix(prefix): file.get_tensor(source)
                for name, source in names.items()
                if name.startswith(prefix)
            }
    except (OSError, SafetensorError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"{where}: {path} is no whole safetensors file ({text}); copy it again"
        ) from error


def _from_run(module: nn.Module, run: Path, name: str | None, where: ComponentPath) -> None:
    """Fill the part at `where` from another run, or from where that run had it."""
    path = unshared(run, where.renamed(name) if name else where)
    average = path.section == "inputs" and path.keys[2] == EMA
    described = joined("inputs", path.name, "encoder", *path.keys[3:]) if average else path
    options = run_section(run, described, where)
    state = _state(run / WEIGHTS, path, where)
    if average and not state:
        raise ConfigError(
            f"{where}.weights: the run {run} keeps no average of {path.name}; "
            f"take {run}:{path.name}"
        )
    source = "none" if average else options.get("weights", "none")  # an average is saved whole
    names = {without_adapter(name) for name in state}
    loaded_ids = {id(t) for name, t in module.state_dict(keep_vars=True).items() if name in names}
    if source != "none" and not _is_held(module, loaded_ids):
        load_weights(module, source, path)  # what that run did not train, it did not save
    filled = _fill_children(module, options, path, loaded_ids)
    with adapters_to_merge(module, list(_adapted(module, options, path))):
        lacking = {name for name, tensor in _tensors(module) if id(tensor) in filled}
        _load(module, state, where, str(run), strict=source == "none", filled=lacking)


def _is_held(module: nn.Module, loaded_ids: Container[int]) -> bool:
    """Return whether a run's file holds all of a part; loaded_ids: those of the tensors that it
    holds."""
    return all(id(tensor) in loaded_ids for tensor in module.state_dict(keep_vars=True).values())


def _fill_children(
    module: nn.Module, section: Mapping[str, Any], where: ComponentPath, loaded_ids: Container[int]
) -> set[int]:
    """Fill the heads of a task and the parts within a part that the run had from elsewhere. Return
    the ids of their tensors. loaded_ids: those of the tensors that the run's file holds."""
    filled: set[int] = set()
    for key, child, inner in _child_sections(module, section):
        source = inner.get("weights", "none")
        if source != "none" and not _is_held(child, loaded_ids):
            load_weights(child, source, where / key)
            filled |= {id(tensor) for _, tensor in _tensors(child)}
        filled |= _fill_children(child, inner, where / key, loaded_ids)
    return filled


def _adapted(
    module: nn.Module, section: Mapping[str, Any], where: ComponentPath
) -> Iterator[tuple[str, nn.Module, Mapping[str, Any]]]:
    """Yield the place, module and `lora` section of a part and of the parts within it."""
    if lora := section.get("lora"):
        yield where, module, lora
    for key, child, inner in _child_sections(module, section):
        yield from _adapted(child, inner, where / key)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _child_sections(
    module: nn.Module, section: Mapping[str, Any]
) -> Iterator[tuple[str, nn.Module, Mapping[str, Any]]]:
    """Yield key, module and section of the parts within a part that have a section."""
    for key, child in _children(module):
        inner = section.get(key)
        if isinstance(inner, dict):
            yield key, child, inner


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Return the parts within a part: (key in its section, module)."""
    if isinstance(module, Task):
        yield from module.heads.items()
    part: Any = type(module)
    for name in part_arguments(part):
        child = getattr(module, name, None)
        if isinstance(child, nn.Module):
            yield name, child


def _state(file: Path, path: ComponentPath, where: str) -> dict[str, Tensor]:
    """Return the tensors of a run's file for the part at a path of its recipe."""
    states = (read_file(file, where, prefix) for prefix in path.state_prefixes())
    return next((state for state in states if state), {})


def run_section(run: Path, path: ComponentPath, where: str) -> dict[str, Any]:
    """Return the section of a part in the recipe of a run. Raise ConfigError if there is none."""
    section = parse_file(run / "recipe.yaml")
    keys = path.split(".")
    for i, key in enumerate(keys):
        if not isinstance(section, dict) or key not in section:
            section_keys = list(section) if isinstance(section, dict) else []
            raise ConfigError(
                f"{where}.weights: the run {run} has no {'.'.join(keys[: i + 1])}"
                f"{did_you_mean(key, section_keys)}"
            )
        section = section[key]
    return dict(section)


def _load(
    module: nn.Module,
    state: dict[str, Tensor],
    where: str,
    source: str,
    strict: bool = True,
    filled: Set[str] = frozenset(),
) -> None:
    """Load a state; every key and shape that does not fit is one line of the error. filled: names
    that may be missing."""
    tensors = module.state_dict()
    for name, value in state.items():
        if name not in tensors:
            raise ConfigError(
                f"{where}: {source} holds {name}, which {type(module).__name__} has not; "
                "build it with the options that it was saved with"
            )
        if tensors[name].shape != value.shape:
            raise ConfigError(
                f"{where}: {source} has {name} {tuple(value.shape)}, the recipe builds "
                f"{tuple(tensors[name].shape)}; build it with the options that it was saved with"
            )
    added = module.added_token_parameters() if isinstance(module, Backbone) else frozenset()
    missing = sorted(set(tensors) - set(state) - added - filled)
    if strict and missing:
        raise ConfigError(f"{where}: {source} lacks {missing[0]} (and {len(missing) - 1} more)")
    module.load_state_dict(state, strict=False)
