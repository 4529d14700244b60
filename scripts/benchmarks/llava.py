"""python -m sensorium.scripts.benchmarks.llava [--rounds 20] [--batch 2] [--new-tokens 32]

A recipe against transformers' `LlavaForConditionalGeneration` on the same weights: a training
step (forward, backward, AdamW; the tower frozen on both sides) and greedy generation, the two
in turn, medians over rounds. Expected: at least 0.95 of its speed, and with the frozen tower's
features from the cache at least 3 times its steps.

Both get a batch that is ready; ours turns its texts into ids within the step. The cached step
reads its features from the store and collates them within the time that is taken.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from sensorium.engine.data import batches, load_split, sequential_batches, task_dataset
from sensorium.engine.model import FeatureCacher, Model, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.modalities.base import Loss
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.scripts.benchmarks.llava_reference import inputs, reference_llava
from sensorium.scripts.benchmarks.timing import Times, machine, timed
from sensorium.tasks.batch import Batch

PROMPT = "<image> Describe the picture:"


def recipe(image: int, patch: int, width: int, layers: int, decoder: int) -> dict[str, Any]:
    """LLaVA as a recipe: a CLIP tower read at its last layer but one, an MLP, a llama."""
    tower = {
        "model_type": "clip_vision_model", "image_size": image, "patch_size": patch,
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
    }  # fmt: skip
    llama = {
        "model_type": "llama", "hidden_size": decoder, "intermediate_size": decoder * 11 // 4,
        "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": Bytes.size + 1,
        "bos_token_id": Bytes.bos_id, "eos_token_id": Bytes.eos_id, "pad_token_id": Bytes.pad_id,
    }  # fmt: skip
    encoder = {"type": "transformers", "config": tower, "layer": -2, "weights": "none"}
    stream = {"modality": "image", "encoder": {**encoder, "freeze": True}, "connector": "mlp"}
    data = {"train": {"source": "shapes", "split": "train", "count": 16}}
    return {
        "inputs": {"image": stream},
        "backbone": {"type": "causal", "config": llama, "tokenizer": "bytes", "weights": "none"},
        "tasks": {"caption": {"type": "captioning", "prompt": PROMPT, "data": data}},
    }


def loader(model: Model, rows: int, stored: bool) -> Iterator[Batch]:
    """Return the engine's batches, over and over, from pictures or from stored features."""
    source = load_split(model.plan, "caption", "train")
    split = task_dataset(model.plan, model.encoders(), "caption", source)
    if stored:
        FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", rows).attach([split])
    addresses = itertools.cycle(sequential_batches(split, rows))
    return batches({"caption": split}, addresses, model.collator())


def stepper(model: torch.nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a training step of a model."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def contest(model: Model, rows: int, new_tokens: int) -> dict[str, Callable[[], object]]:
    """Return the measurements, by name. Raise ValueError if the models differ."""
    batch, cached, llava = (
        next(loader(model, rows, False)),
        loader(model, rows, True),
        reference_llava(model),
    )
    step, prompt = inputs(model, batch)

    def mean(loss: Loss) -> Tensor:
        return loss.total / loss.count

    with torch.no_grad():
        outputs = mean(model(batch)), mean(model(next(cached))), llava(**step).loss
    losses = [float(loss) for loss in outputs]
    if max(losses) - min(losses) > 1e-4:
        raise ValueError(f"the losses of recipe, cached recipe and LLaVA differ: {losses}")
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}
    return {
        "step, transformers": stepper(llava, lambda: llava(**step).loss),
        "step, recipe": stepper(model, lambda: mean(model(batch))),
        "step, recipe, cached": stepper(model, lambda: mean(model(next(cached)))),
        "tokens, transformers": lambda: llava.generate(**prompt, **length),
        "tokens, recipe": lambda: model.predict(batch, **length),
    }


def main(
    rounds: Annotated[int, typer.Option(help="how often each is run")] = 20,
    batch: Annotated[int, typer.Option(help="pictures a step")] = 2,
    new_tokens: Annotated[int, typer.Option(help="tokens generated a picture")] = 32,
    image: Annotated[int, typer.Option(help="px of a picture's side")] = 192,
    patch: Annotated[int, typer.Option(help="px of a patch's side")] = 16,
    width: Annotated[int, typer.Option(help="of the tower; 384 is ViT-S")] = 384,
    layers: Annotated[int, typer.Option(help="of the tower")] = 12,
    decoder: Annotated[int, typer.Option(help="width of the llama, of 4 layers")] = 128,
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
) -> None:
    """Run all in turn; print medians and ratios."""
    values = recipe(image, patch, width, layers, decoder)
    times: dict[str, list[Times]] = {}
    with tempfile.TemporaryDirectory(prefix="sensorium-bench-") as folder:
        os.environ["SENSORIUM_CACHE"] = folder
        runs = contest(compose(resolve_and_fit(parse_recipe(values)), seed=seed), batch, new_tokens)
        for index in range(-2, rounds):  # two rounds warm up; every other goes backwards
            for name in list(runs)[:: -1 if index % 2 else 1]:
                seconds_of = timed(runs[name])
                times.setdefault(name, []).extend([seconds_of] if index >= 0 else [])

    print(f"command   {' '.join(['python -m sensorium.scripts.benchmarks.llava', *sys.argv[1:]])}")
    print(f"hardware  {machine()}")
    print(f"work      tower {layers} x {width}, {image} px; llama 4 x {decoder}; batch {batch};")
    print(f"          {new_tokens} tokens; seed {seed}; medians of {rounds} rounds, run in turn")
    print(f"{'run':<22}{'1 / s':>9}{'ratio':>8}{'1 / CPU s':>11}{'ratio':>8}{'expected':>10}")
    for name, bound in zip(times, ("", ">= 0.95", ">= 3", "", ">= 0.95"), strict=True):
        kind = name.partition(",")[0]
        work = batch * new_tokens if kind == "tokens" else 1
        base, seconds = (middle(times[n]) for n in (f"{kind}, transformers", name))
        wall, cpu = (f"{work / t:>9.2f}{b / t:>8.2f}" for b, t in zip(base, seconds, strict=True))
        print(f"{name:<22}{wall}  {cpu}{bound:>10}")


def middle(times: list[Times]) -> list[float]:
    """Return the medians of both clocks."""
    return [statistics.median(clock) for clock in zip(*times, strict=True)]


if __name__ == "__main__":
    typer.run(main)
