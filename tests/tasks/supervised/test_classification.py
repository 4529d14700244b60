"""Classification: losses against torch's own, metrics against scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import nn

from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.supervised.classification import Classification
from sensorium.tasks.supervised.label_encoder import LabelEncoder
from sensorium.tasks.supervised.metrics import LabelMetrics, MultiLabelMetrics
from sensorium.testing.context import prepare_batch

COLOURS = ["red", "green", "blue", "green", "red", "blue"]


def labels_of(*cells: object) -> LabelEncoder:
    labels = LabelEncoder()
    labels.set_columns("label")
    labels.fit({"label": cell} for cell in cells)
    return labels


@pytest.fixture
def encode(make_streams, make_ragged):  # type: ignore[no-untyped-def]
    return make_streams(image=make_ragged(6, 5))


@pytest.fixture
def build(make_head):  # type: ignore[no-untyped-def]
    def build(*cells: object, **options: object) -> tuple[Classification, Batch]:
        task = Classification(input="image", labels=labels_of(*cells), **options)
        torch.manual_seed(0)
        task.heads["head"] = make_head(16, task.head_uses["head"].out_dim)
        return task, prepare_batch(task, [{"label": cell} for cell in cells])

    return build


def logits_of(task: Classification, encode) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return task.heads["head"](encode("image")).pooled


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (COLOURS, ["blue", "green", "red"]),
        ([3, 10, 2, 3], [2, 3, 10]),
        ([np.int64(3), 2], [2, 3]),
        ([True, False], [False, True]),
        ([["b", "a"], [], ["c"]], ["a", "b", "c"]),
    ],
)
def test_classes_are_sorted_and_survive_json(cells: list[object], classes: list[object]) -> None:
    labels = labels_of(*cells)
    assert labels.classes == classes
    assert [labels.index(c) for c in labels.classes] == list(range(len(classes)))
    again = LabelEncoder()
    again.load_state(json.loads(json.dumps(labels.state())))
    assert again.classes == labels.classes
    assert list(map(type, again.classes)) == list(map(type, classes))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([1, "1"], r"mixes int \(1\) and str \('1'\)"),
        ([1, True], "mixes int .* and bool"),
        (["a", "a"], "has 1 classes .*at least 2"),
        ([0.5, 1], r"holds 0\.5 \(float\)"),
        (["a", None], "holds None"),
    ],
)
def test_columns_that_are_no_labels_are_named(cells: list[object], words: str) -> None:
    with pytest.raises(ValueError, match=f"'label' .*{words}") as error:
        labels_of(*cells)
    assert "\n" not in str(error.value)


def test_labels_before_and_after_the_wrong_fit_are_named() -> None:
    labels = labels_of("a", "b")
    with pytest.raises(ValueError, match="'label', the target is 'colour'"):
        labels.set_columns("colour")
    unfitted = Classification(input="image", labels=LabelEncoder(), target="colour")
    with pytest.raises(ValueError, match="'colour' was not fitted"):
        _ = unfitted.head_uses


def test_a_label_that_training_had_not_is_named(build) -> None:  # type: ignore[no-untyped-def]
    task, _ = build(*COLOURS)
    with pytest.raises(ValueError, match=r"'pink' in the column 'label' .* 3 classes .'blue'"):
        prepare_batch(task, [{"label": "pink"}])
    numbers, _ = build(0, 1)
    with pytest.raises(ValueError, match="True in the column"):
        prepare_batch(numbers, [{"label": True}])
    with pytest.raises(ValueError, match="set multi_label: true"):
        prepare_batch(task, [{"label": ["red"]}])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_one_label_is_torch_s(build, encode, smoothing) -> None:  # type: ignore[no-untyped-def]
    task, batch = build(*COLOURS, smoothing=smoothing)
    loss = task.loss(batch, encode)
    target = torch.tensor([["blue", "green", "red"].index(c) for c in COLOURS])
    logits = logits_of(task, encode)
    expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, target) * 6
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 6
    assert loss.parts["correct"] == (logits.argmax(1) == target).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_several_labels_is_torch_s(build, encode, smoothing) -> None:  # type: ignore[no-untyped-def]
    cells = [["a"], ["b", "c"], [], ["c"], ["a", "b", "c"], ["b"]]
    task, batch = build(*cells, multi_label=True, smoothing=smoothing)
    loss = task.loss(batch, encode)
    expected = torch.tensor([[float(c in cell) for c in "abc"] for cell in cells])
    smooth = expected * (1 - smoothing) + 0.5 * smoothing
    logits = logits_of(task, encode)
    torch.testing.assert_close(loss.total, nn.BCEWithLogitsLoss()(logits, smooth) * 6)
    right = ((logits > 0) == expected.bool()).float().mean()
    torch.testing.assert_close(loss.parts["correct"] / loss.count, right)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_batch_in_two_parts_gives_the_same_sums(build, encode, multi_label) -> None:  # type: ignore[no-untyped-def]
    cells = [[c] for c in COLOURS] if multi_label else COLOURS
    task, batch = build(*cells, multi_label=multi_label)
    whole = task.loss(batch, encode)
    parts = [
        task.loss(prepare_batch(task, [{"label": c} for c in cells[a:b]]), encode.rows(a, b))
        for a, b in ((0, 2), (2, 6))
    ]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    torch.testing.assert_close(sum(p.parts["correct"] for p in parts), whole.parts["correct"])
    assert sum(p.count for p in parts) == whole.count


def test_predictions_are_the_classes_and_their_shares(build, encode) -> None:  # type: ignore[no-untyped-def]
    task, batch = build(4, 7, 9, 4, 7, 9)
    result = task.predict(batch, encode)
    shares = logits_of(task, encode).softmax(1).tolist()
    for row, share in zip(result, shares, strict=True):
        assert row["label"] == [4, 7, 9][int(np.argmax(share))]
        assert row["score"] == pytest.approx(max(share))
        assert row["scores"] == pytest.approx(dict(zip("479", share, strict=True)))
    assert json.loads(json.dumps(result)) == result


def test_several_labels_are_those_over_the_threshold(build, encode) -> None:  # type: ignore[no-untyped-def]
    cells = [["a"], ["b", "c"], [], ["c"], ["a", "b", "c"], ["b"]]
    task, batch = build(*cells, multi_label=True, threshold=0.45)
    for row in task.predict(batch, encode):
        assert row["label"] == [c for c, share in row["scores"].items() if share >= 0.45]


def test_scores_can_be_left_out(build, encode) -> None:  # type: ignore[no-untyped-def]
    task, batch = build(*COLOURS, scores=False)
    result = task.predict(batch, encode)
    assert set(result[0]) == {"label", "score"}
    metrics = task.metrics()
    metrics.update(result, batch.references)
    assert set(metrics.compute()) == {"accuracy", "f1"}


def random_scores(rows: int, classes: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(classes), rows).astype(np.float32)


@pytest.mark.parametrize("absent", [False, True])
def test_metrics_of_one_label_are_scikit_learn_s(absent: bool) -> None:
    """A class that the rows do not have is left out of the means, as it should be."""
    scores = random_scores(40, 4)
    expected = np.random.default_rng(1).integers(0, 3 if absent else 4, 40)
    result = scores[:, :3].argmax(1) if absent else scores.argmax(1)
    metrics = LabelMetrics(list("abcd"))
    for part in (slice(0, 7), slice(7, 40)):
        predictions = [
            {"label": "abcd"[k], "scores": dict(zip("abcd", row.tolist(), strict=True))}
            for k, row in zip(result[part], scores[part], strict=True)
        ]
        metrics.update(predictions, [{"label": "abcd"[k]} for k in expected[part]])
    each = [roc_auc_score(expected == k, scores[:, k]) for k in sorted(set(expected))]
    assert metrics.compute() == pytest.approx(
        {
            "accuracy": (result == expected).mean(),
            "f1": f1_score(expected, result, average="macro"),
            "auroc": np.mean(each),
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("absent", [False, True])
def test_metrics_of_several_labels_are_scikit_learn_s(absent: bool) -> None:
    scores = np.random.default_rng(2).random((40, 3)).astype(np.float32)
    target = np.random.default_rng(3).integers(0, 2, (40, 3))
    target[:, 2] = 0 if absent else target[:, 2]
    result = (scores > 0.5).astype(int)

    def names(row: np.ndarray) -> list[str]:
        return ["abc"[k] for k in row.nonzero()[0]]

    metrics = MultiLabelMetrics(list("abc"))
    metrics.update(
        [
            {"label": names(row), "scores": dict(zip("abc", share.tolist(), strict=True))}
            for row, share in zip(result, scores, strict=True)
        ],
        [{"label": names(row)} for row in target],
    )
    shown = range(2 if absent else 3)
    expected = {
        "exact_match": (result == target).all(1).mean(),
        "f1": f1_score(target, result, average="macro", zero_division=0),
        "auroc": np.mean([roc_auc_score(target[:, k], scores[:, k]) for k in shown]),
        "map": np.mean([average_precision_score(target[:, k], scores[:, k]) for k in shown]),
    }
    assert metrics.compute() == pytest.approx(expected, abs=1e-6)


def test_what_has_no_label_can_be_predicted_but_not_learned(build, encode) -> None:  # type: ignore[no-untyped-def]
    task, _ = build(*COLOURS)
    batch = prepare_batch(task, [{"other": 1}] * 6, list("abcdef"))
    assert len(task.predict(batch, encode)) == 6
    with pytest.raises(ValueError, match="row 'a': has no label"):
        task.loss(batch, encode)
    with pytest.raises(ValueError, match="a row has no label"):
        task.metrics().update([{"label": "red"}], batch.references[:1])
    with pytest.raises(ValueError, match="no row was accumulated"):
        task.metrics().compute()


@pytest.mark.parametrize("option", ["smoothing", "threshold"])
def test_a_share_out_of_bounds_is_named(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option}: found 1\.5"):
        Classification(input="image", labels=LabelEncoder(), **{option: 1.5})


def test_a_head_that_is_missing_or_wrong_is_named(build, encode, make_head) -> None:  # type: ignore[no-untyped-def]
    task, batch = build(*COLOURS)
    task.heads["head"] = make_head(16, 5)
    with pytest.raises(ValueError, match=r"'head' on the stream 'image' .* 5, .* of 3 a row"):
        task.loss(batch, encode)

    class Same(nn.Module):
        def forward(self, features: Features) -> Features:
            return features

    task.heads["head"] = Same()
    with pytest.raises(ValueError, match=r"tokens \(6, 5, 16\) without a vector"):
        task.loss(batch, encode)
    del task.heads["head"]
    with pytest.raises(ValueError, match=r"was not built; .*`head: \{type: linear\}`"):
        task.predict(batch, encode)


@pytest.mark.parametrize("other", ["e\u0301", "\u00e9 ", "\u00e9\u00a0", "  \u00e9"])
def test_classes_that_look_alike_are_no_two_classes(other: str) -> None:
    labels = LabelEncoder()
    labels.set_columns("word")
    with pytest.raises(ValueError, match="by their Unicode form or by spaces alone"):
        labels.fit([{"word": "\u00e9"}, {"word": other}, {"word": "a"}])
    labels.fit([{"word": "a"}, {"word": "A"}, {"word": "a b"}])
    assert len(labels) == 3
