"""sensorium info"""

from __future__ import annotations

import typer


def main() -> None:
    """Versions and devices, for a bug report."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from sensorium.engine.utils import format_table
    from sensorium.modalities.paths import cache_root

    rows = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("sensorium", *_LIBRARIES):
        try:
            rows[name] = version(name)
        except PackageNotFoundError:
            rows[name] = "not installed"
    rows["cpu"] = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    rows["accelerator"] = "none"
    if torch.cuda.is_available():
        rows["accelerator"] = ", ".join(
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
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

if __name__ == "__main__":
    typer.run(main)
