"""How a prediction is judged and shown, by its type: a text, a label, actions, boxes.

The type is a key of the prediction, independent of task and modality. Annotations of inputs (word
times, boxes, a mask) are drawn on them by their modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...modalities.base import Annotations
from .comparison import Comparison, Normalize, format_value, unspaced

MARKS = ("words", "boxes", "mask", "map", "peak", "forecast")
"""Keys of a prediction or a target that are drawn on the inputs."""

HIDDEN_KEYS = (*MARKS, "tokens", "scores")
"""Keys that are not shown."""

CONFIDENT = 0.5
"""Boxes with a lower score are not shown, except the best one."""


def _text(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    predicted, alone = str(prediction["text"]), target.get("text")
    expected = target.get("references") or ([] if alone is None else [alone])
    references = [str(reference) for reference in expected]
    note = format_value({k: v for k, v in prediction.items() if k not in (*HIDDEN_KEYS, "text")})
    if not references:
        return Comparison(predicted, note=note)
    right = normalize(predicted) in [normalize(reference) for reference in references]
    return Comparison(predicted, references, right, note, words=not right, normalize=normalize)


def _label(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    predicted, score = prediction["label"], prediction.get("score")
    note = "" if score is None else f"score {score:.3f}"
    if "label" not in target:
        return Comparison(format_value(predicted), note=note)
    expected = target["label"]
    multiple = isinstance(expected, list) and isinstance(predicted, list)
    right = (
        sorted(map(str, predicted)) == sorted(map(str, expected))
        if multiple
        else predicted == expected
    )
    return Comparison(format_value(predicted), [format_value(expected)], right, note)


def _actions(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    predicted = np.array(prediction["actions"], float)  # [steps, dof]
    text = f"{len(predicted)} steps of {predicted.shape[1]} joints"
    if prediction.get("undecodable"):
        return Comparison(
            text, correct=False, note="its tokens mean nothing: the mean action instead"
        )
    recorded = np.array(target.get("actions", ()), float)
    real = ~np.array(target.get("padding", [False] * len(recorded)), bool)
    if recorded.shape != predicted.shape or not real.any():
        return Comparison(text)
    off = np.abs(predicted - recorded)[real]
    joint = int(off.max(0).argmax())
    note = f"off by {off.mean():.3g} in the mean, by {off.max():.3g} at most (joint {joint})"
    return Comparison(text, note=note)


def _boxes(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    predicted, scores = _surest(prediction), list(prediction.get("scores") or ())
    note = ", ".join(f"score {score:.3g}" for score in scores[: len(predicted)])
    if "boxes" not in target:
        return Comparison(_count(predicted), note=note)
    expected = list(target["boxes"] or ())
    if not predicted or not expected:
        unsure = bool(predicted) and max(scores, default=1.0) < CONFIDENT
        text = f"{_count(predicted)}, but unsure" if unsure else _count(predicted)
        return Comparison(
            text, [_count(expected)], not expected and (not predicted or unsure), note
        )
    best = [max(overlap(box, other) for other in predicted) for box in expected]
    overlaps = ", ".join(f"overlap (IoU) {share:.2f}" for share in best)
    return Comparison(
        _count(predicted), [_count(expected)], note=", ".join(filter(None, (overlaps, note)))
    )


def _count(boxes: Sequence[Any]) -> str:
    return "1 box" if len(boxes) == 1 else f"{len(boxes) or 'no'} boxes"


def _surest(prediction: Mapping[str, Any]) -> list[Sequence[float]]:
    """Return the confident boxes by descending score, at least one."""
    boxes = list(prediction.get("boxes") or ())
    scores = prediction.get("scores") or [1.0] * len(boxes)
    sure = [box for box, score in zip(boxes, scores, strict=False) if score >= CONFIDENT]
    return sure or boxes[:1]


def _mask(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    details = {k: v for k, v in prediction.items() if k not in HIDDEN_KEYS}
    return Comparison(
        format_value(details) or "a mask", note=format_value(prediction.get("scores") or {})
    )


def _image(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    """Return the scores of a generated picture, and as the reference the attributes that it should
    have; the picture to compare with is drawn among the inputs."""
    details = {k: v for k, v in prediction.items() if k not in (*HIDDEN_KEYS, "image")}
    facts = format_value(dict(target)) if target else ""
    note = format_value(details | dict(prediction.get("scores") or {}))
    return Comparison("a generated picture", [facts] if facts else [], note=note)


def _forecast(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    """Return how long a forecast is and how far it is off; the signal is drawn with the inputs."""
    predicted = np.array(prediction["forecast"], float)  # [C, H]
    text = f"{predicted.shape[-1]} samples ahead"
    future = np.array(target.get("forecast", ()), float)  # [C, H]
    steps = min(predicted.shape[-1], future.shape[-1])
    off = np.abs(predicted[:, :steps] - future[:, :steps]) if future.ndim == 2 else np.empty(0)
    off = off[np.isfinite(off)]
    if not off.size:
        return Comparison(text)
    return Comparison(text, note=f"off by {off.mean():.3g} in the mean, by {off.max():.3g} at most")


def _peak(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    """Return a predicted position; `hit`: whether it is right."""
    details = {
        k: v for k, v in prediction.items() if k not in (*HIDDEN_KEYS, "hit") and v is not None
    }
    position = ", ".join(f"{value:.3g}" for value in prediction["peak"])
    return Comparison(f"at {position}", correct=prediction.get("hit"), note=format_value(details))


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the IoU of two boxes; a box is its low corner, then its high one."""
    a, b = (np.array(box, float).reshape(2, -1) for box in (first, second))
    both = np.prod(np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None))
    union = np.prod(a[1] - a[0]) + np.prod(b[1] - b[0]) - both
    return float(both / union) if union > 0 else 0.0


