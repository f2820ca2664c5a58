"""The rules of docs/architecture.md: which subpackage may import which, and which module may use which library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dvtplan"
TOOLS = ROOT / "tools"

MAY_IMPORT = {
    "core": set(),
    "imaging": {"core"},
    "anatomy": {"core", "imaging"},
    "data": {"core", "imaging", "anatomy"},
    "rendering": {"core", "imaging", "anatomy"},
    "planning": {"core", "imaging", "data"},
    "dicom": {"core", "imaging", "data"},
    "models": {"core", "data", "planning"},
    "findings": {"core", "imaging", "anatomy", "data", "rendering", "planning"},
    "training": {"core", "data", "rendering", "planning", "models"},
    "inference": {"core", "imaging", "data", "dicom", "planning", "models", "findings"},
    "evaluation": {"core", "imaging", "anatomy", "data", "planning", "models"},
    "reporting": {"core", "imaging", "anatomy", "data", "rendering", "planning", "models", "evaluation"},
    "cli": {
        "core", "imaging", "anatomy", "data", "rendering", "planning", "dicom", "models", "findings", "training",
        "inference", "evaluation", "reporting",
    },
}  # fmt: skip
"""Subpackage -> the subpackages that it may import. Its own modules it may import without cycles."""

ADAPTERS = {
    "SimpleITK": {"imaging.volume_io"},
    "batchgenerators": {"training.data_loading"},
    "matplotlib": {"rendering.charts", "rendering.output", "rendering.page_layout", "rendering.slices"},
    "tqdm": {"core.console", "training.progress"},
    "pydicom": {"dicom.reader"},
    "highdicom": {"dicom.segmentation_writer"},
    "zipfile": {"core.verified_archive", "dicom.reader"},
    "torch.distributed": {"training.distributed"},
}
"""Library -> the only modules that may import it."""

TORCH = {"models", "training", "inference"}
"""The subpackages that may use torch. Loading any other module must not load it."""
TORCH_INSIDE = {"reporting.model_export"}
"""Modules elsewhere that need a network's weights; the others never import them when they are loaded."""

TOOLS_MAY_IMPORT = {
    "phantom": set(),
    "bench": {"dvtplan", "phantom"},
    "compare": {"dvtplan"},
    "ablation_study": {"dvtplan", "compare"},
    "gpucheck": {"dvtplan", "phantom", "bench"},
    "validation": {"dvtplan", "phantom"},
    "reproduction": {"dvtplan", "phantom"},
    "fuzzing": {"dvtplan"},
}  # fmt: skip
"""Package of tools/ -> the packages of this repository that it may import. The phantom must not know what segments
it."""
PHANTOM_ADAPTERS = {"SimpleITK": {"cohort"}, "matplotlib": {"figures"}, "tqdm": {"cohort"}}


def modules(folder: Path) -> dict[str, Path]:
    """Dotted name below a folder -> file."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, at_load: bool = False) -> set[str]:
    """Dotted names that a file imports; with ``at_load`` only those outside functions and type checks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body if at_load else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def inside(package: str, names: set[str], known: dict[str, Path]) -> set[str]:
    """The modules of a package among imported names, without the package's name; an imported object counts as its
    module."""
    found = set()
    for name in names:
        if name.startswith(package + "."):
            below = name.removeprefix(package + ".")
            found.add(below if below in known else below.rpartition(".")[0])
    return found


OURS = modules(PACKAGE)
CODE = {name: path for name, path in OURS.items() if "." in name}
IMPORTED = {name: inside("dvtplan", imports(path), OURS) for name, path in CODE.items()}


