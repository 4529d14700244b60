"""`merge` and `add_language`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import logits, saved, tiny
from transformers import XmodConfig, XmodForMaskedLM, XmodModel

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.model.transforms import apply_steps, convert
from sensorium.engine.model.transforms.context import TransformContext
from sensorium.engine.recipe import parse_recipe, parse_transforms
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.model.transforms.transform_recipes import recipe


def merged(*models: Any, **options: Any) -> Any:
    """The first model, merged with the others."""
    others = {f"m{i}": model for i, model in enumerate(models[1:])}
    step = {"type": "merge", "sources": list(others), **options}
    context = TransformContext(load=others.__getitem__)
    return apply_steps(models[0], parse_transforms(repr([step]), "t"), "t", context)


def weight(model: Any) -> torch.Tensor:
    tensor: torch.Tensor = model.get_input_embeddings().weight.detach().clone()
    return tensor


def ones(model: Any, path: Path, value: float = 1.0) -> str:
    state = {n: torch.full_like(t, value) for n, t in model.named_parameters()}
    save_file(state, path)
    return str(path)


def test_a_mean() -> None:
    a, b, c = (tiny("llama", seed) for seed in range(3))
    expected = (weight(a) + weight(b) + weight(c)) / 3
    torch.testing.assert_close(weight(merged(a, b, c)), expected)
    a, b = tiny("llama", 0), tiny("llama", 1)
    expected = 0.75 * weight(a) + 0.25 * weight(b)
    torch.testing.assert_close(weight(merged(a, b, factors=[3, 1])), expected)


def test_a_model_merged_with_itself_is_itself() -> None:
    before = logits(tiny("bert"))
    assert torch.equal(logits(merged(tiny("bert"), tiny("bert"))), before)
    same = merged(tiny("bert"), tiny("bert", 1), by="task_arithmetic", factors=[0])
    assert torch.equal(logits(same), before)
    one = merged(tiny("bert"), tiny("bert", 1), factors=[1, 0])
    assert torch.equal(logits(one), before)


def test_task_arithmetic_adds_and_takes_away() -> None:
    base, a, b = (weight(tiny("llama", seed)) for seed in range(3))
    models = [tiny("llama", seed) for seed in range(3)]
    result = merged(*models, by="task_arithmetic", factors=[0.5, -1])
    torch.testing.assert_close(weight(result), base + 0.5 * (a - base) - (b - base))
    only = merged(tiny("llama", 0), tiny("llama", 1), by="task_arithmetic")
    torch.testing.assert_close(weight(only), a)


def test_fisher_weights_each_value(tmp_path: Path) -> None:
    a, b = tiny("llama", 0), tiny("llama", 1)
    equal = [ones(a, tmp_path / "a", 1e-30), ones(b, tmp_path / "b", 1e-30)]
    mean = weight(merged(tiny("llama", 0), b))
    torch.testing.assert_close(weight(merged(a, b, by="fisher", fisher=equal)), mean)
    a = tiny("llama", 0)
    state = {n: torch.zeros_like(t) for n, t in b.named_parameters()}
    state["model.embed_tokens.weight"][5] = 2.0
    save_file(state, tmp_path / "only")
    state["model.embed_tokens.weight"][5] = 0.0
    state["model.embed_tokens.weight"][6] = 3.0
    save_file(state, tmp_path / "other")
    files = [str(tmp_path / "only"), str(tmp_path / "other")]
    first, second = weight(a), weight(b)
    result = weight(merged(a, b, by="fisher", fisher=files))
    torch.testing.assert_close(result[5], first[5])
    torch.testing.assert_close(result[6], second[6])
    torch.testing.assert_close(result[7:], (first[7:] + second[7:]) / 2)


@pytest.mark.slow
def test_runs_merge_in_a_recipe(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their adapters merged, their Fisher information from their optimizers; the merged run needs
    neither."""
    (runner.folder / "rows.jsonl").write_text('{"text": "a cat", "answer": "the cat"}\n' * 4)
    monkeypatch.chdir(runner.folder)
    values = recipe()
    values["train"] |= {"steps": 2, "checkpoint": {"every": 1}}
    first = runner.train(values, "first")
    values["train"]["seed"] = 1
    values["backbone"]["lora"] = {"r": 2}
    runner.train(values, "second")
    del values["backbone"]["lora"]
    third = runner.train(values, "third")

    def made(**options: Any) -> Any:
        step = {"type": "merge", "sources": ["second" if not options else "third"], **options}
        part = {"weights": "first", "transforms": [step]}
        return compose(resolve_and_fit(parse_recipe(recipe(part))))

    mean = made()
    name = "model.lm_head.weight"
    second = load_model("second").backbone
    assert second is not None
    first_value, other = first.backbone.state_dict()[name], second.state_dict()[name]
    torch.testing.assert_close(mean.backbone.state_dict()[name], (first_value + other) / 2)
    fisher = made(by="fisher", fisher=["first", "third"]).backbone.state_dict()[name]
    ends = torch.stack([first_value, third.backbone.state_dict()[name]])
    assert bool(((fisher >= ends.amin(0) - 1e-6) & (fisher <= ends.amax(0) + 1e-6)).all())
    assert not torch.allclose(fisher, ends.mean(0))
    save_run(mean, Path("merged"))
    for run in ("first", "second", "third"):
        Path(run).rename(f"gone-{run}")
    again = load_model("merged").backbone
    assert again is not None and torch.equal(
        again.state_dict()[name], mean.backbone.state_dict()[name]
    )


