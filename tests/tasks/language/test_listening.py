"""Speaking while listening: no look-ahead, zero maps, and a cue that ends the turn in time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.backbones.base import Backbone
from sensorium.connectors.projectors import Linear
from sensorium.connectors.resampler import Resampler
from sensorium.connectors.shorteners import FrameStack
from sensorium.engine.model.checks import check_encoder_support
from sensorium.engine.utils import ConfigError
from sensorium.modalities.audio.encoders.logmel_conformer import LogMelConformer
from sensorium.modalities.audio.read import Sound
from sensorium.modalities.base import Encoder, Features
from sensorium.tasks.language.listening import Listening, TurnMetrics
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.testing.task_builder import Letters
from sensorium.tests.tasks.language.test_signal_generation import codes_of
from sensorium.tests.tasks.language.tiny import GPT2, backbone_of

FUSIONS = ("early", "middle", "late")
STEPS = 12


def made(fusion: Any) -> tuple[Listening, Backbone]:
    backbone = backbone_of("causal", GPT2)
    task = Listening(speak="speech", listen="sound", fusion=fusion, max_new_tokens=STEPS + 4)
    task.signal_tokenizers = {"speech": Letters()}
    task.build({}, {"backbone": backbone})
    return task, backbone


def heard(stops: list[int | None], width: int = 16) -> Features:
    """Silence, and one loud token at the cue."""
    tokens = torch.zeros(len(stops), STEPS + 4, width)
    for row, stop in enumerate(stops):
        if stop is not None:
            tokens[row, stop] = 3.0
    return Features.dense(tokens)


def speech(count: int) -> Features:
    return codes_of([[(row + k) % 4 for k in range(STEPS)] for row in range(count)])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_zero_maps_change_nothing_and_nothing_is_heard_early(fusion: str) -> None:
    task, backbone = made(fusion)
    ids = speech(2).codes + task.first  # type: ignore[operator]
    mask = torch.ones_like(ids, dtype=torch.bool)
    silence, sound = heard([None, None]), heard([6, 6])
    with torch.no_grad():
        for layer in task.maps:
            torch.nn.init.zeros_(layer.weight)
        plain = task.hidden(backbone, ids, mask, silence)
        assert torch.equal(task.hidden(backbone, ids, mask, sound), plain)
        for layer in task.maps:
            torch.nn.init.normal_(layer.weight)
        before, after = (task.hidden(backbone, ids, mask, h) for h in (silence, sound))
    torch.testing.assert_close(before[:, :6], after[:, :6], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 6], after[:, 6])
    later = not torch.allclose(before[:, 7:], after[:, 7:])
    assert later == (fusion != "late")  # late: a cue is heard at its own step alone


SMALL: dict[str, Any] = {"dim": 16, "heads": 2, "depth": 1, "mels": 20, "normalize": "fixed"}


@pytest.mark.parametrize("causal", [True, False])
def test_of_sound_nothing_is_heard_early_by_a_causal_encoder_alone(causal: bool) -> None:
    """From the sound itself: another second half changes no state of the first steps, unless the
    encoder looks ahead."""
    task, backbone = made("early")
    torch.manual_seed(0)
    encoder = LogMelConformer(**SMALL, causal=causal).eval()
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 9600)).astype(np.float32)
    other = sound.copy()
    other[:, 4800:] *= 5
    ids = speech(1).codes + task.first  # type: ignore[operator]
    with torch.no_grad():
        before, after = (
            task.hidden(backbone, ids, torch.ones_like(ids, dtype=torch.bool), features)
            for features in (encoder(**_batch(encoder, wave)) for wave in (sound, other))
        )
    steps = int(0.3 / encoder.step)  # 4800 samples
    assert torch.allclose(before[:, :steps], after[:, :steps], atol=1e-5) == causal
    assert not torch.allclose(before[:, steps:], after[:, steps:], atol=1e-3)


def _batch(encoder: Encoder, samples: np.ndarray) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.processor.prepare(Sound(samples, 16000))])


@pytest.mark.parametrize(
    ("causal", "connector", "words"),
    [
        (
            False,
            Linear(16, 16),
            r"speak: needs causal of inputs\.sound\.encoder, and logmel_confor",
        ),
        (
            True,
            Resampler(16, 16, queries=4),
            r"needs causal of inputs\.sound\.connector, and resamp",
        ),
        (True, Linear(16, 16), None),
        (True, FrameStack(16, 16), None),
        (True, None, None),
    ],
)
def test_what_looks_ahead_is_refused_by_name(
    causal: bool, connector: Any, words: str | None
) -> None:
    parts = {"encoder": "logmel_conformer", "connector": "resampler"}
    sections = {k: SimpleNamespace(section=SimpleNamespace(type=t)) for k, t in parts.items()}
    plan: Any = SimpleNamespace(
        streams={"sound": SimpleNamespace(**sections)},
        tasks={"speak": SimpleNamespace(task=Listening(speak="speech", listen="sound"))},
    )
    encoder = LogMelConformer(**SMALL, causal=causal)
    stream: Any = SimpleNamespace(encoder=encoder, connector=connector, connector_layers=())
    if words is None:
        return check_encoder_support(plan, "sound", stream)
    with pytest.raises(ConfigError, match=words):
        check_encoder_support(plan, "sound", stream)
    return None


def test_a_mean_of_the_whole_sound_is_no_causal_encoder() -> None:
    with pytest.raises(ValueError, match=r"takes the mean of the whole sound.*normalize: fixed"):
        LogMelConformer(causal=True)


def test_tokens_of_another_length_are_refused() -> None:
    task, backbone = made("late")
    places: dict[str, Any] = {"grid": (STEPS,), "origin": (0.0,)}
    spoken = speech(1).replace(**places, spacing=(0.02,))
    sound = Features.dense(torch.zeros(1, STEPS, 16), **places, spacing=(0.04,))
    context = StubContext({"speech": spoken, "sound": sound}).on(backbone)
    batch = prepare_batch(task, [{"stop": None}], decoder=backbone)
    with pytest.raises(ValueError, match=r"inputs.sound lasts 0.04 s, one of inputs.speech 0.02 s"):
        task.loss(batch, context)


def test_the_target_ends_with_the_turn_or_the_end() -> None:
    task, backbone = made("late")
    rows = [{"stop": 3}, {"stop": None}, {"stop": 99}]
    context = StubContext({"speech": speech(3)}).on(backbone)
    ids, mask = task.target(prepare_batch(task, rows, decoder=backbone), context)
    assert mask.sum(1).tolist() == [4, STEPS + 1, STEPS + 1]
    eos = backbone.tokenizer.eos_id
    assert [int(ids[r, n - 1]) for r, n in enumerate(mask.sum(1))] == [task.turn, eos, eos]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_cue_ends_the_turn_in_time_and_silence_does_not(fusion: str) -> None:
    """At steps of the cue that training never had, within 2 steps; without the sound, never."""
    task, backbone = made(fusion)
    stops: list[int | None] = [2, 3, 5, 8, 9, 11, None, None]
    context = StubContext({"speech": speech(8), "sound": heard(stops)}).on(backbone)
    batch = prepare_batch(task, [{"stop": s} for s in stops], decoder=backbone)
    trained = [*backbone.parameters(), *task.parameters()]
    optimizer = torch.optim.Adam([p for p in trained if p.requires_grad], lr=1e-2)
    for _ in range(80):
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    new: list[int | None] = [4, 6, 7, 10]
    test = prepare_batch(task, [{"stop": s} for s in new], decoder=backbone)
    metrics = TurnMetrics(patience=2)
    with torch.no_grad():
        rows = task.predict(test, StubContext({"sound": heard(new)}).on(backbone))
        silent = task.predict(test, StubContext({"sound": heard([None] * 4)}).on(backbone))
    metrics.update(rows, test.references)
    scores = metrics.compute()
    assert scores["stopped"] == 1 and scores["false_stops"] == 0 and scores["delay"] <= 2
    assert all(row["turn"] is None for row in silent)


def test_the_metrics_count_turns() -> None:
    metrics = TurnMetrics(patience=2)
    turns = [5, 9, 1, None, 3]
    metrics.update([{"turn": t} for t in turns], [{"stop": s} for s in (4, 4, 4, 4, -1)])
    assert metrics.compute() == {"false_stops": 0.4, "stopped": 0.25, "delay": 3.0}


@pytest.mark.parametrize("step", [-1, 2.5, True])
def test_a_step_must_be_one(step: Any) -> None:
    task, backbone = made("late")
    with pytest.raises(ValueError, match=r"stop: found .*, expected a step from 0, or null"):
        prepare_batch(task, [{"stop": step}], decoder=backbone)


def test_what_is_spoken_is_not_what_is_heard() -> None:
    with pytest.raises(ValueError, match="listen: is 'a', what is spoken"):
        Listening(speak="a", listen="a")
