"""A part of a recipe from its section to a module: found, checked, resolved, built.

`plan` imports the class and checks the options against its constructor; `ComponentSpec.resolve` is
the only step that may download; `ComponentSpec.build` runs the constructor under a derived seed, so
that a part's initial weights depend only on the recipe's seed and the part's place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...modalities.base import Component, Fittable
from ..utils import ConfigError, culprit, located_errors, seeded, with_name
from .component_path import ComponentPath, absolute_folder, missing_folder
from .recipe import Section, to_plain_dict, to_section
from .registry import find, kind_of, registered
from .validation import arguments, fitted_arguments, part_arguments, validate_options


class Modules(dict[int, nn.Module]):
    """The modules built so far, by the id of their plan. on_build: called with each plan and the
    module that was just built from it. filled: tells the plans whose weights are loaded next."""

    def __init__(
        self,
        on_build: Callable[[ComponentSpec, nn.Module], None] = lambda spec, module: None,
        filled: Callable[[ComponentSpec], bool] = lambda spec: False,
    ) -> None:
        super().__init__()
        self.on_build, self.filled = on_build, filled


@dataclass
class ComponentSpec:
    """where: its place in the recipe, `inputs.image.encoder`. fitted: fitted parts of its
    constructor, by argument; `fitted_sections`: their sections. children: parts of its constructor,
    by argument. owner: the part it is a child of. references: parts of other places in its
    constructor, by argument. allocated: its module, if another constructor holds it before it is
    initialized."""

    where: ComponentPath
    section: Section
    part: Any
    options: dict[str, Any]
    fitted: dict[str, Fittable] = field(default_factory=dict)
    fitted_sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    children: dict[str, ComponentSpec] = field(default_factory=dict)
    references: dict[str, ComponentSpec] = field(default_factory=dict)
    owner: ComponentSpec | None = field(default=None, repr=False, compare=False)
    allocated: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def weights(self) -> str:
        """Where its weights come from; `pretrained` by default if its name carries some."""
        if self.section.weights is not None:
            return self.section.weights
        if self.comes_with_owner and self.owner is not None:
            return self.owner.weights
        return "pretrained" if self._has_pretrained_weights() else "none"

    @property
    def comes_with_owner(self) -> bool:
        """Return whether the run or file that its owner is filled from holds its weights too."""
        if self.section.weights is not None or self.owner is None:
            return False
        return self.owner.weights not in ("pretrained", "none")

    def _has_pretrained_weights(self) -> bool:
        if not (isinstance(self.part, type) and issubclass(self.part, Component)):
            return False
        with self.located_errors():
            return bool(self.part.has_pretrained_weights(self.options))

    def located_errors(self) -> contextlib.AbstractContextManager[None]:
        """Raise errors of the part's own code as ConfigError, with its place in front."""
        return located_errors(self.where, arguments(self.part), self.section.options)

    def resolve(self) -> None:
        """Complete its options by the library's configuration (may download)."""
        if isinstance(self.part, type) and issubclass(self.part, Component):
            with self.located_errors(), with_name(self.options.get("name")):
                self.options = self.part.resolve(dict(self.options))

    def resolved_section(self) -> Section:
        """Return the complete section, as it is written to the run folder."""
        children = {
            name: to_plain_dict(part.resolved_section()) for name, part in self.children.items()
        }
        options = {**self.options, **self.fitted_sections, **children}
        if "name" in options:
            options["name"] = absolute_folder(options["name"])
        ordered = {name: options[name] for name in arguments(self.part) if name in options}
        section = self.section.with_options(ordered)
        section.weights = None if self.comes_with_owner else self.weights
        return section

    def allocate(self) -> nn.Module:
        """Return its module, to be initialized by `build`: for a constructor that only keeps it."""
        self.allocated = self.part.__new__(self.part)
        return self.allocated

    def build(self, seed: int = 0, modules: Modules | None = None, **widths: int) -> Any:
        """Return the module, its children built before it.

        widths: set by the engine (in_dim, out_dim). modules: those that were built for this
        model so far; each plan is built once.
        """
        modules = Modules() if modules is None else modules
        if id(self) not in modules:
            children = self.build_children(seed, modules, widths)
            children |= {name: p.build(seed, modules) for name, p in self.references.items()}
            module: Any = self.allocated or self.part.__new__(self.part)
            parts = {**self.fitted, **children, **widths}
            vars(module)["transforms_follow"] = bool(self.section.transforms)
            vars(module)["weights_follow"] = modules.filled(self)
            with self.located_errors(), seeded(seed, self.where):
                try:
                    module.__init__(**self.options, **parts)
                except Exception as error:
                    self._name_culprit(error, parts)
                    raise
            modules[id(self)] = module
            modules.on_build(self, module)
        return modules[id(self)]

    def _name_culprit(self, error: Exception, parts: Mapping[str, Any]) -> None:
        """Raise ValueError that names the option of the recipe without which the part can be
        built, if there is one."""
        keys = [key for key in self.section.options if key in self.options]
        others = {key: value for key, value in self.options.items() if key not in keys}

        def construct(options: Mapping[str, Any]) -> None:
            with torch.device("meta"):
                self.part(**others, **options, **parts)

        line = culprit(construct, {key: self.options[key] for key in keys}, error)
        if line is not None:
            raise ValueError(line) from error

    def build_children(
        self, seed: int, modules: Modules, widths: Mapping[str, int]
    ) -> dict[str, Any]:
        """Build the children: connectors last, since they connect the others."""
        between = {name: part_arguments(self.part)[name].widths for name in self.children}
        defaults = {name: default for name, (_, default) in arguments(self.part).items()}
        values: dict[str, Any] = {**defaults, **self.options, **widths}
        children: dict[str, Any] = {}
        for name in sorted(self.children, key=lambda name: between[name] is not None):
            ends = between[name]
            widths = {
                end: self._width(name, argument, values)
                for end, argument in (dataclasses.asdict(ends) if ends else {}).items()
            }
            values[name] = children[name] = self.children[name].build(seed, modules, **widths)
        return children

    def _width(self, connector: str, argument: str, values: Mapping[str, Any]) -> int:
        value = values.get(argument)
        for attribute in ("out_dim", "dim"):
            value = getattr(value, attribute, value)
        if not isinstance(value, int):
            raise ConfigError(
                f"{self.where}.{connector}: is set together with {argument!r}, which has no width "
                f"here; set {self.where}.{argument}"
            )
        return value

    def runs(self, part: ComponentSpec) -> bool:
        """Return whether it is a part, contains it, or refers to it."""
        return any(
            inner is part or any(other.runs(part) for other in inner.references.values())
            for inner in self.parts()
        )

    def parts(self) -> list[ComponentSpec]:
        """Return the part and those within it."""
        return [self, *(inner for part in self.children.values() for inner in part.parts())]

    @property
    def cache_identity(self) -> dict[str, Any]:
        """Return what determines its output, beside its weights: its options, its transforms, and
        those within it."""
        within = {
            name: {"type": part.section.type, **part.cache_identity}
            for name, part in (self.children | self.references).items()
        }
        transforms = [to_plain_dict(each) for each in self.section.transforms or ()]
        return {**self.options, **within, **({"transforms": transforms} if transforms else {})}


