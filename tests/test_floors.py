"""The floors of docs/architecture.md: imports go strictly downward, and each outside thing has one door."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dvtplan"

FLOORS = {
    "__init__": 0,
    "errors": 1, "geometry": 1, "records": 1, "team": 1,
    "artifacts": 2, "voxels": 2, "training_data": 2,
    "nifti": 3, "normalize": 3, "resize": 3, "fingerprint": 3, "plan": 3, "folds": 3, "regions": 3, "metrics": 3,
    "landmarks": 3, "surfaces": 3, "lesions": 3, "stacks": 3, "stations": 3, "statistics": 3, "paired": 3, "recipes": 3,
    "familiarity": 3, "augment": 3, "loss": 3, "networks": 3,
    "workspace": 4, "volumes": 4, "slicefile": 4, "burden": 4, "devices": 4, "parallel": 4, "journal": 4, "figures": 4,
    "tables": 4, "page": 4, "sealed": 4, "agreement": 4,
    "comparison": 5, "level_shift": 5, "dicom": 5, "measures_table": 5, "dataset": 5, "prepared": 5, "checkpoint": 5,
    "workers": 5, "pictures": 5, "provenance": 5, "ledger": 5, "findings": 5,
    "batches": 6, "pairs": 6, "chapters": 6, "scans": 6, "segments": 6, "models": 6, "inference": 6, "summary": 6,
    "levels": 6,
    "telling": 7, "forms": 7,
    "importing": 8, "preprocess": 8, "train": 8, "predict": 8, "evaluate": 8, "report": 8, "export": 8,
    "cli": 9,
}  # fmt: skip

SAME_FLOOR = {("records", "geometry"), ("records", "errors")}
"""The vocabulary may speak of itself."""

DOORS = {
    "SimpleITK": {"volumes"},
    "batchgenerators": {"batches"},
    "matplotlib": {"figures"},
    "tqdm": {"journal"},
    "pydicom": {"dicom"},
    "highdicom": {"segments"},
    "zipfile": {"dicom", "sealed"},
    "torch.distributed": {"parallel"},
    "torch.multiprocessing": {"parallel"},
    "json": {
        "artifacts",
        "dataset",
        "preprocess",
        "predict",
        "pairs",
        "report",
        "importing",
        "sealed",
        "models",
    },
}
"""Package -> the modules that may import it. JSON that is no record of ours (dataset.json, splits.json)
is read where it is understood."""

WITHOUT_TORCH = {
    "cli",
    "importing",
    "preprocess",
    "evaluate",
    "report",
    "chapters",
    "pictures",
    "summary",
    "findings",
    "page",
    "tables",
    "statistics",
    "paired",
    "comparison",
    "measures_table",
    "metrics",
    "surfaces",
    "lesions",
    "dataset",
    "prepared",
    "training_data",
    "sealed",
    "models",
}

PHANTOM = ROOT / "tools" / "phantom"

PHANTOM_FLOORS = {
    "__init__": 0,
    "grid": 1, "signals": 1, "template": 1, "difficulty": 1, "probes": 1,
    "files": 1, "workers": 1,
    "shapes": 2,
    "anatomy": 3,
    "body": 4, "skeleton": 4, "contrast": 4, "confounders": 4, "thrombus": 4,
    "artefacts": 5, "rater": 5,
    "cohort": 6,
    "pictures": 7,
}  # fmt: skip
PHANTOM_DOORS = {"SimpleITK": {"cohort"}, "matplotlib": {"pictures"}, "tqdm": {"cohort"}, "dvtplan": set[str]()}
"""The phantom knows nothing of what it is to be segmented by."""

BENCH = ROOT / "tools" / "bench"
BENCH_FLOORS = {
    "__init__": 0,
    "machine": 1, "clock": 1, "rows": 1,
    "inputs": 2,
    "limits": 3, "nnunet": 3, "deep": 3, "startup": 3,
    "steps": 4,
    "training": 5, "prediction": 5, "stages": 5,
}  # fmt: skip
GPUCHECK = ROOT / "tools" / "gpucheck"
GPUCHECK_FLOORS = {
    "__init__": 0,
    "settings": 1, "lifetime": 1,
    "checks": 2,
    "record": 3, "networks": 3, "operations": 3, "study": 3, "small_training": 3,
    "collectives": 4, "runner": 4,
    "processes": 5,
    "speed": 6,
    "parts": 7,
    "child": 8,
}  # fmt: skip
TOOLS = {
    "phantom": (PHANTOM, PHANTOM_FLOORS),
    "bench": (BENCH, BENCH_FLOORS),
    "gpucheck": (GPUCHECK, GPUCHECK_FLOORS),
}
"""Packages beside ours -> their folder and floors."""


def modules() -> dict[str, list[Path]]:
    """Module name -> its files; the networks are one room."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        found.setdefault(inside.parts[0].removesuffix(".py"), []).append(path)
    return found