def subpackage(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_lies_in_a_subpackage_of_the_table() -> None:
    assert {subpackage(name) for name in CODE} == set(MAY_IMPORT)
    assert set(OURS) - set(CODE) - set(MAY_IMPORT) == {"", "__main__"}


@pytest.mark.parametrize("module", sorted(CODE))
def test_a_module_imports_only_what_its_subpackage_may(module: str) -> None:
    mine = subpackage(module)
    others = {subpackage(name) for name in IMPORTED[module]} - {mine, ""}
    assert others <= MAY_IMPORT[mine]


@pytest.mark.parametrize("name", ["table", "modules"])
def test_nothing_imports_in_a_circle(name: str) -> None:
    graph = {"table": MAY_IMPORT, "modules": IMPORTED}[name]
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, " -> ".join((*path, node))
        if node not in done:
            for other in sorted(graph.get(node, ())):
                visit(other, (*path, node))
            done.add(node)

    for node in graph:
        visit(node, ())


@pytest.mark.parametrize("library", sorted(ADAPTERS))
def test_each_library_is_used_by_its_adapters_alone(library: str) -> None:
    users = {
        name
        for name, path in OURS.items()
        if any(used == library or used.startswith(library + ".") for used in imports(path))
    }
    assert users == ADAPTERS[library]


@pytest.mark.parametrize("module", sorted(name for name in CODE if subpackage(name) not in TORCH))
def test_torch_is_used_where_it_may_be(module: str) -> None:
    used = imports(CODE[module])
    assert not any(name == "torch" or name.startswith("torch.") for name in used)
    if module not in TORCH_INSIDE:
        assert not loads_torch(module, set())


def loads_torch(module: str, seen: set[str]) -> bool:
    """Whether loading a module loads torch."""
    seen.add(module)
    used = imports(OURS[module], at_load=True)
    if any(name == "torch" or name.startswith("torch.") for name in used):
        return True
    return any(loads_torch(other, seen) for other in inside("dvtplan", used, OURS) - seen)


def test_only_the_command_line_prints() -> None:
    printing = {
        subpackage(name)
        for name, path in OURS.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"cli"}


def test_no_assert_guards_user_input() -> None:
    asserting = [
        name
        for name, path in OURS.items()
        if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    assert asserting == []


def test_a_subpackage_holds_only_a_docstring_in_its_init() -> None:
    for name, path in OURS.items():
        if path.name == "__init__.py" and name not in ("", "cli"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert [type(node) for node in body] == [ast.Expr], path


def test_the_architecture_page_shows_the_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = page.partition("## tools")[0].splitlines()
    rows = {line.split("|")[1].strip().strip("`"): line for line in lines if line.startswith("| `")}
    for name, allowed in MAY_IMPORT.items():
        listed = rows[name].split("|")[3].replace("`", "").replace(",", " ").split()
        assert set(listed) == (allowed if name != "cli" else {"all"}), name


@pytest.mark.parametrize("package", sorted(TOOLS_MAY_IMPORT))
def test_tools_import_what_they_may_and_never_in_a_circle(package: str) -> None:
    ours = {"dvtplan", *TOOLS_MAY_IMPORT}
    known = modules(TOOLS / package)
    graph = {name: inside(package, imports(path), known) for name, path in known.items() if name}
    used = {name.partition(".")[0] for path in known.values() for name in imports(path)}
    assert used & (ours - {package}) <= TOOLS_MAY_IMPORT[package]
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, " -> ".join((*path, node))
        if node not in done:
            for other in sorted(graph.get(node, set())):
                visit(other, (*path, node))
            done.add(node)

    for node in graph:
        visit(node, ())


def test_no_script_imports_a_script() -> None:
    scripts = {path.stem for path in TOOLS.glob("*.py")} - {"arguments"}
    for path in TOOLS.glob("*.py"):
        assert {name.partition(".")[0] for name in imports(path)} & scripts == set(), path


@pytest.mark.parametrize("library", sorted(PHANTOM_ADAPTERS))
def test_the_phantom_uses_each_library_in_one_module(library: str) -> None:
    users = {
        name
        for name, path in modules(TOOLS / "phantom").items()
        if any(used.split(".")[0] == library for used in imports(path))
    }
    assert users <= PHANTOM_ADAPTERS[library]
