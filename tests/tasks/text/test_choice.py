"""Choice by likelihood, control prefixes, and further measures of texts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sensorium.tasks.text import Captioning
from sensorium.tasks.text.choice import Choice, ChoiceMetrics
from sensorium.tasks.text.text_metrics import TEXT_METRICS
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.language.tiny import GPT2, backbone_of

ROWS = [
    {"text": "The nurse lost", "answer": "her keys"},
    {"text": "The pilot said that", "answer": " his coat"},
    {"text": "A", "answer": 1},
]
CHOICES = [" his coat", " her keys", " {text}"]


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return backbone_of("causal", GPT2, attn="eager")


def predictions_of(gpt2: Any, rows: Any = ROWS, **options: Any) -> Any:
    task = Choice(prompt="{text}", choices=CHOICES, **options)
    batch = prepare_batch(task, rows, decoder=gpt2, training=False)
    return task, batch, task.predict(batch, StubContext({}).on(gpt2))


def test_scores_are_sums_and_means_of_log_probabilities(gpt2: Any) -> None:
    """Those of the library, of each continuation behind its prompt."""
    _, _, predictions = predictions_of(gpt2)
    for row, prediction in zip(ROWS, predictions, strict=True):
        prompt = gpt2.tokenizer.encode(row["text"])
        for number, choice in enumerate(CHOICES):
            ids = gpt2.tokenizer.encode(choice.format(text=row["text"]))
            first = gpt2.tokenizer.bos_id
            whole = torch.tensor([[first, *prompt, *ids]])
            logits = gpt2.model(input_ids=whole).logits[0].detach().log_softmax(-1)
            places = range(len(prompt), whole.shape[1] - 1)
            expected = sum(float(logits[p, whole[0, p + 1]]) for p in places)
            assert prediction["sum"][number] == pytest.approx(expected, rel=1e-4)
            assert prediction["mean"][number] == pytest.approx(expected / len(ids), rel=1e-4)
        best = max(range(3), key=prediction["sum"].__getitem__)
        assert prediction["choice"] == best


def test_the_loss_is_that_of_the_right_continuation(gpt2: Any) -> None:
    task, batch, predictions = predictions_of(gpt2)
    assert batch.labels["right"].tolist() == [1, 0, 1]
    loss = task.loss(batch, StubContext({}).on(gpt2))
    scores = [p["sum"][r] for p, r in zip(predictions, [1, 0, 1], strict=True)]
    assert float(loss.total.detach()) == pytest.approx(-sum(scores), rel=1e-4)
    assert int(loss.count) == 3 * len(" his coat")


def test_a_mean_does_not_favour_the_short_one() -> None:
    metrics = ChoiceMetrics(2)
    scores = {"sum": [-2.0, -3.0], "mean": [-2.0, -0.5]}
    metrics.update([{**scores, "choice": 1}, {**scores, "choice": 1}], [{"answer": 1}, {}])
    values = metrics.compute()
    assert (values["accuracy"], values["accuracy_sum"], values["accuracy_mean"]) == (1, 0, 1)
    assert values["chance"] == 0.5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "answer": "their"}, "answer: found 'their', expected one of 'his coat'"),
        ({"text": "a", "answer": 7}, "answer: found 7, expected one of"),
    ],
)
def test_an_answer_that_is_no_choice_is_refused(gpt2: Any, row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        predictions_of(gpt2, [row])
    assert "\n" not in str(error.value)


def test_choices_are_checked() -> None:
    with pytest.raises(ValueError, match="choices: found 1, expected two or more"):
        Choice(prompt="{text}", choices=["a"])
    with pytest.raises(ValueError, match="choices: name a stream"):
        Choice(prompt="{text}", choices=["a", "<image>"])
    with pytest.raises(ValueError, match="source: is what sari compares with"):
        Captioning(prompt="{text}", metrics=["sari"])


def test_a_control_prefix_is_part_of_what_is_written(gpt2: Any) -> None:
    """The rhyme stands before the line, so that it is decided first."""
    task = Captioning(prompt="{title}:", target=" <{rhyme:}> {line}", metrics=["rhyme"])
    row = {"title": "Rain", "rhyme": "night", "line": "a window full of light"}
    batch = prepare_batch(task, [row], decoder=gpt2)
    text = gpt2.tokenizer.decode(batch.labels["target"][0].tolist())
    assert text == " <night> a window full of light"


SOURCE = "About 95 species are currently accepted."
REFERENCES = [
    "About 95 species are currently known.",
    "About 95 species are now accepted.",
    "95 species are now accepted.",
]


def test_measures_are_those_of_their_papers() -> None:
    score = TEXT_METRICS["sari"](["About 95 you now get in."], [REFERENCES], [SOURCE])
    assert score == pytest.approx(26.953602, abs=1e-4)  # of the authors' script
    assert TEXT_METRICS["sari"]([REFERENCES[1]], [[REFERENCES[1]]], [SOURCE]) == pytest.approx(100)
    unchanged = TEXT_METRICS["sari"]([SOURCE], [REFERENCES], [SOURCE])
    assert unchanged < TEXT_METRICS["sari"]([REFERENCES[1]], [REFERENCES], [SOURCE])
    f1 = TEXT_METRICS["token_f1"](["the big cat"], [["a cat", "the cat sat"]], [""])
    assert f1 == pytest.approx(2 / 3)
    assert TEXT_METRICS["chrf"]([SOURCE], [[SOURCE]], [""]) == pytest.approx(1)
    assert TEXT_METRICS["chrf"](["xyz"], [[SOURCE]], [""]) < 0.1


@pytest.mark.parametrize(
    ("line", "reference", "rhymes"),
    [
        ("in the light", "all night,", True),
        ("a stone", "alone", True),
        ("my day", "to stay", True),
        ("in the light", "the lamp", False),
        ("a cat", "a cut", False),
        ("", "night", False),
    ],
)
def test_a_rhyme_is_an_equal_ending(line: str, reference: str, rhymes: bool) -> None:
    assert TEXT_METRICS["rhyme"]([line], [[reference]], [""]) == rhymes


def test_a_task_reports_the_measures_it_names() -> None:
    task = Captioning(prompt="{text}", target="{c}", metrics=["sari", "rhyme"], source="{text}")
    metrics = task.metrics()
    reference = {"references": REFERENCES, "source": SOURCE}
    metrics.update([{"text": "About 95 you now get in."}], [reference])
    values = metrics.compute()
    assert values["sari"] == pytest.approx(26.953602, abs=1e-4)
    assert values["rhyme"] == 0.0 and math.isfinite(values["bleu4"])
