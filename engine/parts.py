"""A part of a recipe on its way to being a module: found, checked, resolved, built.

`plan` imports the class and checks the options against its constructor; `Plan.resolve` is
the only step that may download; `Plan.build` runs the constructor under a seed of its own,
so that a part's first weights depend on the recipe's seed and its place alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..modalities.base import Fitted, Part
from .catalogue import entries, find
from .config import Section, plain
from .errors import RecipeError, placed
from .schema import arguments, fitted_arguments, validate_options


@dataclass
class Plan:
    """where: its place in the recipe, `inputs.image.encoder`. fitted: parts that its
    constructor wants fitted, by argument; `fitted_sections` what the recipe says of them. inner:
    parts that it is built round, by argument."""

    where: str
    section: Section
    part: Any
    options: dict[str, Any]
    fitted: dict[str, Fitted] = field(default_factory=dict)
    fitted_sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    inner: dict[str, Plan] = field(default_factory=dict)

    @property
    def weights(self) -> str:
        """Where its weights come from; `pretrained` by default where its name carries some."""
        if self.section.weights is not None:
            return self.section.weights
        return "pretrained" if self._carries_weights() else "none"

    @property
    def trains_whole(self) -> bool:
        """True where the recipe neither freezes it nor any of it."""
        section = self.section
        return section.freeze is False and section.lora is None and section.train_only is None

    def _carries_weights(self) -> bool:
        if not (isinstance(self.part, type) and issubclass(self.part, Part)):
            return False
        with self.reported():
            return bool(self.part.carries_weights(self.options))

    def reported(self) -> contextlib.AbstractContextManager[None]:
        """Its own complaints inside, with its place in front."""
        return reported(self.where, arguments(self.part))

    def resolve(self) -> None:
        """Complete its own options by the library's configuration (may download)."""
        if isinstance(self.part, type) and issubclass(self.part, Part):
            with self.reported(), _named(self.options.get("name")):
                self.options = self.part.resolve(dict(self.options))

    def resolved_section(self) -> Section:
        """The section as it is written back out, complete."""
        inner = {name: plain(part.resolved_section()) for name, part in self.inner.items()}
        said = {**self.options, **self.fitted_sections, **inner}
        ordered = {name: said[name] for name in arguments(self.part) if name in said}
        section = self.section.with_options(ordered)
        section.weights = self.weights
        return section

    def build(self, seed: int = 0, **given: Any) -> Any:
        """The module; `given` is what the engine knows (in_dim, out_dim)."""
        inner = {name: part.build(seed) for name, part in self.inner.items()}
        with self.reported(), seeded(seed, self.where):
            return self.part(**self.options, **self.fitted, **inner, **given)

    def parts(self) -> list[Plan]:
        """The part, and those within it."""
        return [self, *(found for part in self.inner.values() for found in part.parts())]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides what it computes, beside its weights: its options, and those within it."""
        within = {
            name: {"type": part.section.type, **part.identity} for name, part in self.inner.items()
        }
        return {**self.options, **within}


def plan(section: Section, kind: str, where: str) -> Plan:
    """Find the class of a section and check its options; RecipeError names the place."""
    part = find(kind, section.type, f"{where}.type")
    with reported(where):
        wanted = fitted_arguments(part)
    options = validate_options(part, section.options, where)
    said = {name: options.pop(name, None) for name in wanted}
    inner = {
        name: plan(Section.model_validate(options.pop(name)), of, f"{where}.{name}")
        for name, of in getattr(part, "inner", {}).items()
        if name in options
    }
    found = Plan(where, section, part, options, inner=inner)
    if section.weights == "pretrained" and not found._carries_weights():
        raise RecipeError(
            f"{where}.weights: {section.type} has no pretrained weights for these options; "
            "say weights: none"
        )
    for name, base in wanted.items():
        own = _fitted_options(found, name, base, said[name])
        found.fitted_sections[name] = own
        found.fitted[name] = _fitted(base, own, f"{where}.{name}")
    return found


def _fitted_options(
    owner: Plan, name: str, base: type[Fitted], said: str | dict[str, Any] | None
) -> dict[str, Any]:
    """The section of a fitted part: what the recipe says, or the only thing that fits."""
    where = f"{owner.where}.{name}"
    if isinstance(said, str):
        said = {"type": said}
    if said is None:
        said = {"type": "own"} if base.kind and owner._carries_weights() else {}
    if base.kind is None:
        return said
    if "type" not in said:
        some = ", or ".join(f"{name}: {known}" for known in list(entries(base.kind))[:2])
        raise RecipeError(f"{where}: is required here; for example {some}")
    wanted = arguments(find(base.kind, said["type"], where))
    for argument, (_, default) in wanted.items():  # `tokenizer: own` takes its owner's name
        if default is inspect.Parameter.empty and argument not in said:
            if argument not in owner.options:
                raise RecipeError(f"{where}.{argument}: is required, and is not there")
            said = {**said, argument: owner.options[argument]}
    return said


def _fitted(base: type[Fitted], said: dict[str, Any], where: str) -> Fitted:
    options = {key: value for key, value in said.items() if key not in ("type", "weights")}
    part = find(base.kind, said["type"], where) if base.kind else base
    with reported(where, arguments(part)):
        made = part(**validate_options(part, options, where))
    if not isinstance(made, Fitted):
        raise RecipeError(f"{where}: {part.__name__} is no {base.__name__}")
    return made


@contextlib.contextmanager
def reported(where: str, options: Container[str] = ()) -> Iterator[None]:
    """A constructor's own complaint, with its place in front."""
    try:
        yield
    except RecipeError:
        raise
    except (ValueError, OSError) as error:
        raise RecipeError(placed(where, error, options)) from error


@contextlib.contextmanager
def _named(name: object) -> Iterator[None]:
    """The hub's own complaints do not say what was looked for."""
    try:
        yield
    except (ValueError, OSError) as error:
        if not isinstance(name, str) or isinstance(error, RecipeError) or name in str(error):
            raise
        raise ValueError(f"name: {name!r}: {error}") from error


def derive(seed: int, *names: object) -> int:
    """A seed of 63 bits from a seed and names; the same in every process and version."""
    text = "\0".join(str(n) for n in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@contextlib.contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Torch's generator at a derived seed inside, as it was outside."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, *names))
        yield


def count(module: nn.Module, trainable: bool | None = None) -> int:
    """Parameters of a module, or those that train, or those that do not."""
    return sum(
        p.numel() for p in module.parameters() if trainable is None or p.requires_grad == trainable
    )