def _values(
    prediction: Mapping[str, Any], target: Mapping[str, Any], normalize: Normalize
) -> Comparison:
    """Return values by name; numbers are not right or wrong, but have an error."""
    prediction = {k: v for k, v in prediction.items() if k not in HIDDEN_KEYS}
    shared = [name for name in prediction if name in target]
    numbers = [n for n in shared if isinstance(prediction[n], float)]
    off = ", ".join(f"{name} off by {abs(prediction[name] - target[name]):.3g}" for name in numbers)
    same = all(prediction[name] == target[name] for name in shared)
    right = None if numbers or not shared else same
    names = shared or [name for name in target if name not in (*HIDDEN_KEYS, "prompt")]
    expected = {name: target[name] for name in names}
    return Comparison(
        format_value(prediction), [format_value(expected)] if expected else [], right, off
    )


@dataclass(frozen=True)
class PredictionType:
    """draw: `module:function`, (prediction, target, the task's fitted parts) -> HTML."""

    judge: Callable[[Mapping[str, Any], Mapping[str, Any], Normalize], Comparison]
    draw: str | None = None


FORMS = {
    "text": PredictionType(_text),
    "label": PredictionType(_label),
    "actions": PredictionType(_actions, "sensorium.modalities.action.plot:draw"),
    "boxes": PredictionType(_boxes),
    "forecast": PredictionType(_forecast),
    "image": PredictionType(_image, "sensorium.modalities.image.pixels:draw"),
    "mask": PredictionType(_mask),
    "peak": PredictionType(_peak),
}
"""Key of a prediction -> how it is judged and drawn; the first that it has."""


def form_of(prediction: Any) -> PredictionType:
    """Return the type of a prediction; values by name by default."""
    has = prediction if isinstance(prediction, Mapping) else {}
    return next((form for key, form in FORMS.items() if key in has), PredictionType(_values))


def judge(prediction: Any, target: Any, normalize: Normalize = unspaced) -> Comparison:
    """Judge a prediction against its reference by their common type. normalize: of texts, as in the
    metrics of the task."""
    if not isinstance(prediction, Mapping) or not isinstance(target, Mapping):
        right = None if isinstance(prediction, float) else prediction == target
        return Comparison(format_value(prediction), [format_value(target)], right)
    return form_of(prediction).judge(prediction, target, normalize)


def annotations_of(prediction: Any, target: Any) -> Annotations:
    """Return the annotations of inputs in a prediction and its target, by name: `(predicted,
    expected)`."""
    predicted = dict(prediction) if isinstance(prediction, Mapping) else {}
    expected = dict(target) if isinstance(target, Mapping) else {}
    if "boxes" in predicted:
        predicted["boxes"] = _surest(predicted)
    return {
        k: (predicted.get(k), expected.get(k)) for k in MARKS if predicted.get(k) or expected.get(k)
    }
