"""What every task of the catalogue promises, on its own example."""

from __future__ import annotations

import importlib
import inspect
import json
import types
import typing

import numpy as np
import pytest
import torch

from sensorium.connectors import HEADS
from sensorium.modalities.action.tokenizers import ActionTokenizer
from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer
from sensorium.modalities.base import Features, Fittable, Tokenizer
from sensorium.modalities.text.characters import Characters
from sensorium.tasks import TASKS
from sensorium.tasks.base import Task
from sensorium.tasks.uses import BACKBONE
from sensorium.testing.context import StubContext, prepare_batch

HEADS_OF_DINO = {"prototypes": 12, "hidden": 8, "bottleneck": 6, "mask_ratio": (0.6, 1.0)}
OPTIONS: dict[str, list[dict[str, typing.Any]]] = {
    "action_regression": [{"input": "state"}],
    "asr": [{"prompt": "<state> {question}:", "max_new_tokens": 3}, {"prompt": "<image> <state>"}],
    "asr_diffusion": [
        {"prompt": "<image> {question}", "corrected": 0.5},
        {"prompt": "<state> <image> say:", "target": "{said}", "max_passes": 2},
    ],
    "captioning": [
        {"prompt": "<image> {question} Answer:", "max_new_tokens": 3},
        {"prompt": "{x:.1f} <image> <state>", "target": "{caption} {x:d}", "max_new_tokens": 3},
    ],
    "classification": [
        {"input": "image"},
        {"input": "state", "target": "colours", "multi_label": True},
    ],
    "contrastive": [
        {"streams": ["image", "state"], "dim": 16},
        {
            "streams": ["image", "state"],
            "dim": 16,
            "loss": "siglip",
            "group": "study",
            "match": "region",
        },
    ],
    "control": [
        {"prompt": "<image> {instruction} <state>"},
        {"prompt": "<state>", "form": "continuous"},
        {"prompt": "<image>", "form": "fourier", "frequencies": 4},
        {"prompt": "{instruction} <state>", "form": "autoregressive"},
    ],
    "ctc": [{"stream": "image", "text": "{said}"}, {"stream": "state", "silence": True}],
    "dino": [
        {"input": "image", "size": 4, "local_size": 2, "local_crops": 1, **HEADS_OF_DINO},
        {"input": "state", "size": 4, "local_size": 2, "local_crops": 0, **HEADS_OF_DINO},
    ],
    "distill_actions": [
        {"prompt": "<image> {instruction}", "expert": "state", "act": 1.0},
        {"prompt": "<image>", "expert": "state", "act": 1.0, "distance": "cosine"},
    ],
    "distill_embedding": [
        {"student": "image", "teacher": "state"},
        {"student": "state", "teacher": "image", "loss": "cosine", "dim": 16, "group": "text"},
    ],
    "grounded": [
        {"input": "image", "text": "state", "dim": 16},
        {"input": "image", "text": "state", "finding": "f", "about": "a", "group": "study"},
    ],
    "localization": [{"input": "image"}, {"input": "state", "target": "found", "l1": 0.0}],
    "regression": [{"input": "image", "target": "age"}, {"input": "state", "target": ["a", "b"]}],
    "segmentation": [{"input": "image", "mask": "state"}],
}
ENGINE_KEYS = {"type", "freeze", "lora", "lr", "weights", "augment", "schema", "copy", "json"}
CONCRETE: dict[type, type] = {ActionTokenizer: BSplineTokenizer, Tokenizer: Characters}
"""What a recipe would name for an argument that several classes fit."""

GRIDDED = {"grounded", "localization", "segmentation"}
"""Tasks that ask where tokens lie."""

IN_BATCH = {"asr_diffusion", "contrastive", "dino", "grounded"}
"""Tasks whose loss looks at the batch (compares its rows, spreads noise evenly over them): it is
no sum of single rows' losses."""

DECODERS = {
    "asr_diffusion": "sensorium.backbones.diffusion:Diffusion",
    "control": "sensorium.backbones.causal:Causal",
    "distill_actions": "sensorium.backbones.causal:Causal",
}
"""Tasks that want another decoder than the stand-in."""

POINTS = ("", ".encoder")

CASES = [(name, i) for name in TASKS for i in range(len(OPTIONS.get(name, [{}])))]


def class_of(name: str) -> type[Task]:
    module, _, attribute = TASKS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert issubclass(found, Task)
    return found


def fitted_arguments(part: type[Task]) -> dict[str, type[Fittable]]:
    hints = typing.get_type_hints(part.__init__)
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, Fittable)
    }


def build(name: str, case: int) -> tuple[Task, dict[str, Fittable]]:
    part = class_of(name)
    wanted = fitted_arguments(part)
    parts = {argument: CONCRETE.get(kind, kind)() for argument, kind in wanted.items()}
    task = part(**OPTIONS[name][case], **parts)
    for argument, fitted in parts.items():
        rows = task.example_rows()
        fitted.fit([example for row in rows for example in task.fit_examples(argument, row)])
    return task, parts


