"""CTC as a task: what is learned, what is refused, what heads in between and hints change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.connectors.projectors import Linear
from sensorium.modalities.base import Features
from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.tokenizers import BPE
from sensorium.tasks.batch import Batch
from sensorium.tasks.speech.conditions import CategoryEncoder
from sensorium.tasks.speech.ctc import CTC
from sensorium.tasks.speech.lexicon import Lexicon
from sensorium.testing.context import StubContext, prepare_batch

DIM, STEP = 6, 0.04
ROWS = [{"text": "go", "language": "en"}, {"text": "see", "language": "de"}]


def build(rows: list[dict[str, Any]] = ROWS, **options: Any) -> CTC:
    torch.manual_seed(0)
    tokenizer, conditions, words = Characters(), CategoryEncoder(), Lexicon()
    task = CTC(tokenizer=tokenizer, condition_encoder=conditions, lexicon_words=words, **options)
    tokenizer.fit([text for row in rows for text in task.fit_examples("tokenizer", row)])
    conditions.fit(rows)
    words.fit([text for row in rows for text in task.fit_examples("lexicon_words", row)])
    task.build({"audio": DIM, "audio.encoder": DIM}, {})
    task.heads["head"] = Linear(DIM, task.head_uses["head"].out_dim)
    return task


def batch(task: CTC, rows: list[dict[str, Any]] = ROWS) -> Batch:
    return prepare_batch(task, rows, [f"row {i}" for i in range(len(rows))])


class Layered(StubContext):
    """`encode` over two layers with hooks behind each; remembers what it was asked."""

    def __init__(self, lengths: list[int], seed: int = 0) -> None:
        super().__init__(self.run)
        torch.manual_seed(seed)
        self.tokens = torch.randn(len(lengths), max(lengths), DIM)
        self.mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        self.layers = [nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)]
        self.options: list[dict[str, Any]] = []

    def run(
        self,
        stream: str,
        view: str = "main",
        layer_hooks: Mapping[int, Callable[[Tensor, Tensor], Tensor]] | None = None,
        **options: Any,
    ) -> Features:
        self.options.append(options)
        if stream.endswith(".encoder") and len(self.options) % 2 == 0:
            layer_hooks = None  # a stream runs once, and its hooks too
        tokens = self.tokens
        for place, layer in enumerate(self.layers):
            tokens = torch.tanh(layer(tokens))
            if layer_hooks and place in layer_hooks:
                tokens = layer_hooks[place](tokens, self.mask)
        return Features(
            tokens, self.mask, grid=(tokens.shape[1],), spacing=(STEP,), origin=(STEP / 2,)
        )


def encode(lengths: list[int]) -> Layered:
    return Layered(lengths)


def test_the_loss_is_torchs_own() -> None:
    task, heard = build(), encode([9, 6])
    result = task.loss(batch(task), heard)
    log_probs = task.heads["head"](heard("audio")).tokens.log_softmax(-1).transpose(0, 1)
    ids = [task.tokenizer.encode(row["text"]) for row in ROWS]
    known = F.ctc_loss(
        log_probs,
        torch.tensor([i for row in ids for i in row]),
        torch.tensor([9, 6]),
        torch.tensor([2, 3]),
        blank=task.blank,
        reduction="sum",
    )
    torch.testing.assert_close(result.total, known)
    assert result.count == 5


@pytest.mark.parametrize("lengths", [[9, 3], [1, 3], [1, 9]])
def test_rows_that_need_more_frames_are_failed_by_name(lengths: list[int]) -> None:
    """`see` needs four frames: three letters, and a blank within the pair."""
    task = build()
    result = task.loss(batch(task), encode(lengths))
    bad = [
        i for i, (length, needed) in enumerate(zip(lengths, (2, 4), strict=True)) if length < needed
    ]
    assert [key for key, _ in result.failed] == [f"row {i}" for i in bad]
    if 1 in bad:
        assert result.failed[-1][1].startswith(
            "target: longer than the frames allow; 'see' needs 4 (3 tokens, 1 repeats), "
            "the signal has "
        )
    assert result.count == sum(len(row["text"]) for i, row in enumerate(ROWS) if i not in bad)
    result.total.backward()
    assert result.total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


def test_a_failed_row_leaves_the_others_alone() -> None:
    task, heard = build(), Layered([9, 3])
    both = task.loss(batch(task), heard)
    alone = Layered([9, 3])
    alone.tokens, alone.mask, alone.layers = heard.tokens[:1], heard.mask[:1], heard.layers
    torch.testing.assert_close(both.total, task.loss(batch(task, ROWS[:1]), alone).total)


def test_a_letter_that_training_lacked_fails_its_row_but_not_its_metrics() -> None:
    task, row = build(), {"text": "stop"}
    with pytest.raises(ValueError, match="'p', 't', which none of the 4"):
        batch(task, [row])
    held_out = prepare_batch(task, [row], training=False)
    assert held_out.references == [{"text": "stop"}] and "ids" not in held_out.labels


def test_an_empty_transcript_is_refused_or_learned_as_silence() -> None:
    with pytest.raises(ValueError, match="target: the transcript is empty; leave the row out"):
        batch(build(), [{"text": " "}])
    task = build(allow_empty=True)
    rows = [{"text": ""}, {"text": "go"}]
    result = task.loss(batch(task, rows), encode([5, 5]))
    assert result.total.isfinite() and result.count == 3 and not result.failed


def test_a_row_without_a_transcript_can_be_read_and_not_learned() -> None:
    task = build()
    requested = batch(task, [{}, {}])
    assert all(set(row) == {"text"} for row in task.predict(requested, encode([5, 3])))
    with pytest.raises(ValueError, match="row 'row 0': has no text; add the columns"):
        task.loss(requested, encode([5, 3]))


def test_half_precision_does_not_reach_the_loss() -> None:
    task, heard = build(), encode([9, 6])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = task.loss(batch(task), heard)
    assert result.total.dtype == torch.float32
    torch.testing.assert_close(result.total, task.loss(batch(task), heard).total, rtol=0.05, atol=0)


def test_heads_in_between_share_the_loss() -> None:
    heard = Layered([9, 6])
    plain, task = build(), build(interctc_layers=[0], interctc_weight=0.25)
    assert task.streams["audio"].supports == {"layer_hooks"}
    assert not plain.streams["audio"].supports
    task.heads.load_state_dict(plain.heads.state_dict())
    for parameter in task.between.back.parameters():
        nn.init.zeros_(parameter)
    result = task.loss(batch(task), heard)
    last = plain.loss(batch(plain), Layered([9, 6])).total  # the encoder is the plain one
    torch.testing.assert_close(result.total, 0.75 * last + 0.25 * result.parts["interctc"])
    task.loss(batch(task), heard).total.backward()
    assert all(p.grad is not None for p in task.parameters())


def test_what_a_head_in_between_reads_reaches_the_layers_after_it() -> None:
    task = build(interctc_layers=[0])
    silent = build(interctc_layers=[0])
    nn.init.zeros_(silent.between.back.weight), nn.init.zeros_(silent.between.back.bias)
    requested = batch(task)
    ours, _ = task._features(requested, encode([9, 6]), [])
    theirs, _ = silent._features(requested, encode([9, 6]), [])
    assert not torch.allclose(ours.tokens, theirs.tokens)


def test_hints_are_told_to_a_part_of_the_rows_and_read_when_given() -> None:
    task = build(condition=["language"], condition_prob=0.5)
    requested = batch(task, ROWS * 200)
    assert requested.references[0]["condition"] == {"language": 2}
    messages = task.train()._conditions(requested)[:, 0]
    assert 0.4 < (messages > 0).float().mean() < 0.6
    assert (task.eval()._conditions(requested)[:, 0] > 0).all()
    unknown = batch(task, [{"text": "go"}] * 4)
    assert (task._conditions(unknown) == 0).all()
    with pytest.raises(ValueError, match="'fr' in the column 'language' was not in the training"):
        batch(task, [{"text": "go", "language": "fr"}])


def test_a_hint_changes_what_is_heard() -> None:
    task = build(condition=["language"]).eval()
    heard = Layered([9, 6])
    one = task._features(batch(task), heard, [])[0].tokens
    requested = batch(task, [dict(row, language="en") for row in ROWS])
    other = task._features(requested, heard, [])[0].tokens
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1][:6], other[1][:6])


def test_conditions_that_changed_are_refused() -> None:
    fitted = CategoryEncoder()
    fitted.set_columns(["language"])
    fitted.fit(ROWS)
    other = CategoryEncoder()
    other.set_columns(["task"])
    with pytest.raises(ValueError, match="fitted on language, the task names task"):
        other.load_state(fitted.state())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"interctc_weight": 1.0}, "interctc_weight: found 1.0"),
        ({"condition_prob": 1.5}, "condition_prob: found 1.5"),
        ({"overlap": 1.0}, "overlap: found 1.0"),
        ({"interctc_layers": [1, 1]}, "interctc_layers: found"),
        ({"window": 2}, "window: found 2"),
        ({"beam": 0}, "beam: found 0, expected at least 1"),
        ({"lexicon": True}, "beam: found 1, expected at least 2 with a lexicon"),
        ({"target": "<audio>"}, "target: '<audio>' must be made of columns"),
        ({"target": "always"}, "target: 'always' must be made of columns"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        build(**options)


def test_a_lexicon_gives_words_of_training_alone() -> None:
    rows = [{"text": "go see"}, {"text": "sea"}]
    task = build(rows, beam=8, lexicon=True)
    for seed in range(5):
        result = task.predict(batch(task, rows), Layered([12, 7], seed))
        assert {word for row in result for word in row["text"].split()} <= {"go", "see", "sea"}


def test_a_lexicon_that_cannot_be_spelled_is_refused_before_training() -> None:
    tokenizer, words = BPE(size=300), Lexicon()
    task = CTC(
        tokenizer=tokenizer,
        condition_encoder=CategoryEncoder(),
        lexicon_words=words,
        beam=2,
        lexicon=True,
    )
    tokenizer.fit(["go on and on"] * 4)
    words.fit(["go on"])
    with pytest.raises(ValueError, match="lexicon: needs a tokenizer that spells"):
        task.build({"audio": DIM, "audio.encoder": DIM}, {})
