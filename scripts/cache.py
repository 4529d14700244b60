"""sensorium cache ls | rm | verify"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="What is kept between runs: list it, remove it, verify it.")


@app.command("ls")
def ls() -> None:
    """Every store: its id, level, records and size."""
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


@app.command("rm")
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


@app.command("verify")
def verify() -> None:
    """Check every record's sum; corrupt ones are dropped, to be computed again."""
    from sensorium.engine.cache import verify as verify_all
    from sensorium.modalities.paths import cache_root

    found = verify_all(cache_root())
    for store, keys in found.items():
        print(f"{store[:12]}  {len(keys)} corrupt records dropped")
    print(f"{sum(map(len, found.values()))} corrupt records in {len(found)} stores")
