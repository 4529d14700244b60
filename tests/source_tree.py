"""The modules of the package and their imports, read from the source alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("modalities", "connectors", "backbones", "tasks", "engine", "scripts", "testing")
FILES = sorted([*ROOT.glob("*.py"), *(f for name in FOLDERS for f in (ROOT / name).rglob("*.py"))])
BELOW = {
    "modalities": (),
    "connectors": ("modalities",),
    "backbones": ("modalities", "connectors"),
    "tasks": ("modalities", "connectors", "backbones"),
    "engine": ("modalities", "connectors", "backbones", "tasks"),
    "testing": ("modalities", "connectors", "backbones", "tasks", "engine"),
    "scripts": ("modalities", "connectors", "backbones", "tasks", "engine", "testing", ""),
}
"""What each top-level folder may import besides itself; `""` is the root package."""
ENGINE = (
    ("utils",),
    ("recipe", "cache"),
    ("data", "index"),
    ("model",),
    ("checkpoint",),
    ("inference", "embedding"),
    ("evaluation", "rollout"),
    ("training", "report", "serving"),
)
"""The packages of the engine, lowest first; those of one line do not import one another."""
FAMILIES = {"speech": ("text",), "diffusion": ("speech",)}
"""A family of tasks -> the families whose tasks it specializes; others import only `common`."""
LEVEL = {package: i for i, line in enumerate(ENGINE) for package in line}


def module_of(path: Path) -> str:
    """`engine/model/fit.py` -> `engine.model.fit`; a package is its folder, the root `""`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in FILES}
PACKAGES = {module for module, path in SOURCES.items() if path.name == "__init__.py"}


@cache
def trees() -> dict[str, ast.Module]:
    """Every module, parsed: once, and by the process that needs it."""
    return {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in SOURCES.items()}


def package_of(module: str) -> str:
    """The package that a module lies in; a package lies in itself."""
    return module if module in PACKAGES else module.rpartition(".")[0]


def has_face(package: str) -> bool:
    """Whether others import a package by its listed names. The top-level folders and modalities
    are catalogues: their files are imported one by one."""
    folder, _, rest = package.partition(".")
    return bool(rest) and not (folder == "modalities" and "." not in rest)


def is_within(package: str, other: str) -> bool:
    return not other or package == other or package.startswith(f"{other}.")


def imports(module: str) -> Iterator[tuple[int, str, str]]:
    """(line, module after `from`, name) of each import of this package; the name is "" in
    `import sensorium.x`."""
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root, _, rest = alias.name.partition(".")
                if root == "sensorium":
                    yield node.lineno, rest, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package_of(module).split(".") if package_of(module) else []
                base = ".".join([*above[: len(above) + 1 - node.level], *filter(None, [base])])
            elif base.partition(".")[0] == "sensorium":
                base = base.partition(".")[2]
            else:
                continue
            yield from ((node.lineno, base, alias.name) for alias in node.names)


@cache
def face(package: str) -> dict[str, str]:
    """The names that a package's `__init__.py` lists for type checkers -> the file of each."""
    return {
        alias.asname or alias.name: f"{package}.{node.module}"
        for block in trees()[package].body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@cache
def defined(module: str) -> frozenset[str]:
    """The names that a module binds by a definition at its top level."""
    result = set()
    for node in trees()[module].body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            result.add(node.name)
        elif isinstance(node, ast.Assign):
            result |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.AnnAssign):
            result.add(ast.unparse(node.target))
    return frozenset(result)


def target(base: str, name: str) -> str:
    """The module that an import runs: the file behind a face's name, a submodule, or `base`."""
    if base in PACKAGES and name in face(base):
        return face(base)[name]
    inner = f"{base}.{name}".strip(".")
    return inner if name and inner in SOURCES and name not in defined(base) else base


@cache
def graph() -> dict[str, set[str]]:
    """Each module -> the modules that its imports run."""
    return {name: {target(base, part) for _, base, part in imports(name)} for name in trees()}


def may_import(importer: str, imported: str) -> bool:
    """Whether an import points down, or stays in its layer."""
    source, destination = importer.split("."), imported.split(".")
    if imported == "lazy" or source[0] in ("", "__main__"):
        return True
    if source[0] != destination[0]:
        if destination[0] not in BELOW[source[0]]:
            return False
        # Above the modalities only tasks use one's tools, and only the engine all of them.
        alone = source[0] in ("connectors", "backbones") and destination[0] == "modalities"
        return not (alone and is_of_one_modality(imported))
    if source[0] == "modalities":
        return not is_of_one_modality(imported) or source[1:2] == destination[1:2]
    if source[0] == "tasks":
        return may_in_tasks(source[1:], destination[1:])
    if source[0] == "engine" and len(source) > 1:
        return source[1] == destination[1] or LEVEL[destination[1]] < LEVEL[source[1]]
    return True


def is_of_one_modality(module: str) -> bool:
    return ".".join(module.split(".")[:2]) in PACKAGES - {"modalities"}


def may_in_tasks(source: list[str], destination: list[str]) -> bool:
    """The files beside the families (`base.py`) come first, then `common`, then the families."""
    importer, imported = (
        parts[0] if parts and f"tasks.{parts[0]}" in PACKAGES else ""
        for parts in (source, destination)
    )
    if imported in ("", importer):
        return True
    if importer in ("", "common"):
        return False
    return imported == "common" or imported in FAMILIES.get(importer, ())


def circles(modules: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another."""
    reach: dict[str, set[str]] = {}
    for start in modules:
        seen: set[str] = set()
        pending = list(modules[start])
        while pending:
            module = pending.pop()
            if module not in seen:
                seen.add(module)
                pending += modules.get(module, ())
        reach[start] = seen
    groups = {tuple(sorted(m for m in reach[s] if s in reach.get(m, ()))) for s in modules}
    return sorted(list(group) for group in groups if group)


def catalogues() -> Iterator[tuple[str, str, str]]:
    """`(module, catalogue, "sensorium.module:Class")` of every literal catalogue: a mapping, or
    a field of a `Modality`, which is called by its name."""
    for module in sorted(PACKAGES):
        for node in trees()[module].body:
            if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
                continue
            name = ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
            if isinstance(node.value, ast.Call):
                for keyword in node.value.keywords:
                    yield from ((module, keyword.arg or "", p) for p in paths(keyword.value))
            else:
                yield from ((module, name, path) for path in paths(node.value))


def paths(node: ast.AST) -> list[str]:
    leaves = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
    return [leaf for leaf in leaves if isinstance(leaf, str) and leaf.startswith("sensorium.")]
