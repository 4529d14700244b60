"""sensorium info | list [KIND] | schema [RECIPE] > recipe.schema.json | cache ls, rm or verify"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parent.parent


def complete_recipes(incomplete: str) -> list[str]:
    """Return the recipes and runs that a word may become: the package's, and those here."""
    recipes = [p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*.yaml")]
    return sorted({*_starting(recipes, incomplete), *_starting(_local("*.yaml"), incomplete)}) + (
        complete_runs(incomplete)
    )


def complete_runs(incomplete: str) -> list[str]:
    """Return the folders of runs below `runs` that a word may become."""
    folders = [path.parent.as_posix() for path in Path("runs").rglob("run.json")]
    return sorted(_starting(folders, incomplete))


def _local(pattern: str) -> list[str]:
    return [path.as_posix() for path in Path().glob(pattern)]


def _starting(words: list[str], incomplete: str) -> Iterator[str]:
    return (word for word in words if word.startswith(incomplete))


JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
RunArgument = Annotated[
    str, typer.Argument(help="a run's folder, or hf-hub:org/name", autocompletion=complete_runs)
]
RecipeArgument = Annotated[
    str,
    typer.Argument(help="a recipe's file, or a run's folder", autocompletion=complete_recipes),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="changes of the recipe: train.steps=50"),
]


def print_result(value: Any, text: object, as_json: bool) -> None:
    """Print a result as text, or as one line of JSON; undefined values are null."""
    print(json.dumps(_plain(value), ensure_ascii=False) if as_json else text)


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def main(json_: JsonOption = False) -> None:
    """Print versions and devices, for a bug report."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from sensorium.engine.utils import available, format_table
    from sensorium.modalities.paths import cache_root

    rows = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("sensorium", *_LIBRARIES):
        try:
            rows[name] = version(name)
        except PackageNotFoundError:
            rows[name] = "not installed"
    rows["cpu"] = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    rows["devices"] = ", ".join(
        f"{kind} ({getattr(torch, kind).get_device_name()})" if kind in ("cuda", "xpu") else kind
        for kind in available()
    )
    rows["cache"] = str(cache_root())
    print_result(rows, format_table(list(rows.items())), json_)


_LIBRARIES = (
    "torch",
    "torchvision",
    "torchaudio",
    "timm",
    "open_clip_torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "datasets",
    "monai",
    "safetensors",
    "numpy",
)


RECIPES, PAPERS = "recipes", "papers"


def list_parts(
    kind: Annotated[
        str | None, typer.Argument(help="recipes, papers, encoders, tasks, connectors, ...")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List recipes with their result, papers with their use, or the parts of a kind."""
    from sensorium.engine.recipe import KINDS, registered
    from sensorium.engine.utils import ConfigError, format_table
    from sensorium.modalities.messages import did_you_mean, plural

    kinds = {plural(name): name for name in KINDS}
    if kind is None:
        names = [RECIPES, PAPERS, *kinds]
        print_result(names, "\n".join(names), json_)
    elif kind == RECIPES:
        recipes = dict(_recipes())
        print_result(recipes, "\n".join(f"{k}  {v}" for k, v in recipes.items()), json_)
    elif kind == PAPERS:
        _list_papers(json_)
    elif kind in kinds:
        parts = registered(kinds[kind])
        print_result(parts, format_table(sorted(parts.items())), json_)
    else:
        known = [RECIPES, PAPERS, *kinds]
        raise ConfigError(f"list: there is no {kind!r}{did_you_mean(kind, known)}")


def _recipes() -> Iterator[tuple[str, str]]:
    """Yield each recipe of the package with the result in its header."""
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        head = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
        yield path.relative_to(ROOT).as_posix(), head[1] if len(head) > 1 else ""


def _list_papers(as_json: bool) -> None:
    from sensorium.engine.utils import format_table
    from sensorium.scripts.docs import load_papers

    papers = load_papers()
    table = format_table([(paper.id, paper.name, str(paper.year), paper.how) for paper in papers])
    print_result(papers, table, as_json)


def schema(
    recipe: Annotated[str | None, typer.Argument(help="a recipe, for its own parts")] = None,
) -> None:
    """Print the JSON schema of recipes, with every part's options, for completion in an editor."""
    from sensorium.engine.recipe import load_recipe, schema

    print(json.dumps(schema(load_recipe(recipe) if recipe else None), indent=1))


cache = typer.Typer(help="Fill, list, remove and verify cached samples and features.")