def imports(paths: list[Path], *, at_load: bool = False) -> set[str]:
    """Dotted names that some files import; ``at_load`` leaves out those inside functions and type checks."""
    names: set[str] = set()
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = _top_level(tree) if at_load else ast.walk(tree)
        for node in nodes:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _top_level(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]


def own(names: set[str]) -> set[str]:
    """Our modules among imported names."""
    ours = {name.split(".")[1] for name in names if name.startswith("dvtplan.")}
    return {name for name in ours if name in FLOORS}


def test_every_module_has_a_floor_and_stands_in_the_architecture() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert set(modules()) == set(FLOORS)
    missing = [m for m in FLOORS if m != "__init__" and not re.search(rf"`{m}(\.py|/)`", picture)]
    assert missing == []


@pytest.mark.parametrize("module", sorted(FLOORS))
def test_imports_go_strictly_downward(module: str) -> None:
    upward = {
        other
        for other in own(imports(modules()[module])) - {module}
        if FLOORS[other] >= FLOORS[module] and (module, other) not in SAME_FLOOR
    }
    assert upward == set()


@pytest.mark.parametrize("package", sorted(DOORS))
def test_each_outside_thing_has_one_door(package: str) -> None:
    users = {
        module
        for module, paths in modules().items()
        if any(name == package or name.startswith(package + ".") for name in imports(paths))
    }
    assert users <= DOORS[package]


def test_no_module_prints_but_the_command_line() -> None:
    printing = {
        module
        for module, paths in modules().items()
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing <= {"cli"}


def test_torch_is_not_reached_where_it_must_not_be() -> None:
    def reach(module: str, seen: set[str]) -> set[str]:
        names = imports(modules()[module], at_load=True)
        for other in own(names) - seen:
            names |= reach(other, seen | own(names))
        return names

    for module in WITHOUT_TORCH:
        assert not any(n == "torch" or n.startswith("torch.") for n in reach(module, {module})), module


def test_no_assert_guards_user_input() -> None:
    asserting = [
        str(path)
        for paths in modules().values()
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert asserting == []


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_room_of_a_tool_has_a_floor(tool: str) -> None:
    folder, floors = TOOLS[tool]
    assert {path.stem for path in folder.glob("*.py")} == set(floors)
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [m for m in floors if m != "__init__" and f"`{m}`" not in picture] == []


@pytest.mark.parametrize(("tool", "module"), [(t, m) for t, (_, floors) in TOOLS.items() for m in sorted(floors)])
def test_tools_import_strictly_downward(tool: str, module: str) -> None:
    folder, floors = TOOLS[tool]
    names = {name.split(".")[1] for name in imports([folder / f"{module}.py"]) if name.startswith(f"{tool}.")}
    assert {n for n in names & set(floors) if floors[n] >= floors[module]} == set()


@pytest.mark.parametrize("package", sorted(PHANTOM_DOORS))
def test_the_phantom_reaches_outside_through_its_doors(package: str) -> None:
    users = {m for m in PHANTOM_FLOORS if any(n.split(".")[0] == package for n in imports([PHANTOM / f"{m}.py"]))}
    assert users <= PHANTOM_DOORS[package]
