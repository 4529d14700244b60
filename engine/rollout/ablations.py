"""Ablations of a policy's inputs: success with shuffled or zero streams, or other instructions."""

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
    """shuffle_streams: streams taken from the next environment. zero_streams: streams of zeros.
    instruction: for every environment. swap_instructions: each environment has that of the next.
    open_loop: the mean demonstration is replayed in place of the model."""

    shuffle_streams: tuple[str, ...] = ()
    zero_streams: tuple[str, ...] = ()
    instruction: str | None = None
    swap_instructions: bool = False
    open_loop: bool = False

    def label(self) -> str:
        """Return its name in file names; empty without a change."""
        parts = [f"shuffled-{'-'.join(self.shuffle_streams)}"] if self.shuffle_streams else []
        parts += [f"blank-{'-'.join(self.zero_streams)}"] if self.zero_streams else []
        parts += ["told-otherwise"] if self.instruction is not None else []
        parts += ["told-another-task"] if self.swap_instructions else []
        return "-".join([*parts, *(["mean-replayed"] if self.open_loop else [])])

    def check(self, observation_keys: Mapping[str, Any], batch: int, count: int) -> None:
        """Raise ConfigError for an unknown stream, or if there is no other environment to take a
        stream from."""
        for stream in (*self.shuffle_streams, *self.zero_streams):
            if stream not in observation_keys:
                raise ConfigError(
                    f"--shuffle-stream, --zero-stream: there is no stream {stream!r}"
                    f"{did_you_mean(stream, observation_keys)}"
                )
        alone = batch == 1 or count % batch == 1
        if self.shuffle_streams and alone:
            raise ConfigError(
                f"--shuffle-stream: {count} episodes in batches of {batch} leave a batch of one, "
                "which has no other to take the stream from; change --n-episodes or --num-envs"
            )

    def apply(
        self, observations: Sequence[Mapping[str, Any]], observation_keys: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the changed observations of all environments at one step."""
        changed = [dict(observation) for observation in observations]
        for key in _keys(self.shuffle_streams, observation_keys):
            for i, observation in enumerate(changed):
                observation[key] = observations[(i + 1) % len(changed)].get(key)
        for key in _keys(self.zero_streams, observation_keys):
            for observation in changed:
                observation[key] = np.zeros_like(observation[key])
        return changed

    def texts(self, section: Env, name: str, seeds: Sequence[int]) -> list[str]:
        """Return the instruction of each episode. Raise ConfigError if there is no other task to
        take it from."""
        if self.instruction is not None:
            return [self.instruction] * len(seeds)
        if not self.swap_instructions:
            return instructions(section, name, seeds)
        names = list(section.names)
        other = names[(names.index(name) + 1) % len(names)] if name in names else name
        texts = instructions(section, other, seeds) if other != name else []
        if not texts:
            raise ConfigError(
                f"--swap-instructions: {name} takes the instruction of the next of env.name, and "
                f"no other has one among: {', '.join(names)}"
            )
        return texts


def _keys(streams: Sequence[str], observation_keys: Mapping[str, Any]) -> list[str]:
    values = [observation_keys[stream] for stream in streams]
    return [key for keys in values for key in ([keys] if isinstance(keys, str) else keys)]