def head(task: Task, name: str, width: int, make_head: typing.Any) -> torch.nn.Module:
    """A stand-in that ends in a vector; a task that asks for another kind gets that."""
    if task.head_types[name] == "linear":
        return typing.cast(torch.nn.Module, make_head(16, width))
    module, _, attribute = HEADS[task.head_types[name]].partition(":")
    made = getattr(importlib.import_module(module), attribute)(16, width)
    return typing.cast(torch.nn.Module, made)


def decoder(name: str, backbone: typing.Any) -> typing.Any:
    """The decoder that a task wants, 16 wide, with the tokenizer of the stand-in."""
    if name not in DECODERS:
        return backbone
    module, _, attribute = DECODERS[name].partition(":")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    family = getattr(importlib.import_module(module), attribute)
    return family(tokenizer=backbone.tokenizer, name="tiny-llama", options=sizes)


@pytest.fixture(params=CASES, ids=[f"{name}-{i}" for name, i in CASES])
def made(request, make_streams, make_ragged, make_head, backbone):  # type: ignore[no-untyped-def]
    task, _ = build(*request.param)
    torch.manual_seed(0)
    backbone = decoder(request.param[0], backbone)
    widths = {f"{name}{point}": 16 for name in ("image", "state") for point in POINTS}
    task.build(widths, {BACKBONE: backbone})
    for name, use in task.head_uses.items():
        task.heads[name] = head(task, name, use.out_dim, make_head)
    rows = task.example_rows()
    longest = {"image": 5, "state": 4, "mask": 3}
    features = {
        n: make_ragged(len(rows), count, seed=i) for i, (n, count) in enumerate(longest.items())
    }
    if request.param[0] in GRIDDED:
        features = {name: solid(f) for name, f in features.items()}
    batch = prepare_batch(task, rows, decoder=backbone)
    batch.features = dict(features)
    return task, batch, StubContext(features, backbone, teachers_of(task))


def teachers_of(task: Task) -> list[str]:
    return [name for name, use in task.streams.items() if use.role == "teacher"]


def test_views_are_declared(made) -> None:  # type: ignore[no-untyped-def]
    """A stream whose samples the task changes is not taken from a cache."""
    task, _, _ = made
    if type(task).views is Task.views:
        assert not any(use.views for use in task.streams.values())


def test_averages_have_a_decay(made) -> None:  # type: ignore[no-untyped-def]
    task, _, _ = made
    if any(use.ema for use in task.streams.values()) or list(task.ema_modules()):
        assert all(0 <= task.ema_decay(progress) <= 1 for progress in (0.0, 0.5, 1.0))


def solid(features: Features) -> Features:
    """The same tokens as a column of a volume."""
    grid = (features.tokens.shape[1], 1, 1)
    return features.replace(grid=grid, spacing=(2.0,) * 3, origin=(0.5,) * 3)


def test_every_task_has_options_here() -> None:
    assert set(OPTIONS) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_options_are_typed_keywords(name: str) -> None:
    part = class_of(name)
    parameters = dict(inspect.signature(part.__init__).parameters)
    parameters.pop("self")
    hints = typing.get_type_hints(part.__init__)
    assert all(p.kind is p.KEYWORD_ONLY and p.name in hints for p in parameters.values())
    assert not ENGINE_KEYS & set(parameters)
    assert not set(part.head_types) & set(parameters)


def test_the_example_has_the_columns_and_gives_json_references(made) -> None:  # type: ignore[no-untyped-def]
    task, batch, _ = made
    rows = task.example_rows()
    assert len(rows) > 1
    assert all(set(row) >= set(task.columns()) for row in rows)
    assert json.loads(json.dumps(batch.references)) == batch.references
    assert not batch.missing
    assert all(len(label) == len(rows) for label in batch.labels.values())


def test_the_loss_is_a_sum_over_its_count(made) -> None:  # type: ignore[no-untyped-def]
    task, batch, context = made
    whole = task.loss(batch, context)
    assert whole.total.ndim == 0
    assert torch.isfinite(whole.total)
    assert int(whole.count) > 0
    if any(isinstance(task, class_of(name)) for name in IN_BATCH):
        return
    parts = [
        task.loss(prepare_batch(task, [row], decoder=decoder_of(context)), context.rows(i, i + 1))
        for i, row in enumerate(task.example_rows())
    ]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    assert sum(int(p.count) for p in parts) == int(whole.count)
    assert all(set(p.parts) == set(whole.parts) for p in parts)


