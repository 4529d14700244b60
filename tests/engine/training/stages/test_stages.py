"""Stages: overrides of one recipe, run one after the other in one run's folder."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import Tensor

from sensorium.engine.checkpoint import load_model, read_tensors, state
from sensorium.engine.recipe import load_recipe, parse_recipe, stage_recipes
from sensorium.engine.training import Trainer, check
from sensorium.engine.training import train as run
from sensorium.engine.utils import ConfigError, RunLogger, read_metrics

ENCODER, HEAD = "streams.image.encoder.", "tasks.digit.heads.head."


def train(**settings: Any) -> dict[str, Any]:
    return {"train": settings}


def encoder(**keys: Any) -> dict[str, Any]:
    return {"inputs": {"image": {"encoder": keys}}}


def stage(name: str, *changes: dict[str, Any], **keys: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"name": name, **keys}
    for change in changes:
        result |= change
    return result


def staged(shop: Any, *stages: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The recipe of one task, with dropout, noise and a batch norm, in stages."""
    noisy = encoder(dropout=0.3, noise=0.1, norm=True)
    return {**shop.recipe(noisy, train(steps=4, **settings)), "stages": list(stages)}


def warm_up_and_all(shop: Any, **settings: Any) -> dict[str, Any]:
    """The head alone, then the encoder too."""
    head = stage("head", encoder(freeze=True), train(steps=3))
    every = stage("all", train(steps=4, optimizer={"lr": 0.002}))
    return staged(shop, head, every, **settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    result = read_metrics(folder)
    return [{k: v for k, v in line.items() if k != "samples_per_s"} for line in result]


def parts(tensors: Any, prefix: str) -> dict[str, Tensor]:
    return {k: v for k, v in tensors.items() if k.startswith(prefix)}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_each_begins_where_the_last_one_ended(shop: Any) -> None:
    model = shop.train(warm_up_and_all(shop), "run")
    folder = shop.folder / "run"
    first, last = (
        read_tensors(p / "model.safetensors") for p in (folder / "stages/0-head", folder)
    )
    begun = model.state_dict()
    assert equal(parts(begun, ENCODER), parts(last, ENCODER))
    assert not equal(parts(first, HEAD), parts(last, HEAD))
    assert not equal(parts(first, ENCODER), parts(last, ENCODER))
    result = lines(folder)
    assert [line["step"] for line in result] == [*range(1, 8)]
    assert [line["stage"] for line in result] == ["head"] * 3 + ["all"] * 4
    assert not (folder / "stages/0-head/metrics.jsonl").exists()


def test_the_run_and_its_stages_are_models(shop: Any) -> None:
    model = shop.train(warm_up_and_all(shop), "run")
    folder = shop.folder / "run"
    assert equal(load_model(folder).state_dict(), model.state_dict())
    loaded = load_model(folder / "stages/0-head")
    assert equal(loaded.state_dict(), read_tensors(folder / "stages/0-head/model.safetensors"))
    recipe = load_recipe(folder)
    assert recipe.stages == [] and recipe.train.steps == 4
    assert len(load_recipe(folder / "stages").stages) == 2  # what it was made of
    assert not list(folder.glob("stages/1-all/model.safetensors"))


def test_a_stage_without_a_change_is_a_plain_run(shop: Any) -> None:
    recipe = staged(shop, stage("only"))
    shop.train({k: v for k, v in recipe.items() if k != "stages"}, "plain")
    shop.train(recipe, "staged")
    one, other = (lines(shop.folder / name) for name in ("plain", "staged"))
    assert [{k: v for k, v in line.items() if k != "stage"} for line in other] == one


def test_stages_see_rows_in_orders_of_their_own(shop: Any) -> None:
    keys: list[list[str]] = []

    class Watched(Trainer):
        def batches(self) -> Any:
            for batch in super().batches():
                keys.append(batch.keys)
                yield batch

    recipe = staged(shop, stage("one"), stage("two"))
    run(parse_recipe(recipe), shop.folder / "run", show=False, trainer=Watched)
    assert keys[:4] != keys[-4:]


def test_what_was_trained_and_is_frozen_now_is_in_the_model(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other source, the weights it began with, is not what it is any more."""
    shop.train(shop.recipe(train(steps=1)), "before")
    before = str(shop.folder / "before")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: before)
    recipe = staged(shop, stage("all"), stage("head", encoder(freeze=True)))
    weights = {"type": "tiny_parts:Tiny", "weights": "hf-hub:org/before"}
    recipe["inputs"]["image"]["encoder"] = weights
    recipe["inputs"]["image"]["encoder"]["train_only"] = "bias"
    recipe["stages"][1] = stage("head", encoder(freeze=True, train_only=None))
    model = shop.train(recipe, "run")
    loaded = load_model(shop.folder / "run")
    assert equal(loaded.state_dict(), model.state_dict())
    first = read_tensors(shop.folder / "run/stages/0-all/model.safetensors")
    for name, value in parts(first, ENCODER).items():
        assert name.endswith("bias") and torch.equal(loaded.state_dict()[name], value)
    assert load_recipe(shop.folder / "run").inputs["image"].encoder.weights == "none"


@pytest.mark.parametrize("first", [{}, {"lora": {"r": 2}}, {"train_only": "bias"}])
def test_adapters_may_come_later_and_go_on(shop: Any, first: dict[str, Any]) -> None:
    gone = dict.fromkeys(first) if "train_only" in first else {}
    later = stage("later", encoder(**gone, lora={"r": 2}))
    model = shop.train(staged(shop, stage("first", encoder(**first)), later), "run")
    before = read_tensors(shop.folder / "run/stages/0-first/model.safetensors")
    after = model.state_dict()
    for name, value in parts(before, ENCODER).items():
        if "lora_" in name or "norm." in name:  # trains on, or keeps running means
            continue
        target = name if name in after else name.replace(".weight", ".base_layer.weight")
        target = target if target in after else name.replace(".bias", ".base_layer.bias")
        assert torch.equal(after[target], value), name
    assert equal(load_model(shop.folder / "run").state_dict(), after)


def test_parts_may_come_and_go(shop: Any) -> None:
    """A second task with its stream and decoder, after which the first leaves."""
    both = shop.both(train(steps=2))
    new = {k: both[k] for k in ("backbone",)}
    new |= {
        "inputs": {"scan": both["inputs"]["scan"]},
        "tasks": {"caption": both["tasks"]["caption"]},
    }
    last = {"inputs": {"image": None}, "tasks": {"digit": None}}
    recipe = shop.recipe(train(steps=2))
    recipe["stages"] = [
        stage("one"),
        stage("two", new),
        stage("three", {**new, "inputs": {**new["inputs"], **last["inputs"]}}),
    ]
    recipe["stages"][2]["tasks"] = {**new["tasks"], **last["tasks"]}
    model = shop.train(recipe, "run")
    assert set(model.tasks) == {"caption"} and set(model.streams) == {"scan"}
    report = check(parse_recipe(recipe))
    assert list(report.stages) == ["0-one", "1-two", "2-three"]


def test_fitted_parts_are_kept(shop: Any) -> None:
    """The labels of the first stage hold, though the second sees other rows."""
    few = {"tasks": {"digit": {"data": {"train": {"limit": 3}}}}}
    recipe = staged(shop, stage("many"), stage("few", few))
    model = shop.train(recipe, "run")
    labels = [f.state() for f in model.plan.fitted().values()]
    first = load_model(shop.folder / "run/stages/0-many")
    assert labels == [f.state() for f in first.plan.fitted().values()]


def test_a_part_of_another_type_or_with_weights_begins_anew(shop: Any) -> None:
    shop.train(shop.recipe(train(steps=1)), "other")
    other = encoder(weights=str(shop.folder / "other"), freeze=True)
    mlp = {"tasks": {"digit": {"head": "mlp"}}}
    plain = {**shop.recipe(train(steps=2)), "stages": [stage("a"), stage("b", other, mlp)]}
    assert "begins anew: inputs.image.encoder, tasks.digit.head" in str(check(parse_recipe(plain)))
    model = shop.train(plain, "run")
    weights = read_tensors(shop.folder / "other/model.safetensors")
    assert equal(parts(weights, ENCODER), parts(model.state_dict(), ENCODER))


@pytest.mark.parametrize("keep", [True, False])
def test_the_optimizer_is_kept_or_fresh(shop: Any, keep: bool) -> None:
    counts: list[set[float]] = []

    class Watched(Trainer):
        def run(self) -> None:
            for _ in (0, 1):
                states = self.optimizer.optimizer.state.values()
                counts.append({float(values["step"]) for values in states})
                if not len(counts) % 2:
                    return
                super().run()

    recipe = staged(shop, stage("a", train(steps=3)), stage("b", keep_optimizer=keep))
    run(parse_recipe(recipe), shop.folder / "run", show=False, trainer=Watched)
    assert counts == [set(), {3.0}, {3.0} if keep else set(), {7.0} if keep else {4.0}]


KEPT = {"keep_optimizer": True}


def resumable(shop: Any, head: str = "freeze") -> dict[str, Any]:
    """All that a stage hands on: fitted parts, weights, the optimizer, the best weights.

    head: whether the encoder is frozen in the first stage, or trains its `biases` alone.
    """
    alone = {"freeze": True} if head == "freeze" else {"train_only": "bias"}
    held = {"tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}}}
    rule = {"every": 2, "metric": "digit/accuracy"}
    every = encoder(**dict.fromkeys(alone))
    recipe = staged(
        shop,
        stage("head", encoder(**alone), train(steps=3, validate=rule)),
        stage("all", every, **KEPT),
        stage("last", every, train(steps=2), **KEPT),
        checkpoint={"every": 2},
    )
    return dict(shop.changed(recipe, held))


class Killed(BaseException):
    """What nothing catches."""


def die_at(patch: pytest.MonkeyPatch, count: int) -> None:
    """Be gone before the process writes for the `count`th time: a line, a file or tensors."""
    left = iter(range(count, -1, -1))

    def dying(real: Any) -> Any:
        def write(*args: Any, **options: Any) -> Any:
            if not next(left, 1):
                raise Killed
            return real(*args, **options)

        return write

    patch.setattr(state, "save_file", dying(state.save_file))
    patch.setattr(RunLogger, "write", dying(RunLogger.write))
    patch.setattr(Path, "write_text", dying(Path.write_text))


def resumes_after(shop: Any, recipe: dict[str, Any], count: int) -> bool:
    """Die at a write and resume; return whether the run came that far."""
    name = f"killed{count}"
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, count)
        try:
            shop.train(recipe, name)
            return False
        except Killed:
            pass
    folder = shop.folder / name
    begun = (folder / "stages/recipe.yaml").exists() and (folder / "stages/recipe.yaml").read_text()
    shop.train(recipe, name, resume=bool(begun))
    whole = shop.folder / "whole"
    assert lines(folder) == lines(whole), count
    one, other = (read_tensors(p / "model.safetensors") for p in (folder, whole))
    assert equal(one, other), count
    return True


@pytest.mark.parametrize("count", [8, 24, 38])
def test_it_resumes_exactly_wherever_it_was_killed(shop: Any, count: int) -> None:
    recipe = resumable(shop)
    shop.train(recipe, "whole")
    assert resumes_after(shop, recipe, count)


def test_what_was_half_written_is_removed_wherever_it_lies(shop: Any) -> None:
    recipe, folder = resumable(shop), shop.folder / "run"
    shop.train(recipe, "run")
    directories = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert folder / "stages" in directories and len(directories) > 4
    for directory in directories:
        (directory / ".recipe.yaml.0123abcd.part").mkdir()
    shop.train(recipe, "run", resume=True)
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_it_resumes_exactly_from_every_write(shop: Any) -> None:
    recipe = resumable(shop)
    shop.train(recipe, "whole")
    count = 0
    while resumes_after(shop, recipe, count):
        count += 1
    assert count > 45


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_by_a_signal_in_each_stage_it_resumes_exactly(shop: Any, processes: int) -> None:
    recipe = resumable(shop, "biases")
    assert shop.go(recipe, "whole", processes=processes).returncode == 0
    whole = lines(shop.folder / "whole")
    # 3 steps, then 4, then 2; each process counts its own
    for forward in (2, 4, 6, 8, 9) if processes == 1 else (4, 9):
        killed = shop.go(recipe, f"killed{forward}", processes=processes, fault=f"kill@{forward}")
        assert killed.returncode in (-signal.SIGKILL, 1), killed.stderr
        resumed = shop.go(recipe, f"killed{forward}", "--resume", processes=processes)
        assert resumed.returncode == 0, resumed.stderr
        assert lines(shop.folder / f"killed{forward}") == whole


def test_an_early_end_is_not_forgotten(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed behind the checkpoint of the step that ended a stage, it does not go on there."""
    from sensorium.engine.training.validation import Validator

    monkeypatch.setattr(Validator, "run", lambda self, step: step == 2)
    held = {"tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}}}
    early = stage("early", train(steps=6, validate={"every": 2}))
    recipe = shop.changed(staged(shop, early, stage("late"), checkpoint={"every": 2}), held)
    shop.train(recipe, "whole")
    assert [line["step"] for line in lines(shop.folder / "whole")] == [1, 2, 7, 8, 9, 10]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_report_failures", _raise_after(2))
        with pytest.raises(Killed):
            shop.train(recipe, "killed")
    shop.train(recipe, "killed", resume=True)
    assert lines(shop.folder / "killed") == lines(shop.folder / "whole")


def _raise_after(step: int) -> Any:
    real = Trainer._report_failures

    def report(self: Trainer) -> None:
        if self.global_step == step and self.should_stop:
            raise Killed
        real(self)

    return report


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no name": ([{"train": {"steps": 1}}], r"stages\.0\.name: is required"),
    "no folder's name": ([stage("a/b")], r"stages\.0\.name: found 'a/b', expected letters"),
    "keep": ([stage("a", keep_optimizer="x")], r"stages\.0\.keep_optimizer: found 'x' \(str\)"),
    "keep what": ([stage("a", **KEPT)], r"stages\.0\.keep_optimizer: there is no stage before"),
    "keep another": (
        [stage("a"), stage("b", train(optimizer="sgd"), **KEPT)],
        r"stages\.1\.keep_optimizer: the stage before has adamw, this one sgd",
    ),
    "a section": ([stage("a", trian={})], r"stages\.0\.trian: .*did you mean 'train'"),
    "stages": ([stage("a", stages=[])], r"stages\.0\.stages: a stage has no such option"),
    "a key": ([stage("a"), stage("b", train(step=1))], r"stages\.1\.train\.step: .*'steps'"),
    "a value": ([stage("a", train(steps="many"))], r"stages\.0\.train\.steps: found 'many'"),
    "an option": ([stage("a", encoder(dropuot=1))], r"stages\.0\.inputs.image.encoder.dropuot: "),
    "an old name": ([stage("a", train(lr=1))], r"stages\.0\.train\.lr: .*train\.optimizer\.lr now"),
    "what is left": (
        [stage("a", {"tasks": {"digit": None}})],
        r"stages\.0\.tasks: there are none",
    ),
    "nothing trains": (
        [stage("a"), stage("b", encoder(freeze=True), {"tasks": {"digit": {"freeze": True}}})],
        r"stages\.1: train: nothing trains",
    ),
    "another width": (
        [stage("a"), stage("b", encoder(dim=6))],
        r"stages\.1\.inputs\.image\.encoder: the stage before has streams\.image\.encoder\.\S+ "
        r"\(.*this one builds \(.*keep the options",
    ),
    "adapters": (
        [stage("a", encoder(lora={"r": 2})), stage("b")],
        r"stages\.1: inputs\.image\.encoder: .*lora_A.*has no such tensor; keep the options and ad",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_with_its_stage(shop: Any, name: str) -> None:
    stages, line = WRONG[name]
    with pytest.raises(ConfigError, match=f"^{line}") as refused:
        check(parse_recipe({**shop.recipe(), "stages": stages}))
    assert "\n" not in str(refused.value)


def test_check_shows_each_stage(shop: Any) -> None:
    report = check(parse_recipe(warm_up_and_all(shop)))
    text = str(report)
    assert text.index("stage 0-head") < text.index("stage 1-all")
    trained = [
        {c.where: c.trained for c in result.components}["inputs.image.encoder"]
        for result in report.stages.values()
    ]
    assert trained[0] == 0 < trained[1]


def test_a_recipe_with_stages_is_written_back(shop: Any) -> None:
    recipe = parse_recipe(warm_up_and_all(shop))
    again = parse_recipe(recipe.to_dict())
    assert again == recipe
    assert [s.recipe for s in stage_recipes(again)] == [s.recipe for s in stage_recipes(recipe)]
    assert [s.folder for s in stage_recipes(recipe)] == ["0-head", "1-all"]
