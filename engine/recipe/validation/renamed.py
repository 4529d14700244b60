"""Keys of the first edition and what they are called now. Used by error messages alone.

A place is written from the recipe's root, `*` stands for one name: `tasks.*.data.*.holdout`. An
option of a class is written `ClassName.option`. The value is what to write instead: a place or,
for an option, its new name.
"""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "train.accumulate": "train.gradient_accumulation_steps",
    "train.betas": "train.optimizer.betas",
    "train.by": "train.sampler.column",
    "train.clip": "train.max_grad_norm",
    "train.lr": "train.optimizer.lr",
    "train.mix": "train.task_weights",
    "train.order": "train.sampler.type",
    "train.validate.best": "train.validate.metric",
    "train.warmup": "train.warmup_ratio",
    "train.weight_decay": "train.optimizer.weight_decay",
    "train.workers": "train.num_workers",
}


def renamed(place: str, owner: str = "") -> str | None:
    """Return today's name of a key of the first edition, or None.

    place: `train.clip`. owner: the name of the class that refused the key, if one did.
    """
    keys = place.split(".")
    for pattern, new in RENAMED.items():
        parts = pattern.split(".")
        if len(parts) == len(keys) and all(
            part in ("*", key) for part, key in zip(parts, keys, strict=True)
        ):
            return new
    return RENAMED.get(f"{owner}.{keys[-1]}")
