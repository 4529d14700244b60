"""The tree, the list of packages, the declared requirements and the wheel say the same."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backbones", "connectors", "engine", "modalities", "scripts", "tasks", "testing")
MODULES = sorted(
    file.relative_to(ROOT).as_posix()
    for file in [*ROOT.glob("*.py"), *(f for room in ROOMS for f in (ROOT / room).rglob("*.py"))]
)
RECIPES = sorted(f.relative_to(ROOT).as_posix() for f in (ROOT / "configs").rglob("*.yaml"))
DATA = [
    "docs/papers.yaml",
    "py.typed",
    *(
        f.relative_to(ROOT).as_posix()
        for place in ("engine/serving/page/*", "engine/utils/templates/*")
        for f in ROOT.glob(place)
    ),
]
HEAVY = (
    "datasets",
    "fastapi",
    "matplotlib",
    "numpy",
    "open_clip",
    "pydantic",
    "timm",
    "torch",
    "transformers",
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_folder_with_modules_is_a_listed_package(project: dict[str, Any]) -> None:
    folders = {Path(module).parent for module in MODULES}
    result = sorted(".".join(["sensorium", *folder.parts]) for folder in folders)
    assert sorted(project["tool"]["setuptools"]["packages"]) == result
    assert project["tool"]["setuptools"]["package-dir"] == {"sensorium": "."}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_no_module_stands_outside_the_rooms() -> None:
    assert {file.name for file in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "lazy.py"}
    rooms = {f.parent.name for f in ROOT.glob("*/__init__.py") if not f.parent.name.startswith(".")}
    assert rooms == set(ROOMS)


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


@pytest.mark.slow
def test_what_is_imported_is_declared(project: dict[str, Any]) -> None:
    """An import that only a dependency of a dependency brings breaks without a warning."""
    extras = project["project"]["optional-dependencies"]
    optional = [line for lines in extras.values() for line in lines]
    declared = names([*project["project"]["dependencies"], *optional])
    owners = packages_distributions()
    missing = {
        f"{module}: {name}"
        for module in MODULES
        for name in imported(ast.parse((ROOT / module).read_text("utf-8")))
        if not {canonicalize_name(owner) for owner in owners.get(name, [name])} & declared
    }
    assert not missing, "\n".join(sorted(missing))


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of the imports that are neither Python's nor this package's."""
    result = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            result |= {a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            result.add((node.module or "").partition(".")[0])
    return result - sys.stdlib_module_names - {"sensorium"}


def test_what_is_declared_is_pinned(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(
        [s.operator for s in pin.specifier] == ["=="] and not pin.url and not pin.marker
        for pin in pins
    )
    versions = {canonicalize_name(p.name): str(p.specifier).removeprefix("==") for p in pins}
    assert len(versions) == len(pins)
    reference = project["project"]
    extras = reference["optional-dependencies"].values()
    for line in [*reference["dependencies"], *(line for lines in extras for line in lines)]:
        expected = Requirement(line)
        pinned = versions.get(canonicalize_name(expected.name))
        assert pinned, f"{expected.name} is not pinned in constraints.txt"
        assert expected.specifier.contains(pinned), f"{expected} is pinned to {pinned}"
    assert names(project["build-system"]["requires"]) <= set(versions)


def test_help_imports_nothing_heavy() -> None:
    """`sensorium --help` starts in the time that Python and typer do."""
    code = (
        "import sys\n"
        "from sensorium.__main__ import main\n"
        "sys.argv = ['sensorium', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]
    assert "train" in done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of this tree, with the build tools that are installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    left = (".*", "__pycache__", "build", "dist", "runs", "*.egg-info")
    shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*left))
    pip("wheel", "--no-build-isolation", "-w", folder / "out", folder / "checkout")
    (built,) = (folder / "out").glob("*.whl")
    return built


def pip(verb: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", verb, "--no-index", "--no-deps", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    info = {name for name in held if name.partition("/")[0].endswith(".dist-info")}
    assert RECIPES
    assert held - info == {f"sensorium/{name}" for name in [*MODULES, *RECIPES, *DATA]}
    assert any(name.endswith(".html.j2") for name in DATA)
    assert any(name.endswith("/licenses/LICENSE") for name in info)


@pytest.mark.slow
def test_the_wheel_works_anywhere(wheel: Path, tmp_path: Path) -> None:
    """Installed into a folder of its own and used from another: no help from this checkout."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "--target", site, wheel)
    code = (
        "import sensorium, sensorium.modalities.image, sensorium.engine.recipe.recipe\n"
        "print(sensorium.__file__)"
    )
    where = output(site, elsewhere, sys.executable, "-c", code)
    assert Path(where.strip()).is_relative_to(site)
    command = str(site / "bin" / "sensorium")
    assert "train" in output(site, elsewhere, sys.executable, command, "--help")
    listed = output(site, elsewhere, sys.executable, command, "list", "recipes")
    assert sorted(line.split()[0] for line in listed.splitlines()) == RECIPES


def output(site: Path, cwd: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