def test_gradients_reach_the_real_tokens_of_its_streams_alone(made) -> None:  # type: ignore[no-untyped-def]
    task, batch, context = made
    task.loss(batch, context).total.backward()
    for name, features in context.features.items():
        grad = features.tokens.grad
        if name in task.inputs():
            assert torch.equal(grad.abs().sum(-1) > 0, features.mask)
        else:
            assert grad is None
    assert all((p.grad is not None) == p.requires_grad for p in task.parameters())
    reached = any(p.grad is not None for p in decoder_of(context).parameters())
    assert reached == bool(task.decoders)


def test_a_prediction_a_row_that_its_metrics_take(made) -> None:  # type: ignore[no-untyped-def]
    task, batch, context = made
    found = task.eval().predict(batch, context)
    assert len(found) == len(batch)
    assert json.loads(json.dumps(found)) == found
    metrics = task.metrics()
    metrics.update(found, batch.references)
    values = metrics.compute()
    assert values
    assert all(isinstance(value, float) for value in values.values())


def test_it_learns_and_answers_where_its_weights_are(made, accelerator) -> None:  # type: ignore[no-untyped-def]
    """The fake device refuses a tensor that is made elsewhere."""
    task, batch, context = made
    torch.manual_seed(1)
    expected, answers = task.loss(batch, context), task.eval().predict(batch, context)
    there = {name: moved(f, accelerator) for name, f in context.features.items()}
    batch, backbone = batch.to(accelerator), decoder_of(context).to(accelerator)
    task.train().to(accelerator)
    context = StubContext(there, backbone, teachers_of(task))
    torch.manual_seed(1)
    loss = task.loss(batch, context)
    torch.testing.assert_close(loss.total.cpu(), expected.total)
    loss.total.backward()
    assert {p.grad.device for p in task.parameters() if p.grad is not None} <= {accelerator}
    assert len(task.eval().predict(batch, context)) == len(answers)


def moved(features: Features, device: torch.device) -> Features:
    """The same features as leaves of a graph of their own."""
    found = features.replace(tokens=features.tokens.detach()).to(device)
    return found.replace(tokens=found.tokens.requires_grad_())


def test_heads_are_named_beforehand(made) -> None:  # type: ignore[no-untyped-def]
    task, _, _ = made
    assert set(task.head_uses) == set(task.head_types)
    read = {use.stream.partition(".")[0] for use in task.head_uses.values()}
    assert read <= set(task.streams)


def test_a_row_without_targets_can_be_predicted(made) -> None:  # type: ignore[no-untyped-def]
    """Asking about a new signal needs no answer in the data."""
    task, batch, context = made
    asked = {"question": "what?", "instruction": "push it", "x": 2}
    asked_batch = prepare_batch(
        task, [asked] * len(batch), decoder=decoder_of(context), training=False
    )
    asked_batch.features = {name: context.features[name] for name in task.inputs()}
    assert len(task.eval().predict(asked_batch, context)) == len(batch)


def decoder_of(context: StubContext) -> typing.Any:
    return context.decoders[BACKBONE]


def saved(state: typing.Mapping[str, typing.Any]) -> dict[str, typing.Any]:
    """A state as a run's folder gives it back: arrays as safetensors, the rest as JSON."""
    arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    rest = {key: value for key, value in state.items() if key not in arrays}
    return {**json.loads(json.dumps(rest)), **arrays}


@pytest.mark.parametrize(("name", "case"), CASES)
def test_fitted_parts_come_back_from_json(name: str, case: int) -> None:
    task, parts = build(name, case)
    again = {key: type(part)() for key, part in parts.items()}
    other = class_of(name)(**OPTIONS[name][case], **again)
    for key, part in parts.items():
        again[key].load_state(saved(part.state()))
    assert other.head_uses == task.head_uses
    decoder = types.SimpleNamespace(tokenizer=Characters())
    decoder.tokenizer.fit(["".join(map(chr, range(32, 127)))])
    batches = [prepare_batch(t, task.example_rows(), decoder=decoder) for t in (task, other)]
    assert batches[0].references == batches[1].references
    for name, label in batches[0].labels.items():
        assert torch.equal(label, batches[1].labels[name])


def test_losses_run_without_values(made, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A dry run has shapes and no values: nothing may be read back from the device."""
    task, batch, context = made
    backbone = decoder_of(context)
    # The stand-in's GRU walks over real tokens; a real decoder only needs the shapes.
    monkeypatch.setattr(
        backbone,
        "teacher_force",
        lambda context, ids, *_: backbone.embed(ids) + context.mean()[:, None],
    )
    meta = {
        name: f.replace(
            tokens=f.tokens.detach().to("meta").requires_grad_(), mask=f.mask.to("meta")
        )
        for name, f in context.features.items()
    }
    context = StubContext(meta, backbone.to("meta"), teachers_of(task))
    loss = task.to("meta").loss(batch.to("meta"), context)
    assert loss.total.is_meta
    loss.total.backward()
    assert all(meta[stream].tokens.grad is not None for stream in task.inputs())
