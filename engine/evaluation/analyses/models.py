"""Several runs on the same rows: vectors of models from which rows they got right, and routing by
them.

Zhuang et al., "EmbedLLM: Learning Compact Representations of Large Language Models", 2024.

Legend: `M` models, `Q` rows (questions), `E` width of a row's features, `P` width of a model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....modalities.paths import read_lines
from ....tasks.base import Task
from ...utils import ConfigError
from .frozen import output_features
from .subject import Subject

Rows = list[dict[str, Any]]


def model_vectors(subject: Subject, runs: list[str], dim: int = 32, seed: int = 0) -> Rows:
    """Accuracy of several evaluated runs on the rows, and of routing each row to one of them by
    vectors of the models; fitted on one half of the rows, scored on the other.

    runs: folders with the predictions of `sensorium evaluate` on the same split. dim: width of a
    vector. `any`: the share of rows that at least one run gets right, the limit of routing.
    """
    keys = [subject.rows.source.key(i) for i in range(len(subject.rows))]
    correct = torch.tensor(
        [correct_rows(Path(r), subject.task, subject.rows.task, keys) for r in runs]
    )
    features = output_features(subject)
    features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    inputs = torch.from_numpy(features).float()
    order = np.random.default_rng(seed).permutation(len(keys))
    fit, held = order[: len(order) // 2], order[len(order) // 2 :]
    vectors = fit_model_vectors(correct[:, fit], inputs[fit], dim=dim, seed=seed)
    scored = correct[:, held]
    rows: Rows = [
        {"model": run, "accuracy": float(scored[i].float().mean())} for i, run in enumerate(runs)
    ]
    routed = routed_accuracy(vectors.route(inputs[held]), scored)
    return [
        *rows,
        {"model": "routed", "accuracy": routed},
        {"model": "any", "accuracy": float(scored.bool().any(0).float().mean())},
    ]


def correct_rows(run: Path, name: str, task: Task, keys: list[str]) -> list[bool]:
    """Return whether a run's stored prediction of each key is right. Raise ConfigError if it has
    none."""
    file = run / f"predictions-{name}.jsonl"
    if not file.is_file():
        raise ConfigError(f"runs: {file} is missing; run: sensorium evaluate {run}")
    lines = [json.loads(line) for line in read_lines(file)]
    right = {line["key"]: is_right(task, line["prediction"], line["target"]) for line in lines}
    missing = [key for key in keys if key not in right]
    if missing:
        raise ConfigError(f"runs: {file} has no row {missing[0]!r}; evaluate the same split")
    return [right[key] for key in keys]


def is_right(task: Task, prediction: Any, target: Any) -> bool:
    """Return whether a prediction is the target: its label, or one of its texts."""
    if "label" in target:
        return bool(prediction["label"] == target["label"])
    references = target.get("references") or [target.get("text")]
    if "text" not in prediction or None in references:
        raise ConfigError("model_vectors: the task predicts neither labels nor texts")
    return task.comparable(prediction["text"]) in {task.comparable(text) for text in references}


class ModelVectors(nn.Module):
    """`logit(m, q) = w . (p_m * proj(q)) + b`: that model m is right on row q."""

    def __init__(self, models: int, width: int, dim: int = 32) -> None:
        super().__init__()
        self.vectors = nn.Embedding(models, dim)
        self.project = nn.Linear(width, dim)
        self.readout = nn.Linear(dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        """features `[Q, E]` -> logits `[M, Q]`."""
        rows = self.project(features)
        logits: Tensor = self.readout(self.vectors.weight[:, None] * rows[None]).squeeze(-1)
        return logits

    @torch.no_grad()
    def route(self, features: Tensor) -> Tensor:
        """Return `[Q]` the model that most likely gets each row right."""
        return self(features).argmax(0)

    def add_model(self, features: Tensor, correct: Tensor, *, steps: int = 300) -> None:
        """Fit the vector of one more model on its answers `[Q]`; all others are left alone."""
        vector = nn.Parameter(self.vectors.weight.detach().mean(0))
        optimizer = torch.optim.Adam([vector], 0.05)
        with torch.no_grad():
            rows = self.project(features)
        for _ in range(steps):
            logits = self.readout(vector * rows).squeeze(-1)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logits, correct.float()).backward(inputs=[vector])
            optimizer.step()
        weight = torch.cat([self.vectors.weight.detach(), vector.detach()[None]])
        self.vectors = nn.Embedding.from_pretrained(weight, freeze=False)


def fit_model_vectors(
    correct: Tensor,
    features: Tensor,
    *,
    dim: int = 32,
    steps: int = 300,
    noise: float = 0.05,
    seed: int = 0,
) -> ModelVectors:
    """Return vectors fitted to `correct [M, Q]` (zeros and ones) and features `[Q, E]` of the rows.

    noise: standard deviation of the noise added to a copy of the features in each step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = ModelVectors(len(correct), features.shape[1], dim)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(steps):
        noisy = features + noise * torch.randn(features.shape, generator=generator)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(module(noisy), correct.float()).backward()
        optimizer.step()
    return module.eval()


def routed_accuracy(chosen: Tensor, correct: Tensor) -> float:
    """Return the share of rows that the chosen models `[Q]` get right, `correct [M, Q]`."""
    return float(correct.gather(0, chosen[None]).float().mean())
