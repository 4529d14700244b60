"""Does a policy use what it is given? Its success with a stream dealt to others, or blank, or
with another instruction, stands beside its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...modalities.messages import did_you_mean
from ..recipe import Env
from ..utils import ConfigError
from .simulator import instructions


@dataclass(frozen=True)
class Ablation:
    """shuffle: streams that come from the next environment. blank: streams that are all zero.
    instruction: what every environment is told. swap: each is told what the next should do.
    replay: not the model acts, but the mean demonstration."""

    shuffle: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    instruction: str | None = None
    swap: bool = False
    replay: bool = False

    def label(self) -> str:
        """What it is called in a file's name; empty where nothing is changed."""
        parts = [f"shuffled-{'-'.join(self.shuffle)}"] if self.shuffle else []
        parts += [f"blank-{'-'.join(self.blank)}"] if self.blank else []
        parts += ["told-otherwise"] if self.instruction is not None else []
        parts += ["told-another-task"] if self.swap else []
        return "-".join([*parts, *(["mean-replayed"] if self.replay else [])])

    def check(self, observation_keys: Mapping[str, Any], batch: int, count: int) -> None:
        """Raises RecipeError for a stream that there is not, or nobody to deal to."""
        for stream in (*self.shuffle, *self.blank):
            if stream not in observation_keys:
                raise ConfigError(
                    f"--shuffle, --blank: there is no stream {stream!r}"
                    f"{did_you_mean(stream, observation_keys)}"
                )
        alone = batch == 1 or count % batch == 1
        if self.shuffle and alone:
            raise ConfigError(
                f"--shuffle: {count} episodes in batches of {batch} leave one alone, and nobody to "
                "deal with; change --episodes or --batch"
            )

    def apply(
        self, observations: Sequence[Mapping[str, Any]], observation_keys: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The observations of all environments at one step, changed as asked."""
        found = [dict(seen) for seen in observations]
        for key in _keys(self.shuffle, observation_keys):
            for i, seen in enumerate(found):
                seen[key] = observations[(i + 1) % len(found)].get(key)
        for key in _keys(self.blank, observation_keys):
            for seen in found:
                seen[key] = np.zeros_like(seen[key])
        return found

    def texts(self, section: Env, name: str, seeds: Sequence[int]) -> list[str]:
        """What each episode is told; RecipeError where there is no other task to name."""
        if self.instruction is not None:
            return [self.instruction] * len(seeds)
        if not self.swap:
            return instructions(section, name, seeds)
        names = list(section.names)
        other = names[(names.index(name) + 1) % len(names)] if name in names else name
        found = instructions(section, other, seeds) if other != name else []
        if not found:
            raise ConfigError(
                f"--swap: {name} is told what the next of env.name is to do, and there is no other "
                f"with words of its own among: {', '.join(names)}"
            )
        return found


def _keys(streams: Sequence[str], observation_keys: Mapping[str, Any]) -> list[str]:
    said = [observation_keys[stream] for stream in streams]
    return [key for keys in said for key in ([keys] if isinstance(keys, str) else keys)]
