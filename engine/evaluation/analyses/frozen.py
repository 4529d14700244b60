"""Analyses of frozen features: a row of the table a layer.

Each takes a `Subject` and its options, and returns the rows of a table.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np

from . import evidence, geometry, probes
from .subject import OUTPUT, Subject

Rows = list[dict[str, Any]]


def logme(subject: Subject, target: str | None = None, stream: str | None = None) -> Rows:
    """Log evidence of a linear model of the target on each layer's features; nothing is trained.

    target: the column; by default the task's. stream: the task's only input. Higher is better;
    compare layers and encoders on the same rows.
    """
    values = subject.target(target)
    layers = subject.features(subject.stream(stream))
    return [
        {"layer": name, "width": x.shape[1], "logme": evidence.logme(x, values)}
        for name, x in layers.items()
    ]


def probe(
    subject: Subject,
    target: str | None = None,
    stream: str | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Rows:
    """Cross-validated score of a linear probe on each layer: accuracy of a logistic regression, or
    R^2 of a ridge regression for numbers; beside it the same with permuted targets.

    target: the column; by default the task's. folds: of the cross-validation.
    """
    values = subject.target(target)
    layers = subject.features(subject.stream(stream))
    return [
        {"layer": name, "width": x.shape[1]}
        | probes.linear_probe(x, values, folds=folds, seed=seed)
        for name, x in layers.items()
    ]


def abx(
    subject: Subject,
    target: str | None = None,
    stream: str | None = None,
    distance: Literal["cosine", "euclidean", "warped"] = "cosine",
) -> Rows:
    """Share of triples in which X is nearer to A, of its class, than to B of another; 0.5 is
    chance. Nothing is trained.

    distance: of the rows' vectors; `warped` compares sequences of frames by dynamic time warping.
    """
    labels = subject.target(target)
    name = subject.stream(stream)
    if distance == "warped":
        matrices = {k: probes.warped_distances(s) for k, s in subject.sequences(name).items()}
    else:
        vectors = subject.features(name)
        matrices = {k: probes.distances(x, distance) for k, x in vectors.items()}
    return [{"layer": layer, "abx": probes.abx(d, labels)} for layer, d in matrices.items()]


def isotropy(subject: Subject, stream: str | None = None) -> Rows:
    """How evenly each layer's vectors use the directions of their space: isotropy (1: all alike),
    mean cosine of different rows, effective rank, and uniformity on the sphere."""
    layers = subject.features(subject.stream(stream))
    return [
        {"layer": name, **geometry.isotropy(x), "uniformity": geometry.uniformity(x)}
        for name, x in layers.items()
    ]


def alignment(subject: Subject, streams: list[str] | None = None) -> Rows:
    """Alignment of the pairs of two streams (0: they coincide), the uniformity of each, and the
    alignment of pairs that do not belong together.

    streams: two of the task's, of one width at their ends; by default its two inputs.
    """
    names = streams or list(subject.rows.task.inputs())
    if len(names) != 2:
        raise ValueError(f"streams: found {', '.join(names)}, expected two")
    first, second = (list(subject.features(subject.stream(name)).values())[-1] for name in names)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"streams: their widths are {first.shape[1]} and {second.shape[1]}")
    return [
        {
            "pair": f"{names[0]}, {names[1]}",
            "alignment": geometry.alignment(first, second),
            "shifted": geometry.alignment(first, np.roll(second, 1, 0)),
            f"uniformity {names[0]}": geometry.uniformity(first),
            f"uniformity {names[1]}": geometry.uniformity(second),
        }
    ]


def similarity(subject: Subject, streams: list[str] | None = None) -> Rows:
    """Similarity of every pair of layers of the streams: linear CKA (0 to 1), and the rank
    correlation of their cosines (RSA).

    streams: by default all that the task reads.
    """
    vectors = {
        f"{name} {layer}" if len(streams or subject.rows.task.streams) > 1 else layer: x
        for name in streams or subject.rows.task.streams
        for layer, x in subject.features(subject.stream(name)).items()
    }
    return [
        {"first": a, "second": b, "cka": geometry.cka(x, y), "rsa": geometry.rsa(x, y)}
        for (a, x), (b, y) in itertools.combinations(vectors.items(), 2)
    ]


def groups(subject: Subject, by: str, stream: str | None = None) -> Rows:
    """Cosine between the mean vectors of groups of rows (languages, domains), a layer.

    by: the column that names the group.
    """
    labels = subject.target(by)
    rows: Rows = []
    for layer, x in subject.features(subject.stream(stream)).items():
        names, cosines = geometry.group_similarity(x, labels)
        rows += [
            {"layer": layer, "first": names[i], "second": names[j], "cosine": float(cosines[i, j])}
            for i, j in itertools.combinations(range(len(names)), 2)
        ]
    return rows


def association(
    subject: Subject,
    by: str,
    targets: list[str],
    attributes: list[str],
    stream: str | None = None,
    permutations: int = 1000,
) -> Rows:
    """Effect size of the association of two groups of rows with two others (WEAT), a layer, -2 to
    2, and `p`, the share of random divisions of the targets with as large a one.

    by: the column that names the group. targets, attributes: two groups each, `[flowers, insects]`
    and `[pleasant, unpleasant]`: positive if flowers are the pleasant ones.
    """
    labels = subject.target(by)
    for option, names in (("targets", targets), ("attributes", attributes)):
        missing = [name for name in names if name not in labels]
        if len(names) != 2 or missing:
            found = f"{missing[0]!r}, which no row is" if missing else f"{len(names)} groups"
            raise ValueError(f"{option}: found {found}; expected two values of {by!r}")
    rows: Rows = []
    for layer, x in subject.features(subject.stream(stream)).items():
        first, second, near, far = (x[labels == name] for name in (*targets, *attributes))
        effect, share = geometry.association((first, second), (near, far), permutations)
        rows.append({"layer": layer, "effect_size": effect, "p": share})
    return rows


def output_features(subject: Subject) -> np.ndarray:
    """Return `[N, D]` of the first input's encoder."""
    name = subject.rows.task.inputs()[0]
    return subject.features(name)[OUTPUT]
