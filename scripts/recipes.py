"""sensorium recipes"""

from __future__ import annotations

import typer


def recipes() -> None:
    """The recipes that come with the package: path, and the result in its header."""
    from pathlib import Path

    root = Path(__file__).parent.parent
    for path in sorted((root / "configs").rglob("*.yaml")):
        head = [
            line.removeprefix("#").strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("#")
        ]
        print(f"{path.relative_to(root)}  {head[1] if len(head) > 1 else ''}")


if __name__ == "__main__":
    typer.run(recipes)
