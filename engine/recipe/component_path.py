"""Where a part stands in a recipe, and under which names a run's file holds its tensors."""

from __future__ import annotations

STATES = {"inputs": "streams", "decoders": "decoders", "tasks": "tasks"}
"""Section of a recipe -> the attribute of the model that holds its modules."""

BACKBONE = "backbone"
"""Short for `decoders.backbone`."""


class ComponentPath(str):
    """The keys of a part, joined by dots: `inputs.image.encoder`, `tasks.ctc.head`, `backbone`.

    section: `inputs`, `decoders` or `tasks`. name: the name of the stream, decoder or task.
    inside: the keys within it, `encoder` or `head.inner`; empty for a decoder or task itself.
    """

    __slots__ = ()

    def __truediv__(self, key: str) -> ComponentPath:
        """The path of what stands at a key within: `path / "tokenizer"`."""
        return ComponentPath(f"{self}.{key}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in full, `("decoders", "backbone", ...)` for a path that begins short."""
        keys = tuple(self.split("."))
        return ("decoders", *keys) if keys[0] == BACKBONE else keys

    @property
    def section(self) -> str:
        return self.keys[0]

    @property
    def name(self) -> str:
        return self.keys[1]

    @property
    def inside(self) -> str:
        return ".".join(self.keys[2:])

    def renamed(self, name: str) -> ComponentPath:
        """The same part of another stream, decoder or task: `image`; of a task and a head of it,
        `ctc.head`."""
        section, *rest = self.keys
        named = name.split(".")
        return joined(section, *named, *rest[len(named) :])

    def state_prefixes(self) -> tuple[str, ...]:
        """What the names of its tensors may begin with. A section within a task is a head or an
        inner part."""
        section, *rest = self.keys
        prefix = ".".join([STATES[section], *rest, ""])
        if section != "tasks" or len(rest) == 1:
            return (prefix,)
        return ".".join([section, rest[0], "heads", *rest[1:], ""]), prefix


def joined(*keys: str) -> ComponentPath:
    """The path of keys, short where it can be."""
    short = keys[1:] if keys[:2] == ("decoders", BACKBONE) else keys
    return ComponentPath(".".join(short))
