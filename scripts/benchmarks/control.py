"""python -m sensorium.scripts.benchmarks.control [--steps 1500] [--episodes 25]

Control steps a second, success and jerk of one recipe whose actions are decoded in four ways: all
B-spline tokens at once (`parallel`), their control points regressed (`continuous`), bins one after
another (`autoregressive`, RT-2 and OpenVLA), and FAST. Backbone, data, training steps and the
steps executed of each chunk are the same; the peers' tokens are generated with a cache and
restricted logits. Expected: at least 10 times the control steps a second of bins, at equal or
better success, and less jerk.

Control steps a second are those executed over the seconds that the policy took, the simulator
left out; they are taken of one environment alone and of a batch. Each way is trained here first
(or read from `--out`, where it was).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

WAYS: dict[str, list[str]] = {
    "bspline": ["tasks.act.action_decoder=parallel"],
    "points": ["tasks.act.action_decoder=continuous"],
    "bins": ["tasks.act.action_decoder=autoregressive", "tasks.act.tokenizer={type: bins}"],
    "fast": ["tasks.act.action_decoder=autoregressive", "tasks.act.tokenizer={type: fast}"],
}
"""Name -> what changes in the recipe."""


def trained_run(recipe: str, out: Path, name: str, overrides: list[str]) -> Any:
    """Return the loaded run of one action decoder, trained if there is none yet."""
    from sensorium.engine.inference import load
    from sensorium.engine.recipe import WEIGHTS, load_recipe
    from sensorium.engine.training import train

    folder = out / name
    if not (folder / WEIGHTS).is_file():
        train(load_recipe(recipe, [*WAYS[name], *overrides]), folder, command="bench_control")
    return load(folder)


def rolled(pipeline: Any, episodes: int, seed: int, batch: int) -> dict[str, Any]:
    """Figures of all the recipe's environments together."""
    from sensorium.engine.rollout import RolloutOptions, env_config, rollout, wilson

    section = env_config(pipeline)
    seeds = range(seed, seed + episodes)
    summaries = list(
        rollout(pipeline, section, seeds=seeds, options=RolloutOptions(batch)).values()
    )
    successes = sum(round(each["success"] * each["episodes"]) for each in summaries)
    count = sum(each["episodes"] for each in summaries)
    return {
        "success": successes / count,
        "interval": wilson(successes, count),
        "speed": sum(e["steps"] for e in summaries) / sum(e["model_seconds"] for e in summaries),
        "jerk": sum(e["command_jerk"] for e in summaries) / len(summaries),
        "hand_jerk": sum(e["hand_jerk"] or 0.0 for e in summaries) / len(summaries),
    }


def line(name: str, alone: dict[str, Any], batched: dict[str, Any], bins: float) -> str:
    low, high = batched["interval"]
    return (
        f"{name:<8} {alone['speed']:>10.1f} {batched['speed']:>10.1f} "
        f"{alone['speed'] / bins:>9.1f} "
        f"{batched['success']:>8.3f} ({low:.3f} to {high:.3f}) {batched['jerk']:>8.3g} "
        f"{batched['hand_jerk']:>10.3g}"
    )


def main(
    recipe: str = "configs/control/metaworld_state.yaml",
    steps: Annotated[int, typer.Option(help="of training, each way")] = 1500,
    episodes: Annotated[int, typer.Option(help="of each environment")] = 25,
    alone: Annotated[int, typer.Option(help="of them, one at a time, for the speed")] = 1,
    seed: Annotated[int, typer.Option(help="of the first; 5000 is the test")] = 5000,
    batch: int = 25,
    out: Annotated[Path, typer.Option(help="where the runs are")] = Path("runs/bench_control"),
    way: Annotated[list[str] | None, typer.Option(help="only these")] = None,
    override: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the recipe")] = None,
) -> None:
    """Print a line a way; the ratio is to bins, one environment alone."""
    from sensorium.scripts.benchmarks.timing import machine

    overrides = [f"train.steps={steps}", *(override or ())]
    results = {}
    for name in way or WAYS:
        pipeline = trained_run(recipe, out, name, overrides)
        single = rolled(pipeline, alone, seed, 1)
        results[name] = (single, rolled(pipeline, episodes, seed, batch))
    bins = results["bins"][0]["speed"] if "bins" in results else float("nan")
    print(machine())
    print(f"{episodes} episodes each from seed {seed}; {steps} steps of training; {recipe}")
    print("way       steps/s 1  steps/s n   to bins  success                     jerk  hand jerk")
    for name, (single, batched) in results.items():
        print(line(name, single, batched, bins))


if __name__ == "__main__":
    typer.run(main)
