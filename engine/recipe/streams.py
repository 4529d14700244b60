"""The streams of a recipe as plans, and their shared parts.

`encoder: {share: query}` is the module of the stream `query`; `connector: {share: query}`
likewise; `passage: {share: query}` is short for both. `encoder: {share: backbone, attention:
bidirectional}` runs a decoder's own layers over the texts of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backbones.encoder import BackboneEncoder
from ...modalities.messages import did_you_mean
from ...modalities.modality import Modality
from ...tasks.uses import StreamUse
from ..utils import ConfigError, located_errors
from .component import ComponentSpec, plan
from .component_path import ComponentPath, joined
from .recipe import PartSection, Section, StreamSection
from .registry import find, load
from .validation import arguments, validate_options


@dataclass
class StreamPlan:
    """One input: its modality, and the plans of its parts."""

    modality: Modality
    encoder: ComponentSpec
    connector: ComponentSpec | None
    augment: Any | None
    prompt: str = ""

    @property
    def is_bag(self) -> bool:
        """Whether a cell is a list of items, which the connector reads together."""
        return self.connector is not None and self.connector.part.reads_items

    def many(self, use: StreamUse) -> bool:
        """Return whether a cell is a list of items, for the connector or for a task."""
        return use.many or self.is_bag

    def reader(self) -> Callable[[Any], Any]:
        """Return the function of a cell's raw value, its prompt included."""
        read = load(self.modality.read)
        return PromptedRead(read, self.prompt) if self.prompt else read


@dataclass(frozen=True)
class PromptedRead:
    """A modality's `read`, with a prompt before each text."""

    read: Callable[[Any], str]
    prompt: str

    def __call__(self, cell: Any) -> str:
        return self.prompt + self.read(cell)


def plan_streams(
    inputs: Mapping[str, StreamSection], decoders: Mapping[str, ComponentSpec]
) -> dict[str, StreamPlan]:
    """Find and check the parts of streams; shared parts are the same plan."""
    modalities: dict[str, Modality] = {
        name: find("modality", section.modality, f"inputs.{name}.modality")
        for name, section in inputs.items()
    }

    def encoder(name: str) -> ComponentSpec:
        kind = f"{inputs[name].modality}_encoder"
        return plan(inputs[name].encoder, kind, joined("inputs", name, "encoder"))

    def connector(name: str) -> ComponentSpec:
        return plan(with_connector[name], "connector", joined("inputs", name, "connector"))

    with_connector = {name: s.connector for name, s in inputs.items() if s.connector is not None}
    sections = {name: section.encoder for name, section in inputs.items()}
    encoders = _share_parts("encoder", sections, decoders, encoder)
    connectors = _share_parts("connector", with_connector, decoders, connector)
    for name, part in encoders.items():
        if part.references:
            _check_reads_text(
                modalities[name],
                f"inputs.{name}",
                "encoder.share: a decoder reads text",
                "give it an encoder",
            )
    for name, section in inputs.items():
        if section.prompt:
            _check_reads_text(
                modalities[name],
                f"inputs.{name}",
                "prompt: it is put before texts",
                "leave it out",
            )
    return {
        name: StreamPlan(
            modalities[name],
            encoders[name],
            connectors.get(name),
            _augment(section, modalities[name], f"inputs.{name}.augment"),
            section.prompt or "",
        )
        for name, section in inputs.items()
    }


def _augment(section: StreamSection, modality: Modality, where: str) -> Any | None:
    if section.augment is None:
        return None
    options = dict(section.augment)
    kind = options.pop("type", next(iter(modality.augments), None))
    if kind is None:
        raise ConfigError(
            f"{where}: {section.modality} has no augment; set type: package.module:Class"
        )
    part = find(f"{section.modality}_augment", kind, where)
    with located_errors(where, arguments(part)):
        return part(**validate_options(part, options, where))


Sections = Mapping[str, PartSection]


def _share_parts(
    kind: str,
    sections: Sections,
    decoders: Mapping[str, ComponentSpec],
    plan_of: Callable[[str], ComponentSpec],
) -> dict[str, ComponentSpec]:
    """Return the encoders or the connectors of streams, by name; a shared part is one plan.

    kind: `encoder` or `connector`. decoders: whose stack an encoder may run. plan_of: makes the
    plan of a stream that shares nothing. Raise ConfigError, one line a mistake.
    """
    unshared: dict[str, ComponentSpec] = {}
    for name, section in sections.items():
        if section.share is None:
            unshared[name] = plan_of(name)
        elif section.share in decoders and (section.share == name or section.share not in sections):
            unshared[name] = _encoder_of(
                decoders[section.share], section, joined("inputs", name, kind)
            )
    parts = dict(unshared)
    for name, section in sections.items():
        if name not in unshared:
            where = joined("inputs", name, kind)
            parts[name] = unshared[_source(section, sections, {*unshared, *decoders}, where)]
            _check_alone(section, section.options, where, str(parts[name].where))
    return {name: parts[name] for name in sections}


def _source(
    section: PartSection, sections: Sections, sources: set[str], where: ComponentPath
) -> str:
    """Return the stream whose part a section shares. Raise ConfigError if there is none, or it
    shares too."""
    source, chain = str(section.share), [where.name]
    if source not in sections:
        raise ConfigError(
            f"{where}.share: found {source!r}, expected another stream with a section "
            f"`{where.inside}`{did_you_mean(source, sources)}"
        )
    while source not in sources and source not in chain:
        chain.append(source)
        source = str(sections[source].share)
    if source in chain:
        raise ConfigError(
            f"{where}.share: {' shares '.join([*chain, source])}, a circle; give one of them a "
            f"section `{where.inside}` of its own"
        )
    if len(chain) > 1:
        raise ConfigError(
            f"{where}.share: {chain[1]} shares the {where.inside} of {source}; set share: {source}"
        )
    return source


def _check_alone(
    section: PartSection, options: Collection[str], where: ComponentPath, source: str
) -> None:
    """Raise ConfigError for keys beside `share` that belong to the shared part."""
    own_keys = [
        name
        for name, field in Section.model_fields.items()
        if name != "type" and getattr(section, name) != field.default
    ]
    own_keys = [*(["type"] if section.type != PartSection.SHARED else []), *own_keys, *options]
    if own_keys:
        raise ConfigError(
            f"{where}.{own_keys[0]}: cannot be combined with share: {section.share}; set it in "
            f"{source}, or take share out"
        )


def _check_reads_text(modality: Modality, where: str, reason: str, cure: str) -> None:
    """Raise ConfigError if a stream that has to be text is none."""
    if modality.example is None:
        return
    raw = load(modality.read)(load(modality.example)(np.random.default_rng(0)))
    if not isinstance(raw, str):
        raise ConfigError(
            f"{where}.{reason}, and the modality of {where} gives {type(raw).__name__}; {cure}"
        )


def _encoder_of(
    decoder: ComponentSpec, section: PartSection, where: ComponentPath
) -> ComponentSpec:
    """Return the plan of an encoder that runs the layers of a decoder."""
    if where.inside != "encoder":
        raise ConfigError(f"{where}.share: {section.share} is a decoder; expected another stream")
    if section.transforms:
        raise ConfigError(
            f"{where}.transforms: its layers are those of {decoder.where}; transform them there"
        )
    options, passed = section.options, {"backbone": section.share}
    _check_alone(section, options.keys() & passed, where, str(decoder.where))
    options = validate_options(BackboneEncoder, {**options, **passed}, where)
    del options["backbone"]
    return ComponentSpec(where, section, BackboneEncoder, options, references={"backbone": decoder})
