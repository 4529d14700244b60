"""`train_only` and `lora`: which parameters train, beside what the libraries say."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import nn

from sensorium.engine.model import build
from sensorium.engine.model.parameters import apply_adapters
from sensorium.engine.recipe import ComponentSpec, Section, parse_recipe, registered
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Encoder

WHERE = "inputs.image.encoder"


class Mixed(Encoder):
    """Every kind of layer that a selector knows."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 8
        self.words, self.places = nn.Embedding(5, 8), nn.Embedding(4, 8)
        self.stack = nn.ModuleList([Layer(), Layer(), Layer()])
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 5)
        self.out.weight = self.words.weight

    def blocks(self) -> list[nn.Module]:
        return list(self.stack)


class ScaleNorm(nn.Module):
    """A normalization that is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map, self.norm = nn.Linear(8, 8), ScaleNorm()


def adapted(**section: Any) -> Mixed:
    module = Mixed()
    result = Section.model_validate({"type": f"{__name__}:Mixed", **section})
    apply_adapters(module, ComponentSpec(WHERE, result, Mixed, {}), WHERE)
    return module


def trained(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def every_other(module: nn.Module, *, start: int = 0) -> list[str]:
    """A selector of one's own."""
    return [name for name, _ in module.named_parameters()][start::2]


NAMES = [name for name, _ in Mixed().named_parameters()]
SELECTED: dict[str, tuple[Any, set[str]]] = {
    "bias": ("bias", {n for n in NAMES if n.endswith("bias")}),
    "embeddings": ("embeddings", {"words.weight", "places.weight"}),
    "norms": ("norms", {n for n in NAMES if "norm" in n}),
    "layers": ({"layers": [0, -1]}, {n for n in NAMES if n.startswith(("stack.0", "stack.2"))}),
    "pattern": ({"pattern": r"^stack\.1\.map"}, {"stack.1.map.weight", "stack.1.map.bias"}),
    "type": ({"type": "bias"}, {n for n in NAMES if n.endswith("bias")}),
    "plug-in": (f"{__name__}:every_other", set(NAMES[::2])),
    "plug-in's option": ({"type": f"{__name__}:every_other", "start": 1}, set(NAMES[1::2])),
}


def test_every_selector_is_in_the_table() -> None:
    assert set(registered("selector")) <= set(SELECTED)


@pytest.mark.parametrize("name", SELECTED)
def test_a_selector_trains_what_it_names(name: str) -> None:
    section, expected = SELECTED[name]
    assert trained(adapted(train_only=section)) == expected


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("biass", r"train_only: no selector is called 'biass'.*'bias'"),
        ({"layer": [0]}, r"train_only: found layer, expected one selector.*'layers'"),
        ({"layers": [3]}, r"train_only\.layers: found 3; Mixed has 3"),
        ({"layers": 1}, r"train_only\.layers: found 1 \(int\), expected list\[int\]"),
        ({"layers": [0], "top": 3}, r"train_only\.top: layers has no such option"),
        ({"pattern": "("}, r"train_only\.pattern: '\(' is no regular expression"),
        ({"pattern": "query"}, r"train_only: pattern selects no parameter of Mixed.*words\.weight"),
        ({}, r"train_only: found nothing, expected one selector"),
    ],
)
def test_a_wrong_selector_is_one_line(section: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=rf"^inputs\.image\.encoder\.{line}") as refused:
        adapted(train_only=section)
    assert "\n" not in str(refused.value)


def test_embeddings_of_a_language_model_train_alone(runner: Any) -> None:
    recipe = runner.both({"backbone": {"train_only": "embeddings"}})
    model = build(parse_recipe(recipe)).decoders["backbone"]
    (name,) = trained(model)
    assert name.endswith("embed_tokens.weight")


ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"r": 2},
    "adalora": {"total_step": 10},
    "boft": {"boft_block_size": 4},
    "hra": {"r": 2},
    "ia3": {"feedforward_modules": []},
    "loha": {"r": 2},
    "lokr": {"r": 2},
    "oft": {"oft_block_size": 4, "r": 0},
    "randlora": {"r": 2},
}


@pytest.mark.filterwarnings("ignore")  # of peft's, about kernels
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_peft_method_is_found_by_its_name(name: str) -> None:
    module = adapted(lora={"type": name, **ADAPTERS[name]})
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(name.upper())]
    tuner = peft.PEFT_TYPE_TO_TUNER_MAPPING[peft.PeftType(name.upper())]
    assert trained(module) and all(tuner.prefix in n for n in trained(module)), config
    assert all(name.startswith("stack.") for name in trained(module))


def test_target_modules_may_be_named() -> None:
    module = adapted(lora={"r": 2, "target_modules": ["out"]})
    assert all(name.startswith("out.lora_") for name in trained(module))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"type": "loraa"}, r"lora\.type: peft has no adapter 'loraa'.*'lora'"),
        ({"lora_alpa": 2}, r"lora\.lora_alpa: LoraConfig has no such option.*'lora_alpha'"),
        ({"r": "many"}, r"lora\.r: found 'many' \(str\), expected int"),
        ({"r": 2, "lora_alpha": 0}, r"lora\.lora_alpha: found 0, expected above 0"),
        ({"r": 2, "layers_to_transform": [0]}, r"lora\.layers_to_transform: has an effect only"),
        ({"r": 2, "rank_pattern": {"q_prj": 4}}, r"lora\.rank_pattern\.q_prj: names no adapted"),
        ({"r": 2, "alpha_pattern": {"q_prj": 4}}, r"lora\.alpha_pattern\.q_prj: names no adapted"),
        ({"r": 2, "rank_pattern": [4]}, r"lora\.rank_pattern: found \[4\]"),
        ({"r": 2, "init_lora_weights": "gausian"}, r"lora\.init_lora_weights: .*'gaussian'"),
        ({"r": 0}, r"lora: .*`r` should be a positive integer"),
        ({"type": "prefix_tuning"}, r"lora: .*prompt learning"),
        ({"type": "xlora"}, r"lora: "),
    ],
)
def test_a_wrong_adapter_is_one_line(section: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=rf"^inputs\.image\.encoder\.{line}") as refused:
        adapted(lora=section)
    assert "\n" not in str(refused.value)
