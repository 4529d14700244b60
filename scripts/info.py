"""sensorium info | list [KIND] | schema [RECIPE] > recipe.schema.json | cache ls, rm or verify"""

from __future__ import annotations

from typing import Annotated

import typer


def main() -> None:
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
    print(format_table(list(rows.items())))


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
) -> None:
    """List recipes with their result, papers with their use, or the parts of a kind."""
    from sensorium.engine.recipe import KINDS, registered
    from sensorium.engine.utils import ConfigError, format_table
    from sensorium.modalities.messages import did_you_mean

    kinds = {plural(name): name for name in KINDS}
    if kind is None:
        print("\n".join([RECIPES, PAPERS, *kinds]))
    elif kind == RECIPES:
        _list_recipes()
    elif kind == PAPERS:
        _list_papers()
    elif kind in kinds:
        print(format_table(sorted(registered(kinds[kind]).items())))
    else:
        raise ConfigError(
            f"list: there is no {kind!r}{did_you_mean(kind, [RECIPES, PAPERS, *kinds])}"
        )


def plural(kind: str) -> str:
    """Return the plural of a kind of parts."""
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _list_recipes() -> None:
    from pathlib import Path

    root = Path(__file__).parent.parent
    for path in sorted((root / "configs").rglob("*.yaml")):
        head = [
            line.removeprefix("#").strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("#")
        ]
        print(f"{path.relative_to(root)}  {head[1] if len(head) > 1 else ''}")


def _list_papers() -> None:
    from sensorium.engine.utils import format_table
    from sensorium.scripts.docs import load_papers

    papers = load_papers()
    print(format_table([(paper.id, paper.name, str(paper.year), paper.how) for paper in papers]))


def schema(
    recipe: Annotated[str | None, typer.Argument(help="a recipe, for its own parts")] = None,
) -> None:
    """Print the JSON schema of recipes, with every part's options, for completion in an editor."""
    import json

    from sensorium.engine.recipe import load_recipe, schema

    print(json.dumps(schema(load_recipe(recipe) if recipe else None), indent=1))


cache = typer.Typer(help="List, remove and verify cached samples and features.")


@cache.command("ls")
def ls() -> None:
    """List every store: its id, level, records and size."""
    from sensorium.engine.cache import list_stores
    from sensorium.engine.utils import format_table
    from sensorium.modalities.paths import cache_root

    root = cache_root()
    rows = [("store", "level", "records", "MB", "of")]
    for store in list_stores(root):
        what = store.identity.get("class") or store.identity.get("processor", {}).get("class", "")
        size = f"{store.nbytes / 1e6:.1f}"
        rows.append((store.id[:12], store.level, f"{store.records:,}", size, what))
    if len(rows) > 1:
        print(format_table(rows, right=(2, 3)))
    print(root)


@cache.command("rm")
def rm(
    which: Annotated[str, typer.Argument(help="an id (or its beginning), or all")],
    older_than: Annotated[float, typer.Option(help="only what was not used for so many days")] = 0,
) -> None:
    """Remove stores."""
    from sensorium.engine.cache import remove_stores
    from sensorium.engine.utils import ConfigError
    from sensorium.modalities.paths import cache_root

    try:
        gone = remove_stores(cache_root(), which, older_than=older_than * 86400)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print(f"removed {len(gone)} stores, {sum(s.nbytes for s in gone) / 1e6:.1f} MB")


@cache.command("verify")
def verify() -> None:
    """Check every record's sum; corrupt ones are dropped, to be computed again."""
    from sensorium.engine.cache import verify as verify_all
    from sensorium.modalities.paths import cache_root

    problems = verify_all(cache_root())
    for store, keys in problems.items():
        print(f"{store[:12]}  {len(keys)} corrupt records dropped")
    print(f"{sum(map(len, problems.values()))} corrupt records in {len(problems)} stores")


if __name__ == "__main__":
    typer.run(main)