def plan(
    section: Section, kind: str, where: ComponentPath, owner: ComponentSpec | None = None
) -> ComponentSpec:
    """Find the class of a section and check its options; ConfigError names the place.

    kind: the catalogue of its short names, `connector` or `image_encoder`.
    """
    return plan_part(find(kind, section.type, f"{where}.type"), section, kind, where, owner)


def plan_part(
    part: Any, section: Section, kind: str, where: ComponentPath, owner: ComponentSpec | None = None
) -> ComponentSpec:
    """Check the options of a section against a class that was found; see `plan`."""
    if section.transforms and kind == "task":
        raise ConfigError(f"{where}.transforms: a task has no weights to change; name parts")
    with located_errors(where):
        fitted_classes, inner = fitted_arguments(part), part_arguments(part)
    options = validate_options(part, section.options, where)
    fitted_values = {name: options.pop(name, None) for name in fitted_classes}
    sections = {name: options.pop(name) for name in inner if options.get(name) is not None}
    spec = ComponentSpec(where, section, part, options, owner=owner)
    absent = missing_folder(options.get("name"))  # a run that trained all needs it no more
    if section.weights == "pretrained" and not absent and not spec._has_pretrained_weights():
        raise ConfigError(
            f"{where}.weights: {section.type} has no pretrained weights for these options; "
            "set weights: none"
        )
    for name, value in sections.items():
        spec.children[name] = _child(spec, kind, name, value)
    for name, base in fitted_classes.items():
        section_of = _fitted_options(spec, name, base, fitted_values[name])
        spec.fitted_sections[name] = section_of
        spec.fitted[name] = _fitted(base, section_of, f"{where}.{name}")
    return spec


