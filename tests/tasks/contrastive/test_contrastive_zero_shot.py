"""Classes told by prompts: open_clip's classifier, and what a recipe may say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.tasks.contrastive.zero_shot import ZeroShot
from sensorium.testing.context import prepare_batch

CLASSES = ["circle", "square", "star"]
TEMPLATES = ["a {}.", "the drawing of a {}", "{}!"]
SAID = {"input": "image", "target": "word", "templates": TEMPLATES}


def embed(stream: str, texts: Sequence[str]) -> Tensor:
    assert stream == "caption"
    return F.normalize(torch.stack([vector(text) for text in texts]), dim=1)


def vector(text: str) -> Tensor:
    return torch.randn(8, generator=torch.Generator().manual_seed(sum(text.encode())))


class Texts(nn.Module):
    """A model and a tokenizer as open_clip wants them: ids are bytes."""

    def encode_text(self, ids: Tensor, normalize: bool = False) -> Tensor:
        texts = [bytes(int(i) for i in row if i).decode() for row in ids]
        return embed("caption", texts)


def tokenizer(texts: list[str]) -> Tensor:
    rows = [torch.tensor(list(text.encode())) for text in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def test_the_classifier_is_open_clips() -> None:
    theirs = open_clip.build_zero_shot_classifier(
        Texts(), tokenizer, CLASSES, [lambda c, t=t: t.format(c) for t in TEMPLATES]
    )
    ours = ZeroShot.read(SAID, ["image", "caption"]).vectors(CLASSES, embed)
    torch.testing.assert_close(ours.T, theirs)


@pytest.mark.parametrize("classes", [None, [*CLASSES, "cross"]])
def test_accuracy_is_the_share_of_rows_nearest_to_their_class(classes: list[str] | None) -> None:
    task = Contrastive(streams=["image", "caption"], zero_shot={**SAID, "classes": classes})
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    labels = [CLASSES[i % 3] for i in range(30)]
    references = prepare_batch(task, [{"word": label} for label in labels]).references
    result = task.dataset_metrics([{"image": row} for row in rows.tolist()], references, embed)
    names = classes or CLASSES
    assert task.zero_shot is not None
    cosines = rows @ task.zero_shot.vectors(names, embed).T
    right = [names[i] == label for i, label in zip(cosines.argmax(1), labels, strict=True)]
    assert result["zero_shot_accuracy"] == pytest.approx(sum(right) / 30)
    assert result["zero_shot_chance"] == pytest.approx(1 / len(names))


def test_a_tie_is_wrong_and_no_label_no_number() -> None:
    zero_shot = ZeroShot.read(SAID, ["image", "caption"])
    rows = torch.randn(4, 8)
    tied = zero_shot.score(rows, ["a", "b", "a", "b"], lambda _, texts: torch.ones(len(texts), 8))
    assert tied["zero_shot_accuracy"] == 0
    assert math.isnan(zero_shot.score(rows, [None] * 4, embed)["zero_shot_accuracy"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"template": ["a {}"]}, "there is no 'template'"),
        ({"target": None}, "zero_shot.target: is required"),
        ({"input": "sound"}, "zero_shot.*'sound'|zero_shot.text: is required"),
        ({"templates": "a {}"}, "zero_shot.templates: found 'a {}', expected a list"),
        ({"templates": ["a dog"]}, "'a dog' must have one {}"),
        ({"classes": []}, "zero_shot.classes"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    section = {k: v for k, v in {**SAID, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=words):
        Contrastive(streams=["image", "caption"], zero_shot=section)


def test_a_class_that_is_not_named_is_refused() -> None:
    zero_shot = ZeroShot.read({**SAID, "classes": CLASSES}, ["image", "caption"])
    with pytest.raises(ValueError, match="a row is of 'dog', which is not among circle"):
        zero_shot.score(torch.randn(1, 8), ["dog"], embed)
