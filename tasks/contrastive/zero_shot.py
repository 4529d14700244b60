"""Zero-shot classification: a signal has the class whose prompts are nearest.

Radford et al., 2021, section 3.1: a class's vector is the mean over templates of the prompts' unit
vectors, normalized again.

Legend: `N` rows, `K` classes, `P` templates, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ..base import Embed
from ..common import l2_normalize


class ZeroShot:
    """input: the stream that is classified. text: the stream that encodes prompts. target: the
    column of labels. templates: prompts, each with one `{}` for the class. classes: their names; by
    default those of the rows."""

    def __init__(
        self,
        input: str,
        text: str,
        target: str,
        templates: list[str],
        classes: list[str] | None = None,
    ) -> None:
        self.input, self.text, self.target = input, text, target
        self.templates, self.classes = templates, classes

    @classmethod
    def read(cls, section: Mapping[str, Any], streams: Sequence[str]) -> Self:
        """Parse a recipe's section. Raise ValueError for a key that is missing, unknown or without
        effect."""
        known = {"input", "text", "target", "templates", "classes"}
        unknown = sorted(set(section) - known)
        if unknown:
            raise ValueError(
                f"zero_shot: there is no {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        options = dict(section)
        if "text" not in options and len(streams) == 2 and options.get("input") in streams:
            options["text"] = next(name for name in streams if name != options["input"])
        for key in ("input", "text", "target", "templates"):
            if key not in options:
                raise ValueError(f"zero_shot.{key}: is required, and is not there")
        for key in ("input", "text"):
            if options[key] not in streams:
                raise ValueError(
                    f"zero_shot.{key}: found {options[key]!r}, expected one of {', '.join(streams)}"
                )
        for key in ("templates", "classes"):
            texts = options.get(key)
            if texts is not None and not _are_texts(texts):
                raise ValueError(f"zero_shot.{key}: found {texts!r}, expected a list of texts")
        for template in options["templates"]:
            if template.count("{}") != 1:
                raise ValueError(
                    f"zero_shot.templates: {template!r} must have one {{}}, where the class goes"
                )
        return cls(**options)

    def vectors(self, classes: Sequence[str], embed: Embed) -> Tensor:
        """Return `[K, D]` at unit length."""
        prompts = [t.replace("{}", name) for name in classes for t in self.templates]
        vectors = l2_normalize(embed(self.text, prompts)).unflatten(
            0, (len(classes), -1)
        )  # [K, P, D]
        return l2_normalize(vectors.mean(1))

    def score(self, vectors: Tensor, labels: Sequence[object], embed: Embed) -> dict[str, float]:
        """Return the accuracy and that of chance. vectors: `[N, D]`. labels: one a row, None if it
        has none.

        A row is right if no other class is as near; NaN if no row has a label.
        """
        rows = [i for i, label in enumerate(labels) if label is not None]
        if not rows:
            return {"zero_shot_accuracy": float("nan"), "zero_shot_chance": float("nan")}
        names = [str(labels[i]) for i in rows]
        classes = self.classes or sorted(set(names))
        for name in names:
            if name not in classes:
                raise ValueError(
                    f"zero_shot.classes: a row is of {name!r}, which is not among "
                    f"{', '.join(classes)}"
                )
        target = torch.tensor([classes.index(name) for name in names])
        cosines = l2_normalize(vectors[rows]) @ self.vectors(classes, embed).to(vectors.device).T
        target_cosine = cosines.gather(1, target[:, None])
        right = (cosines >= target_cosine).sum(1) == 1  # the target alone
        return {
            "zero_shot_accuracy": float(right.float().mean()),
            "zero_shot_chance": 1 / len(classes),
        }


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
