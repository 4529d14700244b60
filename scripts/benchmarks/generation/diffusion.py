"""python -m sensorium.scripts.benchmarks.generation.diffusion [--rounds 20] [--batch 8]

A training step of a recipe's generator (text encoder, connector, U-Net; forward, backward, AdamW)
against the loop that diffusers' own scripts write, on the same modules, batch and noise, in turn.
Expected: at least 0.95 of its speed.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.engine.data import batches, load_split, sequential_batches, task_dataset
from sensorium.engine.model import Model, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.scripts.benchmarks.timing import interleaved_median, machine
from sensorium.tasks.batch import Batch

BOUND = 0.95


def recipe(size: int, batch: int) -> dict[str, Any]:
    """A tiny U-Net in pixel space, conditioned by a tiny text encoder."""
    encoder = {
        "type": "transformers",
        "config": {
            "model_type": "bert",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "tokenizer": "bytes",
    }
    pixels = {"type": "pixels", "size": size}
    rows = {"source": "shapes", "split": "train", "alone": True, "count": batch, "size": size}
    generator = {
        "type": "image/diffusers",
        "name": "tiny-unet",
        "size": size,
        "condition_dropout": 0.0,
    }
    task = {"type": "generation", "condition": "caption", "target": "image"}
    return {
        "inputs": {
            "caption": {"modality": "text", "encoder": encoder, "connector": "linear"},
            "image": {"modality": "image", "encoder": pixels},
        },
        "decoders": {"generator": generator},
        "tasks": {"draw": {**task, "data": {"train": rows}}},
        "train": {"steps": 1, "batch_size": batch, "optimizer": {"type": "adamw", "lr": 1e-4}},
    }


def first_batch(model: Model, rows: int) -> Batch:
    """Return the engine's first batch."""
    source = load_split(model.plan, "draw", "train")
    split = task_dataset(model.plan, model.encoders(), "draw", source)
    addresses = sequential_batches(split, rows)
    return next(iter(batches({"draw": split}, addresses, model.collator())))


def plain_loss(model: Model, batch: Batch) -> Callable[[], Tensor]:
    """Return the loss as a script of diffusers computes it, on copies of the model's modules."""
    decoder: Any = copy.deepcopy(model.decoder("generator"))
    stream: Any = copy.deepcopy(model.stream("caption"))
    scheduler, unet = decoder.scheduler, decoder.model
    ids: Any = batch.streams["caption"]["main"]
    pixels: Any = batch.streams["image"]["main"]
    modules = nn.ModuleList([unet, stream])

    def loss() -> Tensor:
        latents = pixels["pixel_values"]
        noise = torch.randn_like(latents)
        steps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),))
        words = stream.connector(stream.encoder(**ids))
        noisy = scheduler.add_noise(latents, noise, steps)
        output = unet(
            noisy,
            steps,
            encoder_hidden_states=words.tokens,
            encoder_attention_mask=words.mask,
            return_dict=False,
        )[0]
        return F.mse_loss(output, scheduler.get_velocity(latents, noise, steps))

    loss.modules = modules  # type: ignore[attr-defined]
    return loss


def stepper(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a training step of a module, under a fixed seed."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)

    def step() -> None:
        torch.manual_seed(0)
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(
    rounds: Annotated[int, typer.Option(help="how often each is run")] = 20,
    batch: Annotated[int, typer.Option(help="pictures a step")] = 8,
    size: Annotated[int, typer.Option(help="px of a picture's side")] = 16,
) -> None:
    """Run both in turn; print medians and the ratio. Exit with 1 below the bound."""
    model = compose(resolve_and_fit(parse_recipe(recipe(size, batch))))
    rows = first_batch(model, batch)
    plain = plain_loss(model, rows)

    def ours() -> Tensor:
        loss = model(rows)
        return loss.total / loss.count

    losses = []
    for each in (plain, ours):
        torch.manual_seed(0)
        losses.append(float(each().detach()))
    if abs(losses[0] - losses[1]) > 1e-5:
        raise ValueError(f"the losses of loop and recipe differ: {losses}")
    modules: Any = plain
    steps = {"diffusers": stepper(modules.modules, plain), "recipe": stepper(model, ours)}
    seconds = interleaved_median(steps, rounds)
    ratio = seconds["diffusers"] / seconds["recipe"]
    command = ["python -m sensorium.scripts.benchmarks.generation.diffusion", *sys.argv[1:]]
    print(f"command   {' '.join(command)}")
    print(f"hardware  {machine()}")
    for name, value in seconds.items():
        print(f"{name:<10}{value:>9.4f} s a step")
    print(f"ratio     {ratio:.2f} (expected: at least {BOUND})")
    if ratio < BOUND:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
