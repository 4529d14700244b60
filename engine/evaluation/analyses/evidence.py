"""LogME: how well frozen features explain a target, without training anything.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", 2021;
Bassignana et al., "Evidence > Intuition: Transferability Estimation for Encoder Selection", 2022.

Legend: `N` rows, `D` width, `k = min(N, D)`. Model: `y = F w + noise`, `w ~ N(0, I / alpha)`, noise
of precision `beta`.
"""

from __future__ import annotations

import math

import numpy as np

MAX_ROUNDS = 100
TOLERANCE = 1e-3
"""Relative change of `alpha / beta` at which the fixed point has been reached."""


def logme(features: np.ndarray, target: np.ndarray) -> float:
    """Return the log evidence per row, maximized over both precisions.

    features: `[N, D]`. target: `[N]` numbers, or classes; of classes it is the mean over the
    columns one against the rest.
    """
    parts = _decompose(features)
    columns = [_evidence(parts, column) for column in target_columns(target)]
    return float(np.mean(columns))


def target_columns(target: np.ndarray) -> list[np.ndarray]:
    """Return the columns of a target: numbers unchanged, a column of zeros and ones a class."""
    if np.issubdtype(target.dtype, np.floating):
        return [np.asarray(target, np.float64)]
    return [(target == label).astype(np.float64) for label in np.unique(target)]


def log_evidence(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """Return `log p(y | F, alpha, beta) / N` of one column: `log N(y; 0, I / beta + F F' / alpha)`,
    computed in the space of the singular vectors."""
    u, sigma, width = _decompose(features)
    x = u.T @ target
    return _log_evidence(sigma, x, target, width, alpha, beta)


Parts = tuple[np.ndarray, np.ndarray, int]
"""Left singular vectors `[N, k]`, squared singular values `[k]`, and the width `D`."""


def _decompose(features: np.ndarray) -> Parts:
    values = np.asarray(features, np.float64)
    u, s, _ = np.linalg.svd(values, full_matrices=False)
    return u, s**2, values.shape[1]


def _evidence(parts: Parts, target: np.ndarray) -> float:
    """Return the evidence at the fixed point of the two precisions (MacKay 1992)."""
    u, sigma, width = parts
    x = u.T @ target  # [k]
    count = len(target)
    alpha, beta = 1.0, 1.0
    for _ in range(MAX_ROUNDS):
        ratio = alpha / beta
        gamma = float((sigma / (sigma + ratio)).sum())
        norm, residual = _moments(sigma, x, target, ratio)
        alpha = gamma / max(norm, 1e-12)
        beta = max(count - gamma, 1e-12) / max(residual, 1e-12)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    return _log_evidence(sigma, x, target, width, alpha, beta)


def _moments(
    sigma: np.ndarray, x: np.ndarray, target: np.ndarray, ratio: float
) -> tuple[float, float]:
    """Return `|m|^2` of the posterior mean and `|F m - y|^2`."""
    norm = float((sigma * x**2 / (sigma + ratio) ** 2).sum())
    outside = max(float(target @ target - x @ x), 0.0)
    residual = float(((ratio / (sigma + ratio) * x) ** 2).sum()) + outside
    return norm, residual


def _log_evidence(
    sigma: np.ndarray, x: np.ndarray, target: np.ndarray, width: int, alpha: float, beta: float
) -> float:
    count = len(target)
    norm, residual = _moments(sigma, x, target, alpha / beta)
    # log |A| of A = alpha I + beta F'F: the (D - k) directions that F lacks count too.
    log_det = float(np.log(alpha + beta * sigma).sum()) + (width - len(sigma)) * math.log(alpha)
    total = (
        width / 2 * math.log(alpha)
        + count / 2 * math.log(beta)
        - log_det / 2
        - beta / 2 * residual
        - alpha / 2 * norm
        - count / 2 * math.log(2 * math.pi)
    )
    return total / count
