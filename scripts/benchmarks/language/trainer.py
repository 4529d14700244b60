"""python -m sensorium.scripts.benchmarks.language.trainer [--rounds 5] [--steps 30]

Tokens a second of `language_modeling` against transformers' `Trainer`: the same weights, texts,
batch and AdamW, a GPT-2 on whole texts and a T5 on corrupted spans. The two train in turns, and a
training's steps but the first ones are timed. Expected: at least the speed of the Trainer.

Both read the same texts of full length. Ours tokenizes, cuts and corrupts them as it trains; the
Trainer gets ids that are cut, and for T5 corrupted, beforehand, and collates them with collators of
transformers, `DataCollatorForLanguageModeling` and `DataCollatorForSeq2Seq`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from tokenizers import ByteLevelBPETokenizer

from sensorium.engine.recipe import find, parse_recipe
from sensorium.engine.training import Callback, train
from sensorium.scripts.benchmarks.timing import Times, machine
from sensorium.tasks.language.spans import corrupt_spans, sample_spans

COMMAND = "python -m sensorium.scripts.benchmarks.language.trainer"
WARM_UP = 5
"""Steps that are not timed."""
SENTINELS = 16
RATE, SPAN = 0.15, 3.0
DECAY = 0.01

seconds: list[Times] = []
"""Of every training, in order: of a step."""


class Clock:
    """Times the steps behind the first ones."""

    def __init__(self, steps: int) -> None:
        self.steps, self.start = steps, Times(0.0, 0.0)

    def tick(self, step: int) -> None:
        now = Times(time.perf_counter(), time.process_time())
        if step == WARM_UP:
            self.start = now
        elif step == self.steps:
            spent = (end - start for end, start in zip(now, self.start, strict=True))
            seconds.append(Times(*(value / (self.steps - WARM_UP) for value in spent)))


class StepTimes(Callback):
    """The clock, as a callback of a recipe."""

    def on_train_begin(self, trainer: Any) -> None:
        self.clock = Clock(trainer.settings.steps)

    def on_step_end(self, trainer: Any) -> None:
        self.clock.tick(trainer.global_step)


class TrainerStepTimes(transformers.TrainerCallback):
    """The clock, as a callback of transformers' Trainer."""

    def __init__(self, steps: int) -> None:
        self.clock = Clock(steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        self.clock.tick(state.global_step)


def texts_of(count: int, least: int) -> list[str]:
    """Return docstrings of the standard library of `least` characters or more, joined if short."""
    joined, texts = "", list[str]()
    source = find("source", "docstrings", "texts")(split="train")
    for index in range(len(source)):
        joined += source[index]["text"] + "\n"
        if len(joined) >= least:
            texts.append(joined)
            joined = ""
        if len(texts) == count:
            return texts
    raise ValueError(f"the docstrings make {len(texts)} texts, expected {count}")


def checkpoint(folder: Path, texts: list[str], kind: str, width: int, layers: int) -> Any:
    """Write a tokenizer and a model of random weights in transformers' own format; return the
    tokenizer."""
    bpe = ByteLevelBPETokenizer()
    markers = [f"<extra_id_{k}>" for k in range(SENTINELS)]
    special = ["<pad>", "</s>", *markers]
    bpe.train_from_iterator(texts, 4096, special_tokens=special, show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        extra_special_tokens=markers,
    )
    tokenizer.save_pretrained(folder)
    ends: dict[str, Any] = {"vocab_size": len(tokenizer), "eos_token_id": 1, "pad_token_id": 0}
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(
            n_embd=width, n_layer=layers, n_head=width // 64, bos_token_id=1, **ends
        )
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    else:
        config = transformers.T5Config(
            d_model=width, d_kv=64, d_ff=4 * width, num_layers=layers // 2, num_heads=width // 64,
            decoder_start_token_id=0, **ends,
        )  # fmt: skip
        transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return tokenizer


def recipe(
    folder: Path, rows: Path, kind: str, length: int, batch: int, steps: int
) -> dict[str, Any]:
    causal = kind == "gpt2"
    task = {
        "type": "language_modeling",
        "objectives": {"causal" if causal else "span_corruption": 1.0},
        "max_length": length,
        "sentinels": SENTINELS,
        "noise_density": RATE,
        "mean_span": SPAN,
        "data": {"train": {"source": "json", "path": str(rows)}},
    }
    return {
        "backbone": {"type": "causal" if causal else "seq2seq", "name": str(folder)},
        "tasks": {"language": task},
        "callbacks": [{"type": f"{__name__}:StepTimes"}],
        "train": {
            "steps": steps, "batch_size": batch,
            "optimizer": {"type": "adamw", "lr": 1e-4, "weight_decay": DECAY},
            "max_grad_norm": 1.0, "log_every": 10,
        },
    }  # fmt: skip


def examples(texts: list[str], tokenizer: Any, kind: str, length: int) -> list[dict[str, Any]]:
    """Return ids that are cut to `length`, and for T5 corrupted."""
    rng, rows = np.random.default_rng(0), list[dict[str, Any]]()
    for text in texts:
        ids = tokenizer(text)["input_ids"][:length]
        if kind == "gpt2":
            rows.append({"input_ids": [1, *ids, 1]})
            continue
        sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{k}>" for k in range(SENTINELS)])
        spans = sample_spans(len(ids), RATE, SPAN, rng, SENTINELS - 1)
        source, target = corrupt_spans(ids, spans, sentinels)
        rows.append({"input_ids": [*source, 1], "labels": [*target, 1]})
    return rows


def library_training(
    folder: Path, tokenizer: Any, rows: list[Any], kind: str, batch: int, steps: int
) -> Callable[[], object]:
    """Return a training by transformers' Trainer."""
    auto = transformers.AutoModelForCausalLM
    collator: Any = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    if kind == "t5":
        auto = transformers.AutoModelForSeq2SeqLM
        collator = transformers.DataCollatorForSeq2Seq(tokenizer)

    def run() -> None:
        settings = transformers.TrainingArguments(
            output_dir=str(folder / "trainer"), max_steps=steps, per_device_train_batch_size=batch,
            learning_rate=1e-4, lr_scheduler_type="constant", optim="adamw_torch", use_cpu=True,
            weight_decay=DECAY,
            max_grad_norm=1.0, logging_steps=10, save_strategy="no", report_to=[],
            disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(
            auto.from_pretrained(folder), settings, collator, rows,
            callbacks=[TrainerStepTimes(steps)],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()

    return run


def recipe_training(values: dict[str, Any], folder: Path) -> Callable[[], object]:
    """Return a training of a recipe."""
    return lambda: train(parse_recipe(values), folder / "run", overwrite=True, show=False)


def main(
    rounds: Annotated[int, typer.Option(help="trainings of each")] = 5,
    steps: Annotated[int, typer.Option(help="of a training")] = 30,
    batch: Annotated[int, typer.Option(help="texts a step")] = 8,
    length: Annotated[int, typer.Option(help="tokens of a text")] = 128,
    width: Annotated[int, typer.Option(help="of the model")] = 256,
    layers: Annotated[int, typer.Option(help="of the model, both stacks counted")] = 4,
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
) -> None:
    """Train both in turns; print medians and ratios."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    texts = texts_of(batch * steps, 5 * length)
    lines = [
        f"command   {' '.join([COMMAND, *sys.argv[1:]])}",
        f"hardware  {machine()}",
        f"work      {layers} layers of {width}, batch {batch} x {length} tokens; seed {seed}; "
        f"medians of {rounds} trainings of {steps - WARM_UP} steps, in turns",
        f"{'run':<26}{'tokens/s':>12}{'ratio':>8}{'tokens/CPU s':>16}{'ratio':>8}{'expected':>10}",
    ]
    for kind in ("gpt2", "t5"):
        with tempfile.TemporaryDirectory(prefix="sensorium-bench-") as name:
            torch.manual_seed(seed)
            folder = Path(name)
            tokenizer = checkpoint(folder, texts, kind, width, layers)
            rows = folder / "texts.jsonl"
            rows.write_text("\n".join(json.dumps({"text": text}) for text in texts))
            values = recipe(folder, rows, kind, length, batch, steps)
            ready = examples(texts, tokenizer, kind, length)
            ways = {
                "transformers": library_training(folder, tokenizer, ready, kind, batch, steps),
                "sensorium": recipe_training(values, folder),
            }
            times: dict[str, list[Times]] = {way: [] for way in ways}
            for index in range(rounds):
                for way in list(ways)[:: -1 if index % 2 else 1]:
                    ways[way]()
                    times[way].append(seconds.pop())
        base = [statistics.median(clock) for clock in zip(*times["transformers"], strict=True)]
        for way, spent in times.items():
            middle = [statistics.median(clock) for clock in zip(*spent, strict=True)]
            wall, cpu = (
                f"{batch * length / s:>12.0f}{b / s:>8.2f}"
                for b, s in zip(base, middle, strict=True)
            )
            bound = ">= 1.00" if way == "sensorium" else ""
            lines.append(f"{f'{kind}, {way}':<26}{wall}    {cpu}{bound:>10}")
    print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
