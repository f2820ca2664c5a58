"""The functions of `import dvtplan`."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import dvtplan

FUNCTIONS = {
    "evaluate": ("dvtplan.evaluation.evaluate", "evaluate"),
    "load_model": ("dvtplan.inference.model", "load_model"),
    "plan_and_preprocess": ("dvtplan.planning.preprocess", "plan_and_preprocess"),
    "predict": ("dvtplan.inference.predict", "predict_path"),
    "predict_fold": ("dvtplan.inference.predict", "predict_fold"),
    "train_fold": ("dvtplan.training.train", "train_fold"),
}
"""Name in dvtplan -> module and function."""


def test_the_import_loads_no_heavy_library() -> None:
    code = "import sys, dvtplan; dir(dvtplan); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "dvtplan" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "pydicom", "tqdm"}
    assert not any(name.startswith("dvtplan.") for name in loaded)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_is_listed_and_is_that_of_its_module(name: str) -> None:
    module, function = FUNCTIONS[name]
    assert getattr(dvtplan, name) is getattr(importlib.import_module(module), function)
    assert name in dir(dvtplan) and name in dvtplan.__all__


def test_all_public_names_are_these_functions_and_the_version() -> None:
    assert set(dvtplan.__all__) == {*FUNCTIONS, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = dvtplan.nonsense
    assert not hasattr(dvtplan, "segment")