def _child(owner: ComponentSpec, kind: str, name: str, value: Any) -> ComponentSpec:
    """Return the plan of a part within a part."""
    argument, where = part_arguments(owner.part)[name], owner.where / name
    of = kind_of(argument.base)
    if of is None:
        raise ConfigError(f"{where}: no catalogue has a {argument.base.__name__}")
    if of == "connector" and argument.widths is None:
        raise ConfigError(
            f"{where}: {owner.part.__name__} does not declare what this connector is between; "
            "annotate it Annotated[Connector, Between('encoder', 'dim')], say"
        )
    if of in ("encoder", "decoder"):
        modality = argument.modality or kind.rpartition("_")[0]
        of = f"{modality}_{of}" if modality else of
    section = to_section(value, where, name)
    child = plan(section, of, where, owner)
    if not issubclass(child.part, argument.base):
        raise ConfigError(
            f"{where}.type: {section.type} is no {argument.base.__name__}, which "
            f"{owner.part.__name__} takes"
        )
    return child


def _fitted_options(
    owner: ComponentSpec, name: str, base: type[Fittable], values: str | dict[str, Any] | None
) -> dict[str, Any]:
    """Return the section of a fitted part: the recipe's, or the only possible one."""
    where = f"{owner.where}.{name}"
    if isinstance(values, str):
        values = {"type": values}
    if values is None:
        values = {"type": "pretrained"} if base.kind and owner._has_pretrained_weights() else {}
    if base.kind is None:
        return values
    if "type" not in values:
        examples = ", or ".join(f"{name}: {name_}" for name_ in list(registered(base.kind))[:2])
        raise ConfigError(f"{where}: is required here; for example {examples}")
    arguments_of = arguments(find(base.kind, values["type"], where))
    for argument, (
        _,
        default,
    ) in arguments_of.items():  # `tokenizer: pretrained` takes its owner's name
        if default is inspect.Parameter.empty and argument not in values:
            if argument not in owner.options:
                raise ConfigError(f"{where}.{argument}: is required, and is not there")
            values = {**values, argument: owner.options[argument]}
    return values


def _fitted(base: type[Fittable], values: dict[str, Any], where: str) -> Fittable:
    options = {key: value for key, value in values.items() if key not in ("type", "weights")}
    part = find(base.kind, values["type"], where) if base.kind else base
    with located_errors(where, arguments(part)):
        fitted = part(**validate_options(part, options, where))
    if not isinstance(fitted, Fittable):
        raise ConfigError(f"{where}: {part.__name__} is no {base.__name__}")
    return fitted


def count(module: nn.Module, trainable: bool | None = None) -> int:
    """Count the parameters of a module: all, trainable or frozen."""
    return sum(
        p.numel() for p in module.parameters() if trainable is None or p.requires_grad == trainable
    )