@cache.command("ls")
def ls(json_: JsonOption = False) -> None:
    """List every store: its id, level, records and size."""
    from sensorium.engine.cache import list_stores
    from sensorium.engine.utils import format_table
    from sensorium.modalities.paths import cache_root

    root = cache_root()
    rows = [("store", "level", "records", "MB", "of")]
    stores = list_stores(root)
    for store in stores:
        what = store.identity.get("class") or store.identity.get("processor", {}).get("class", "")
        size = f"{store.nbytes / 1e6:.1f}"
        rows.append((store.id[:12], store.level, f"{store.records:,}", size, what))
    keys = ("id", "level", "records", "nbytes")
    value = {"root": root, "stores": [{k: getattr(s, k) for k in keys} for s in stores]}
    table = [format_table(rows, right=(2, 3))] if stores else []
    print_result(value, "\n".join([*table, str(root)]), json_)


@cache.command("fill")
def fill(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    engine: Annotated[str, typer.Option(help="local, torchrun or ray")] = "local",
    processes: Annotated[int, typer.Option(min=1, help="started by torchrun or ray")] = 1,
    device: Annotated[str | None, typer.Option(help="cuda, xpu, mps or cpu")] = None,
    json_: JsonOption = False,
) -> None:
    """Compute what a recipe's training reads from the cache, and nothing else. Under torchrun each
    process computes its share; a job that is killed is started again and goes on."""
    from sensorium.engine.training.parallel import (
        fill_cache,
        fill_with_ray,
        fill_with_torchrun,
    )
    from sensorium.engine.utils import ConfigError

    if engine not in ("local", "torchrun", "ray"):
        raise ConfigError(f"--engine: found {engine!r}, expected local, torchrun or ray")
    if engine == "local" and processes > 1:
        raise ConfigError(
            f"--processes: found {processes} with --engine local, which is one process; set "
            "--engine torchrun or ray"
        )
    job = str(recipe), overrides or ()
    if engine == "torchrun":
        raise typer.Exit(fill_with_torchrun(*job, processes, device))
    if engine == "ray":
        streams = fill_with_ray(*job, processes, device)
    else:
        streams = fill_cache(*job, device)
    print_result({"streams": streams}, f"stored: {', '.join(streams) or 'nothing'}", json_)


PlaceArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="s3://bucket/cache")]


@cache.command("push")
def push(place: PlaceArgument, json_: JsonOption = False) -> None:
    """Upload the stores to object storage: shards that are not there yet, each whole."""
    from sensorium.engine.cache import sync_stores
    from sensorium.modalities.paths import cache_root

    count = sync_stores(cache_root(), place, upload=True)
    print_result({"files": count}, f"{place}: {count} files uploaded", json_)


@cache.command("pull")
def pull(place: PlaceArgument, json_: JsonOption = False) -> None:
    """Download the stores that object storage has: shards that are not here yet."""
    from sensorium.engine.cache import sync_stores
    from sensorium.modalities.paths import cache_root

    count = sync_stores(cache_root(), place, upload=False)
    print_result({"files": count}, f"{place}: {count} files downloaded", json_)


@cache.command("rm")
def rm(
    which: Annotated[str, typer.Argument(help="an id (or its beginning), or all")],
    older_than: Annotated[float, typer.Option(help="only those unused for so many days")] = 0,
    json_: JsonOption = False,
) -> None:
    """Remove stores."""
    from sensorium.engine.cache import remove_stores
    from sensorium.engine.utils import ConfigError
    from sensorium.modalities.paths import cache_root

    try:
        gone = remove_stores(cache_root(), which, older_than=older_than * 86400)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    nbytes = sum(store.nbytes for store in gone)
    text = f"removed {len(gone)} stores, {nbytes / 1e6:.1f} MB"
    print_result({"removed": [store.id for store in gone], "nbytes": nbytes}, text, json_)


@cache.command("verify")
def verify(json_: JsonOption = False) -> None:
    """Check every record's sum; corrupt ones are dropped, to be computed again."""
    from sensorium.engine.cache import verify as verify_all
    from sensorium.modalities.paths import cache_root

    problems = verify_all(cache_root())
    lines = [f"{s[:12]}  {len(keys)} corrupt records dropped" for s, keys in problems.items()]
    total = sum(map(len, problems.values()))
    text = "\n".join([*lines, f"{total} corrupt records in {len(problems)} stores"])
    print_result({"dropped": problems}, text, json_)


if __name__ == "__main__":
    typer.run(main)
