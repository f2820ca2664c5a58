"""The names of `import dvtplan`."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import dvtplan

PUBLIC = {
    "DvtError": ("dvtplan.core.errors", "DvtError"),
    "EvaluationOptions": ("dvtplan.evaluation.options", "EvaluationOptions"),
    "FindingsOptions": ("dvtplan.findings.options", "FindingsOptions"),
    "PredictOptions": ("dvtplan.inference.options", "PredictOptions"),
    "PreprocessOptions": ("dvtplan.planning.preprocess", "PreprocessOptions"),
    "Recipe": ("dvtplan.planning.recipe", "Recipe"),
    "TrainingOptions": ("dvtplan.training.job", "TrainingOptions"),
    "Workspace": ("dvtplan.data.paths", "Workspace"),
    "open_workspace": ("dvtplan.data.paths", "open_workspace"),
    "evaluate": ("dvtplan.evaluation.evaluate", "evaluate"),
    "load_model": ("dvtplan.inference.model", "load_model"),
    "plan_and_preprocess": ("dvtplan.planning.preprocess", "plan_and_preprocess"),
    "predict": ("dvtplan.inference.predict", "predict_path"),
    "predict_fold": ("dvtplan.inference.predict", "predict_fold"),
    "train_fold": ("dvtplan.training.train", "train_fold"),
}
"""Name in dvtplan -> module, and name there."""


def test_the_import_loads_no_heavy_library() -> None:
    code = "import sys, dvtplan; dir(dvtplan); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "dvtplan" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "pydicom", "tqdm"}
    assert not any(name.startswith("dvtplan.") for name in loaded)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_listed_and_is_that_of_its_module(name: str) -> None:
    module, original = PUBLIC[name]
    assert getattr(dvtplan, name) is getattr(importlib.import_module(module), original)
    assert name in dir(dvtplan) and name in dvtplan.__all__


def test_all_public_names_are_these_and_the_version() -> None:
    assert set(dvtplan.__all__) == {*PUBLIC, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = dvtplan.nonsense
    assert not hasattr(dvtplan, "segment")