def test_folders_merge(tmp_path: Path) -> None:
    a, b = saved("bert", tmp_path / "a"), saved("bert", tmp_path / "b", seed=1)
    steps = parse_transforms(f"[{{type: merge, sources: ['{b}']}}]", "t")
    model = convert(a, steps, tmp_path / "new")
    again = type(model).from_pretrained(tmp_path / "new")
    expected = (weight(tiny("bert")) + weight(tiny("bert", 1))) / 2
    torch.testing.assert_close(weight(again), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": []}, "found none"),
        ({"by": "median"}, "'mean' | 'fisher'"),
        ({"factors": [1]}, "factors: found 1, expected 2"),
        ({"factors": [1, -1]}, "their sum is 0"),
        ({"by": "fisher"}, "fisher: belongs to by: fisher"),
        ({"by": "fisher", "fisher": ["x"]}, "fisher: found 1, expected 2"),
        ({"by": "fisher", "fisher": ["x", "y"]}, "x is no safetensors file and no run"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merged(tiny("bert"), tiny("bert", 1), **options)
    with pytest.raises(ConfigError, match=r"has .* \(32, 16\), the part \(24, 16\)"):
        merged(tiny("bert"), tiny("bert", vocab_size=32))


# Languages

LANGUAGES = ["en_XX", "de_DE"]


def xmod(family: Any = XmodModel) -> Any:
    config = XmodConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, languages=LANGUAGES,
        default_language="en_XX", adapter_reduction_factor=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return family(config).eval()


def output(model: Any, language: int) -> torch.Tensor:
    ids = torch.tensor([[5, 9, 3], [7, 4, 6]])
    with torch.no_grad():
        hidden: torch.Tensor = model(ids, lang_ids=torch.full((2,), language))[0]
    return hidden


def add(model: Any, **options: Any) -> Any:
    step = {"type": "add_language", "name": "de_CH", **options}
    return apply_steps(model, parse_transforms(repr([step]), "t"), "t", TransformContext())


def test_a_new_language_leaves_the_others_as_they_are() -> None:
    old, model = xmod(), add(xmod(), source="de_DE")
    for language in (0, 1):
        assert torch.equal(output(model, language), output(old, language))
    assert torch.equal(output(model, 2), output(old, 1))
    assert model.config.languages == [*LANGUAGES, "de_CH"]
    # Trained alone, it changes and the others do not.
    trained = [n for n, p in model.named_parameters() if "de_CH" in n]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0)
    model(torch.tensor([[5, 9, 3]]), lang_ids=torch.tensor([2]))[0].square().sum().backward()
    optimizer.step()
    for language in (0, 1):
        assert torch.equal(output(model, language), output(old, language))
    assert not torch.equal(output(model, 2), output(old, 1))


def test_it_may_begin_at_random_and_folders_open(tmp_path: Path) -> None:
    old = xmod(XmodForMaskedLM)
    old.save_pretrained(tmp_path / "old")
    text = "[{type: add_language, name: gsw}, {type: add_language, name: de_CH, source: de_DE}]"
    model = convert(tmp_path / "old", parse_transforms(text, "t"), tmp_path / "new")
    again = XmodForMaskedLM.from_pretrained(tmp_path / "new").eval()
    assert again.config.languages == [*LANGUAGES, "gsw", "de_CH"]
    assert torch.equal(output(again, 1), output(old, 1)) and torch.equal(
        output(again, 3), output(old, 1)
    )
    assert torch.equal(output(again, 2), output(model, 2))
    assert not torch.allclose(output(again, 2), output(old, 0))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (xmod, {"name": "de_DE"}, "is there already"),
        (xmod, {"source": "fr_FR"}, "expected one of en_XX, de_DE"),
        (xmod, {"name": "de.CH"}, "expected a name without a dot"),
        (lambda: tiny("bert"), {}, "has no modules by language"),
    ],
)
def test_a_language_that_does_not_fit(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add(model(), **options)
