"""The layers of the package, read from the source alone.

Imports point down; packages import one another through their public faces, the names that an
`__init__.py` lists; there are no circles; folders and files stay small.
"""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from sensorium.tests.source_tree import (
    FILES,
    PACKAGES,
    ROOT,
    SOURCES,
    catalogues,
    circles,
    defined,
    face,
    graph,
    has_face,
    imports,
    is_within,
    may_import,
    package_of,
    target,
    trees,
)

MAX_FILES, MAX_LINES, MAX_FUNCTION = 12, 300, 40


def test_imports_point_down() -> None:
    pairs = [(module, other) for module in sorted(graph()) for other in sorted(graph()[module])]
    unknown = [pair for pair in pairs if pair[1] not in trees()]
    assert not unknown, "imports of modules that do not exist"
    up = [pair for pair in pairs if not may_import(*pair)]
    assert not up, "imports that point up or sideways"


def test_no_circles() -> None:
    assert circles(graph()) == []


def test_packages_are_imported_through_their_faces() -> None:
    """Inside a package, and from a package inside it, a file is imported by its own name."""
    wrong = []
    for module, line, base, name in [
        (m, *result) for m in sorted(trees()) for result in imports(m)
    ]:
        package = package_of(target(base, name))
        if not has_face(package) or is_within(package_of(module), package):
            continue
        listed = {*face(package), *defined(package)}
        if base != package or name not in listed:
            wrong.append(f"{module}, line {line}: {package} does not list {name or base}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", sorted(p for p in PACKAGES if has_face(p)))
def test_a_face_lists_definitions_of_its_files(package: str) -> None:
    for name, module in face(package).items():
        assert package_of(module) == package, f"{package}: {name} comes from another package"
        assert name in defined(module), f"{package}: {module} does not define {name}"
    table = next(
        (
            ast.literal_eval(call.args[1])
            for call in ast.walk(trees()[package])
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "lazy_exports"
        ),
        {},
    )
    listed = {name: f"{package}.{file}" for file, names in table.items() for name in names}
    assert listed == face(package), "the imports for type checkers and the table differ"


def test_tasks_use_no_encoder() -> None:
    encoders = {
        path.removeprefix("sensorium.").partition(":")[0]
        for _, name, path in catalogues()
        if name == "encoders"
    }
    assert encoders
    tasks = [module for module in graph() if is_within(module, "tasks")]
    assert not {m: graph()[m] & encoders for m in tasks if graph()[m] & encoders}


def test_lines_of_data_end_at_line_feeds() -> None:
    """`splitlines` also cuts at signs that a text may hold (U+2028); `read_lines` does not."""
    sources = {name: path.read_text("utf-8") for name, path in SOURCES.items()}
    cut = [
        name for name, text in sources.items() if ".splitlines()" in text and "read_text(" in text
    ]
    assert [name for name in cut if not name.startswith("scripts")] == []


def test_only_scripts_name_the_package() -> None:
    named = [
        f"{module}:{node.lineno}"
        for module, tree in trees().items()
        if not is_within(module, "scripts")
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and (node.module or "").partition(".")[0] == "sensorium"
        )
        or (
            isinstance(node, ast.Import) and any(a.name.startswith("sensorium") for a in node.names)
        )
    ]
    assert not named, f"relative imports inside the package: {named}"


def test_packages_import_nothing_heavy() -> None:
    """A catalogue is strings, and a face imports a file when one of its names is used."""
    light = {"__future__", "collections", "importlib", "typing"}
    heavy = [
        f"{module or 'sensorium'}: {name}"
        for module in PACKAGES
        for node in trees()[module].body
        for name in _imported(node)
        if name.partition(".")[0] not in light and name.lstrip(".") not in ("lazy", "modality")
    ]
    assert not heavy


def _imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def test_catalogues_name_what_their_package_defines() -> None:
    for module, name, path in sorted(set(catalogues())):
        where, _, attribute = path.removeprefix("sensorium.").partition(":")
        assert where.startswith(f"{module}."), f"{module}.{name}: {path} is in another package"
        assert not attribute or attribute in defined(where), f"{module}.{name}: no {path}"


def test_files_are_short_and_described() -> None:
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in SOURCES.items()}
    long = {name: count for name, count in lines.items() if count > MAX_LINES}
    assert not long, f"files of more than {MAX_LINES} lines"
    bare = [name for name in SOURCES if lines[name] and not ast.get_docstring(trees()[name])]
    assert not bare, "files without a docstring"
    private = [str(p) for p in FILES if p.name.startswith("_") and not p.name.startswith("__")]
    assert not private, "privacy is what the face does not list"


def test_functions_are_short() -> None:
    """Lines of the body without the docstring and without functions defined in it."""
    long = {
        f"{module}:{function.lineno} {function.name}": count
        for module, tree in trees().items()
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (count := _body_lines(function)) > MAX_FUNCTION
    }
    assert not long, f"functions of more than {MAX_FUNCTION} lines"


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[ast.get_docstring(function) is not None :]
    inner = [n for n in body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return lines - sum((n.end_lineno or 0) - n.lineno + 1 for n in inner)


def test_folders_are_small() -> None:
    files = {name: len([*SOURCES[name].parent.glob("*.py")]) for name in PACKAGES - {""}}
    large = {name: count for name, count in files.items() if count > MAX_FILES}
    assert not large, f"folders of more than {MAX_FILES} files"


def test_tests_are_short_and_their_folders_small() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    lines = {str(path): len(path.read_text("utf-8").splitlines()) for path in tests}
    long = {path: count for path, count in lines.items() if count > MAX_LINES}
    assert not long, f"files of more than {MAX_LINES} lines"
    files = Counter(str(path.parent) for path in tests)
    large = {folder: count for folder, count in files.items() if count > MAX_FILES}
    assert not large, f"folders of more than {MAX_FILES} files"


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("engine.model.fit", "tasks.base", True),
        ("tasks.base", "engine.model.fit", False),
        ("engine.model.fit", "engine.utils.errors", True),
        ("engine.utils.errors", "engine.model.fit", False),
        ("engine.cache.store", "engine.recipe.recipe", False),
        ("engine.training.train", "engine.report.report", False),
        ("tasks.control.control", "modalities.action.tokenizers.base", True),
        ("tasks.control.control", "tasks.common.heads", True),
        ("tasks.control.control", "tasks.speech.ctc", False),
        ("tasks.common.heads", "tasks.control.control", False),
        ("tasks.base", "tasks.common.heads", False),
        ("connectors.heads", "modalities.base", True),
        ("connectors.heads", "modalities.image.encoders.timm", False),
        ("connectors.heads", "backbones.base", False),
        ("modalities.image.encoders.timm", "modalities.base", True),
        ("modalities.image.encoders.timm", "modalities.text.read", False),
        ("modalities.base", "modalities.image", False),
        ("engine.checkpoint.run_folder", "scripts.train", False),
        ("scripts.train", "engine.checkpoint.run_folder", True),
    ],
)
def test_layers(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


def test_a_circle_is_found() -> None:
    modules = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(modules) == [["b", "c"]]
