"""The floors of the house, read from the source alone.

An import points down, never across two modalities, never in a circle; a catalogue names what
stands in its room; and a file is read in one sitting.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backbones", "connectors", "engine", "modalities", "scripts", "tasks", "testing")
FILES = sorted([*ROOT.glob("*.py"), *(f for room in ROOMS for f in (ROOT / room).rglob("*.py"))])
LONGEST = 300

BELOW = {
    "modalities": (),
    "modalities.base": (),
    "connectors": ("modalities.base",),
    "backbones": ("modalities.base",),
    "tasks": ("connectors", "backbones", "modalities"),
    "engine": ("tasks", "connectors", "backbones", "modalities"),
    "testing": ("engine", "tasks", "connectors", "backbones", "modalities"),
    "scripts": ("engine", "tasks", "connectors", "backbones", "modalities", ""),
}
"""What each floor may import besides itself; `""` is the root package, the face of the house."""


def module_of(path: Path) -> str:
    """`engine/fit.py` -> `engine.fit`; a package is its folder, the root `""`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in FILES}
TREES = {module: ast.parse(path.read_text("utf-8"), str(path)) for module, path in SOURCES.items()}


def targets(module: str, tree: ast.Module, known: Sequence[str]) -> Iterator[str]:
    """The modules of this package that a module imports, wherever it does so."""
    package = module if SOURCES.get(module, ROOT).name == "__init__.py" else _parent(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_own(a.name) for a in node.names if _is_own(a.name))
        elif isinstance(node, ast.ImportFrom):
            base = _own(node.module or "")
            if node.level:
                above = package.split(".") if package else []
                above = above[: len(above) + 1 - node.level]
                base = ".".join([*above, *filter(None, [node.module])])
            elif not _is_own(node.module or ""):
                continue
            inner = {f"{base}.{a.name}".strip(".") for a in node.names}
            found = inner & set(known)
            yield from found
            if len(found) < len(inner):
                yield base


def _is_own(name: str) -> bool:
    return name.partition(".")[0] == "sensorium"


def _own(name: str) -> str:
    return name.partition(".")[2]


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def floor_of(module: str) -> str:
    """`modalities.image.timm` -> `modalities.image`; other rooms are one floor each."""
    first, _, rest = module.partition(".")
    if first == "modalities" and SOURCES[module].parent.name == first and rest:
        return "modalities.base"  # `base.py` and the files beside it are one layer
    return f"{first}.{rest.partition('.')[0]}" if first == "modalities" and rest else first


def may(importer: str, imported: str) -> bool:
    """Whether an import points down, or stays on its floor."""
    here, there = floor_of(importer), floor_of(imported)
    if not importer or importer == "__main__" or here == there:
        return True
    if here.startswith("modalities.") and here != "modalities.base":
        return there == "modalities.base"
    return any(there == low or there.startswith(f"{low}.") for low in BELOW[here] if low) or (
        not there and "" in BELOW[here]
    )


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph.get(module, ())
        reach[start] = seen
    groups = {tuple(sorted(m for m in reach[s] if s in reach.get(m, ()))) for s in graph}
    return sorted(list(group) for group in groups if group)


GRAPH = {module: set(targets(module, tree, list(TREES))) for module, tree in TREES.items()}


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_point_down(module: str) -> None:
    unknown = GRAPH[module] - set(TREES)
    assert not unknown, f"{module} imports what is not there: {sorted(unknown)}"
    up = sorted(other for other in GRAPH[module] if not may(module, other))
    assert not up, f"{module} may not import {up}"


def test_no_circles() -> None:
    assert circles(GRAPH) == []


def test_tasks_use_no_encoder() -> None:
    encoders = {
        path.removeprefix("sensorium.").partition(":")[0]
        for module, name, path in catalogues()
        if name == "encoders"
    }
    assert encoders
    used = {m: GRAPH[m] & encoders for m in GRAPH if floor_of(m) == "tasks" and GRAPH[m] & encoders}
    assert not used


def test_only_scripts_name_the_package() -> None:
    named = [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        if floor_of(module) != "scripts"
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and not node.level and _is_own(node.module or ""))
        or (isinstance(node, ast.Import) and any(_is_own(a.name) for a in node.names))
    ]
    assert not named, f"relative imports inside the package: {named}"


def test_packages_import_nothing_heavy() -> None:
    """A catalogue is strings: what it names is imported when a recipe asks for it."""
    light = {"__future__", "collections", "importlib", "typing", "..modality"}
    heavy = [
        f"{module or 'sensorium'}: {name}"
        for module, tree in TREES.items()
        if SOURCES[module].name == "__init__.py"
        for node in tree.body
        for name in _names(node)
        if (name if name.startswith(".") else name.partition(".")[0]) not in light
    ]
    assert not heavy


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def catalogues() -> Iterator[tuple[str, str, str]]:
    """`(module, catalogue, "sensorium.module:Class")` of every literal catalogue: a mapping, or
    a field of a `Modality`, which is called by its name."""
    for module, tree in TREES.items():
        for node in tree.body if SOURCES[module].name == "__init__.py" else ():
            name, value = _assigned(node), getattr(node, "value", None)
            if isinstance(value, ast.Call) and name.isupper():
                for keyword in value.keywords:
                    yield from ((module, keyword.arg or "", path) for path in _paths(keyword.value))
            elif value is not None and name.isupper():
                yield from ((module, name, path) for path in _paths(value))


def _paths(node: ast.AST) -> list[str]:
    leaves = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
    return [leaf for leaf in leaves if isinstance(leaf, str) and leaf.startswith("sensorium.")]


def _assigned(node: ast.stmt) -> str:
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.target)
    return ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""


@pytest.mark.parametrize(("module", "name", "path"), sorted(set(catalogues())))
def test_catalogues_name_what_stands_in_their_room(module: str, name: str, path: str) -> None:
    target, _, attribute = path.removeprefix("sensorium.").partition(":")
    assert target.startswith(f"{module}."), f"{module}.{name}: {path} is another room's"
    defined = {getattr(node, "name", None) or _assigned(node) for node in TREES[target].body}
    assert not attribute or attribute in defined, f"{module}.{name}: no {attribute} in {target}"


@pytest.mark.parametrize("module", sorted(TREES))
def test_a_file_is_read_in_one_sitting(module: str) -> None:
    lines = len(SOURCES[module].read_text("utf-8").splitlines())
    assert lines <= LONGEST, f"{SOURCES[module].name}: {lines} lines, perhaps two rooms"
    assert not lines or ast.get_docstring(TREES[module]), "what is this file?"


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("engine.fit", "tasks.base", True),
        ("tasks.base", "engine.fit", False),
        ("tasks.control", "modalities.action.bspline", True),
        ("connectors.heads", "modalities.base", True),
        ("connectors.heads", "modalities.image.timm", False),
        ("connectors.heads", "backbones.base", False),
        ("modalities.image.timm", "modalities.base", True),
        ("modalities.image.timm", "modalities.text.read", False),
        ("modalities.base", "modalities.image", False),
        ("engine.hub", "scripts.train", False),
        ("scripts.train", "engine.hub", True),
    ],
)
def test_floors(importer: str, imported: str, allowed: bool) -> None:
    assert may(importer, imported) is allowed


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == [["b", "c"]]
