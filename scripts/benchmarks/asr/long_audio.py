"""python -m sensorium.scripts.benchmarks.asr.long_audio runs/sentences_ctc [--minutes 10]

A recording of many of the talker's sentences, transcribed in pieces as `sensorium generate` does,
against the same sentences one by one: the share of words that differ, which is expected to be 1 %
at most, and each way's errors against the reference. The recording beside seven shorter ones has
to have the same words as alone. Voices and sentences are not in training.

Timed is reading from prepared samples to text, wall clock; not timed are speaking and imports.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer


def transcribe_batches(
    pipeline: Any, task: str, stream: str, sounds: Sequence[Any], batch: int
) -> list[str]:
    """Return the texts of some sounds, `batch` at a time."""
    groups = [list(sounds[i : i + batch]) for i in range(0, len(sounds), batch)]
    return [
        prediction["text"]
        for group in groups
        for prediction in pipeline.generate(task, **{stream: group})
    ]


def different(first: str, second: str) -> tuple[int, int]:
    """Words by which two texts differ, and words of the first."""
    from sensorium.tasks.speech import error_counts

    errors, words = error_counts([first], [second])
    return int(errors[0]), int(words[0])


def recording(minutes: float, snr: float | None, seed: int) -> Any:
    """Return the first row that is long enough."""
    from sensorium.modalities.audio.datasets import Talker

    for count in range(10, 1000, 10):
        joined = [count, count]
        speech = Talker(
            grammar="sentences", split="test", count=1, join=joined, snr=snr, seed=seed
        ).speech(0)
        if speech.seconds() >= 60 * minutes:
            return speech
    raise typer.BadParameter(f"minutes: found {minutes}, expected at most 90")


def memory() -> float:
    """Return the most memory that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(
    run: Annotated[str, typer.Argument(help="a run's folder with a ctc task on the talker")],
    minutes: float = 10,
    snr: Annotated[float | None, typer.Option(help="dB of noise; clean by default")] = None,
    seed: int = 0,
) -> None:
    """Print how the recording is read whole, and sentence by sentence."""
    from sensorium.engine.inference import load
    from sensorium.scripts.benchmarks.timing import machine, timed

    pipeline = load(run)
    task = next(iter(pipeline.model.plan.tasks))
    stream = pipeline.model.plan.tasks[task].task.inputs()[0]
    speech = recording(minutes, snr, seed)
    sound, parts = speech.sound(), [speech.part(i) for i in range(len(speech.texts))]
    text_of = " ".join(speech.texts)
    before = memory()
    texts: dict[str, str] = {}
    seconds = {
        "whole": timed(
            lambda: texts.update(whole=transcribe_batches(pipeline, task, stream, [sound], 1)[0])
        ).wall,
    }
    peak = memory() - before
    seconds["one by one"] = timed(
        lambda: texts.update(parts=" ".join(transcribe_batches(pipeline, task, stream, parts, 1)))
    ).wall
    in_batch = transcribe_batches(pipeline, task, stream, [sound, *parts[:7]], 8)
    print(machine())
    print(f"{sound.seconds:.0f} s, {len(parts)} sentences, {len(text_of.split())} words")
    for name, text in (("whole", texts["whole"]), ("one by one", texts["parts"])):
        wrong, words = different(text_of, text)
        speed = sound.seconds / seconds[name]
        print(
            f"{name}: WER {wrong / words:.3f}, {seconds[name]:.1f} s, {speed:.0f} times real time"
        )
    wrong, words = different(texts["parts"], texts["whole"])
    print(f"words that differ: {wrong} of {words}, {wrong / words:.2%}")
    print(f"memory that reading the whole added: {peak:.0f} MB")
    alone = transcribe_batches(pipeline, task, stream, parts[:7], 1)
    same = in_batch == [texts["whole"], *alone]
    print(f"in a batch of 8 the same words as alone: {'yes' if same else 'no'}")
    if not np.isfinite(wrong / words) or wrong / words > 0.01 or not same:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
