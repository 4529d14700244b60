"""sensorium push runs/x org/name [--private]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, complete_runs, print_result


def push(
    run: Annotated[Path, typer.Argument(help="a run's folder", autocompletion=complete_runs)],
    name: Annotated[str, typer.Argument(help="org/name on the hub")],
    private: Annotated[bool, typer.Option("--private", help="a private repository")] = False,
    json_: JsonOption = False,
) -> None:
    """Upload a run's folder to the hub, with its model card; prints the id that `load` takes."""
    from sensorium.engine.checkpoint import push as push_folder

    address = push_folder(run, name, private=private)
    print_result({"model": address}, address, json_)


if __name__ == "__main__":
    typer.run(push)
