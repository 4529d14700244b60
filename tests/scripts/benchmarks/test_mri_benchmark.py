"""The benchmark of volumes: intervals over studies, hits by facts, and its whole way, tiny."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from sklearn.metrics import roc_auc_score

from sensorium.modalities.mri.phantom import Phantom
from sensorium.scripts.benchmarks.mri import bootstrap as scores
from sensorium.scripts.benchmarks.mri.baselines import blocks, commonest, histogram, logistic, ridge
from sensorium.scripts.benchmarks.mri.metrics import Truth, same_facts
from sensorium.scripts.benchmarks.mri.runs import Answer, Bench
from sensorium.scripts.benchmarks.mri.tables import usual_report
from sensorium.tasks.dense.mask_metrics import agreement
from sensorium.tasks.text import Facts

FACTS = Facts(
    {
        "side": "(left|right) [a-z]",
        "region": "(?:left|right) ([a-z ]+?)(?: shows| measures|\\.)",
        "size": "(\\d+) mm",
        "healthy": "[Nn](o) focal lesion",
    },
    {"size": 0.2},
)


def test_resamples_keep_a_studys_rows_together() -> None:
    drawn = scores.draws(5, 100)
    assert drawn.shape == (101, 5) and (drawn[0] == 1).all() and (drawn.sum(1) == 5).all()
    study = np.repeat(np.arange(5), 3)
    values = np.arange(15.0)
    result = scores.ratio(values, study).over(drawn)
    again = [values[np.repeat(np.arange(15), row[study])].mean() for row in drawn]
    np.testing.assert_allclose(result, again)
    low, high = scores.interval(result)
    assert low < values.mean() < high
    assert (scores.draws(5, 100) == drawn).all() and (scores.draws(5, 100, 1) != drawn).any()


def test_a_ratio_of_sums_is_one_of_sums() -> None:
    result = scores.ratio([2.0, 1.0, 0.0], [0, 0, 1], [2.0, 2.0, 4.0]).over(scores.draws(2, 20))
    assert result[0] == 3 / 8


def test_weighted_auroc_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    study, expected = np.repeat(np.arange(20), 3), rng.integers(0, 3, 60)
    shares = rng.random((60, 3)).round(1)  # with ties
    drawn = scores.draws(20, 10)
    result = scores.auroc(shares, expected, study).over(drawn)
    for row, value in zip(drawn, result, strict=True):
        rows = np.repeat(np.arange(60), row[study])
        each = [roc_auc_score(expected[rows] == k, shares[rows, k]) for k in range(3)]
        assert value == pytest.approx(np.mean(each), abs=1e-12)


def test_pairs_share_their_resamples() -> None:
    rng, study = np.random.default_rng(0), np.arange(60)
    base = rng.normal(0, 10, 60)  # what both find hard
    drawn = scores.draws(60, 500)
    worse, better = (
        scores.ratio(base, study),
        scores.ratio(base + 1 + rng.normal(0, 0.1, 60), study),
    )
    apart, low, high = scores.compared(better, worse, drawn)
    assert low < apart < high and low > 0.9 and high < 1.1
    assert scores.compared(better, better, drawn) == (0.0, 0.0, 0.0)
    assert scores.verdict(better, worse, drawn) == "holds"
    assert scores.verdict(worse, better, drawn) == "below"
    less = [scores.ratio(base + shift, study, better=-1) for shift in (0, 1)]
    assert scores.verdict(*less, drawn) == "holds"


@pytest.mark.parametrize(("chance", "verdict"), [(0.0, "tie, both"), (0.95, "tie at chance")])
def test_a_tie_counts_where_both_are_beyond_chance(chance: float, verdict: str) -> None:
    rng, study = np.random.default_rng(0), np.arange(40)
    one, other = (
        scores.ratio((rng.random(40) < 0.9).astype(float), study, chance=chance) for _ in range(2)
    )
    assert scores.verdict(one, other, scores.draws(40, 400)).startswith(verdict)


def test_recall_and_its_chance() -> None:
    same = np.array([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=bool)
    ranked = [[1, 2, 3, 0, 4, 5], [2, 3, 4, 1, 0, 5], [0, 1, 2, 3, 4, 5]]
    assert scores.recall(ranked, same, 3) == [1.0, 0.0, 0.0]
    orders = list(itertools.permutations(range(6)))
    every = [scores.recall([order] * 3, same, 3) for order in orders]
    assert scores.chance_of_recall(same, 3) == pytest.approx(np.mean(every))


def test_reports_say_the_same_where_their_facts_agree() -> None:
    texts = [
        "There is a 20 mm lesion in the left insula.",
        "The left insula shows a lesion of 22 mm.",
        "The right insula shows a lesion of 22 mm.",
        "The left insula shows a lesion of 30 mm.",
        "No focal lesion.",
    ]
    expected = np.eye(5, dtype=bool)
    expected[0, 1] = expected[1, 0] = True
    np.testing.assert_array_equal(same_facts(FACTS, texts), expected)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(Phantom(split="test", subjects=3, spacing=12), FACTS)


def test_masks_are_scored_as_monai_does(truth: Truth) -> None:
    rng, rows, expected = np.random.default_rng(0), [], []
    for place in range(3):
        pair = torch.from_numpy(rng.random((2, 8, 9, 7)) < 0.2)
        prediction = {"scores": agreement(pair[0], pair[1], (4.0, 4.0, 6.0))}
        rows.append(Answer(f"test-0000{place}-T2w", prediction, {}))
        a, b = pair[:, None, None].float()
        far = compute_hausdorff_distance(a, b, percentile=95, spacing=[4.0, 4.0, 6.0])
        expected.append((float(compute_dice(a, b)), float(far)))
    nothing = agreement(torch.zeros(4, 4, 4) > 0, torch.ones(4, 4, 4) > 0, (1.0, 1.0, 1.0))
    rows.append(Answer("test-00002-PDw", {"scores": nothing}, {}))
    result = truth.measures({"mask": rows})
    once = scores.draws(3, 1)[:1]
    assert result["hd95"].over(once)[0] == pytest.approx(np.mean([far for _, far in expected]))
    assert result["dice"].over(once)[0] == pytest.approx(sum(d for d, _ in expected) / 4)
    assert result["missed"].over(once)[0] == 0.25 and result["hd95"].better == -1


def test_side_is_asked_where_it_can_be_seen(truth: Truth) -> None:
    def row(key: str, left: float, label: str) -> Answer:
        prediction = {"scores": {"left": left, "none": 0.9, "right": 0.1}}
        return Answer(key, prediction, {"label": label})

    rows = [
        row("test-00000-T2w", 0.05, "left"),
        row("test-00001-FLAIR", 0.2, "left"),
        row("test-00001-T1w", 0.0, "left"),
        row("test-00002-PDw", 0.0, "none"),
    ]
    assert truth.measures({"side": rows})["side"].over(scores.draws(3, 1))[0] == 0.5


def test_a_series_finds_a_report_of_its_facts(truth: Truth) -> None:
    vectors = np.eye(3)
    rows = [
        Answer(truth.source.key(i), {"volume": vectors[i // 4].tolist(), "report": text}, {})
        for i, text in enumerate(np.repeat(vectors, 4, axis=0).tolist())
    ]
    truth.same = np.eye(3, dtype=bool)
    assert truth.measures({"recall": rows})["recall"].over(scores.draws(3, 1))[0] == 1.0


def test_generated_reports_are_scored_by_their_facts(truth: Truth) -> None:
    known = {"references": ["A T2w scan. There is a 20 mm lesion in the left insula."]}
    rows = [Answer("test-00000-T2w", {"text": ""}, known)]
    once = scores.draws(3, 1)[:1]
    messages = truth.reports_of(["The left insula shows a lesion of 30 mm."], rows)
    assert messages.over(once)[0] == pytest.approx(4 / 6)
    assert truth.reports_of(["No focal lesion."], rows).over(once)[0] == 0.0


def test_rows_without_a_network() -> None:
    volume = torch.arange(12.0**3).reshape(1, 12, 12, 12) / 12**3
    shares = histogram({"volume": volume})
    assert shares.sum() == pytest.approx(1) and len(blocks({"volume": volume})) == 216
    assert blocks({"volume": volume})[0] == pytest.approx(float(volume[0, :2, :2, :2].mean()))
    boxes = np.array([[0.0] * 3 + [4.0] * 3, [1.0] * 3 + [5.0] * 3, [9.0] * 3 + [12.0] * 3])
    assert commonest(boxes).max() < 9
    flat, rng = np.zeros((4, 1)), np.random.default_rng(0)
    assert logistic(flat, ["a", "b", "b", "b"], flat)[0] == {"a": 0.25, "b": 0.75}
    np.testing.assert_allclose(ridge(flat, np.array([1.0, 2, 3, 6]), flat), 3.0)
    seen = rng.normal(size=(40, 3))
    np.testing.assert_allclose(ridge(seen, seen @ [1, 2, 3], seen), seen @ [1, 2, 3], atol=0.5)
    predictions = logistic(seen, ["up" if row[0] > 0 else "down" for row in seen], seen)
    right = [(row["up"] > 0.5) == (s[0] > 0) for row, s in zip(predictions, seen, strict=True)]
    assert np.mean(right) > 0.9


def test_the_usual_report_is_one_of_the_training_split() -> None:
    texts = [Phantom(subjects=3)[i]["description"] for i in range(12)]
    assert usual_report(FACTS, 3) in texts


def test_no_job_stands_before_one_that_it_waits_for(tmp_path: Path) -> None:
    from sensorium.scripts.benchmarks.mri.benchmark import Job, jobs_of, work

    known: set[str] = set()
    for name, job in jobs_of(Bench(tmp_path), (0.1, 1.0)).items():
        assert known.issuperset(job.after), name
        known.add(name)
    assert len(known) == 5 + 3 + 4 * 2 + 2  # stages and features, heads, the network from nothing
    done: list[int] = []
    work({"a": Job(partial(done.append, 1)), "b": Job(partial(done.append, 2), ("a",))}, 1)
    assert done == [1, 2]


@pytest.mark.slow
def test_the_whole_way_at_a_tiny_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sensorium.scripts.benchmarks.mri import benchmark

    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    tiny: dict[str, Any] = {
        "subjects": 8, "held": 4, "seen": 8, "effort": 0.01,
        "steps": ["dino=2", "align=2", "align_grounded=2", "report=2", "nothing=6"],
        "batch": 4, "share": [0.5, 1.0], "resamples": 50,
        "encoder": ["dim=48", "depth=2", "heads=2"],
    }  # fmt: skip
    for jobs in (2, 1):  # the second time all is read
        benchmark.main(tmp_path / "runs", **tiny, slices=None, split="test", jobs=jobs)
    first, second = capsys.readouterr().out.split("`python -m")[1:]
    assert first.count("| 50 % | frozen") == 3 and "| chance |" in first
    assert "generated" in first and "KiB" in first
    assert first.splitlines()[1:] == second.splitlines()[1:]
