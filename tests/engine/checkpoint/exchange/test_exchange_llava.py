"""Checkpoints of LLaVA: they are imported as runs, and runs are exported as them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from sensorium.engine.checkpoint.exchange import export_llava, import_model
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.checkpoint.exchange.exchange_cases import (
    IDS,
    IMAGE,
    ROW,
    TEXT,
    VISION,
    close,
    drawn,
    loaded,
    pictures,
    save_tokenizer,
)


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config=LlamaConfig(**TEXT, **IDS), image_token_index=IMAGE, image_seq_length=4,
    )  # fmt: skip
    folder = tmp_path / "llava"
    drawn(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    side = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side).save_pretrained(folder)
    save_tokenizer(folder, ends=False)
    return folder


def llava_logits(model: Any, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    image = torch.full((len(ids), 4), model.config.image_token_index)
    row = torch.cat([image, ids], 1)
    with torch.no_grad():
        result: torch.Tensor = model(
            input_ids=row, attention_mask=torch.ones_like(row), pixel_values=pixels
        ).logits
    return result


def run_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    stream, backbone = model.stream("image"), model.backbone
    encoder = stream.encoder
    batch = encoder.collate([encoder.processor.prepare(p) for p in pictures(len(ids))])
    with torch.no_grad():
        tokens = stream.run(batch, {}).tokens
        hidden = backbone(torch.cat([tokens, backbone.embed(ids)], 1))
        result: torch.Tensor = backbone.logits(hidden)
    return result


def test_llava(llava: Path, tmp_path: Path) -> None:
    model = loaded("llava", llava, tmp_path / "run")
    theirs = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    pixels = CLIPImageProcessor.from_pretrained(llava)(pictures(2), return_tensors="pt")
    close(run_logits(model, ROW), llava_logits(theirs, pixels["pixel_values"], ROW))
    # And out again.
    export_llava(tmp_path / "run", tmp_path / "out")
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    close(llava_logits(again, pixels["pixel_values"], ROW), run_logits(model, ROW))
    assert again.config.image_token_index == IMAGE
    reread = loaded("llava", tmp_path / "out", tmp_path / "again")
    assert torch.equal(run_logits(reread, ROW), run_logits(model, ROW))


def test_a_run_that_is_no_llava_says_which_part(llava: Path, tmp_path: Path) -> None:
    from sensorium.engine.checkpoint import save_run
    from sensorium.engine.model import compose, resolve_and_fit
    from sensorium.engine.recipe import load_recipe

    import_model("llava", llava, tmp_path / "run")
    values = load_recipe(tmp_path / "run").to_dict()

    def made(name: str, **connector: Any) -> Path:
        changed = {**values, "inputs": {"image": {**values["inputs"]["image"],
                                                  "connector": connector}}}  # fmt: skip
        from sensorium.engine.recipe import parse_recipe

        save_run(compose(resolve_and_fit(parse_recipe(changed))), tmp_path / name)
        return tmp_path / name

    for i, connector in enumerate(
        [{"type": "linear"}, {"type": "mlp", "norm": True}, {"type": "mlp", "hidden": 7}]
    ):
        with pytest.raises(ConfigError, match=r"inputs\.image\.connector.*LLaVA") as error:
            export_llava(made(f"run{i}", **connector), tmp_path / "out")
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_adapters_are_merged_into_an_export(llava: Path, tmp_path: Path) -> None:
    from sensorium.engine.checkpoint import save_run
    from sensorium.engine.model import compose, resolve_and_fit
    from sensorium.engine.recipe import load_recipe, parse_recipe

    import_model("llava", llava, tmp_path / "run")
    values = load_recipe(tmp_path / "run").to_dict()
    for part in (values["inputs"]["image"]["encoder"], values["inputs"]["image"]["connector"],
                 values["backbone"]):  # fmt: skip
        part["weights"] = str(tmp_path / "run")
    values["backbone"]["lora"] = {"r": 2}
    model = compose(resolve_and_fit(parse_recipe(values)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    save_run(model.eval(), tmp_path / "tuned")
    opened = export_llava(tmp_path / "tuned", tmp_path / "out")
    pixels = CLIPImageProcessor.from_pretrained(llava)(pictures(2), return_tensors="pt")
    close(llava_logits(opened, pixels["pixel_values"], ROW), run_logits(model, ROW))
    before = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    assert not torch.allclose(
        llava_logits(opened, pixels["pixel_values"], ROW),
        llava_logits(before, pixels["pixel_values"], ROW),
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [("clip", "holds a llava"), ("siglip", "holds a llava"), ("lava", "did you mean 'llava'"),
     ("sentence-transformers", "modules.json"), ("wav2vec2-ctc", "has no CTC head")],
)  # fmt: skip
def test_a_folder_of_another_kind_is_one_line(
    kind: str, message: str, llava: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        import_model(kind, llava, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="there is no such folder"):
        import_model("clip", tmp_path / "nowhere", tmp_path / "run")
