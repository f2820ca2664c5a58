"""dvtplan: plan, train, predict and evaluate leg vein thrombosis segmentation on MR.

The functions below are imported when they are first used, so ``import dvtplan`` is fast and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvtplan.core.errors import DvtError
    from dvtplan.data.paths import Workspace, open_workspace
    from dvtplan.evaluation.evaluate import evaluate
    from dvtplan.evaluation.options import EvaluationOptions
    from dvtplan.findings.options import FindingsOptions
    from dvtplan.inference.model import load_model
    from dvtplan.inference.options import PredictOptions
    from dvtplan.inference.predict import predict_fold
    from dvtplan.inference.predict import predict_path as predict
    from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess
    from dvtplan.planning.recipe import Recipe
    from dvtplan.training.job import TrainingOptions
    from dvtplan.training.train import train_fold

__all__ = [
    "DvtError",
    "EvaluationOptions",
    "FindingsOptions",
    "PredictOptions",
    "PreprocessOptions",
    "Recipe",
    "TrainingOptions",
    "Workspace",
    "__version__",
    "evaluate",
    "load_model",
    "open_workspace",
    "plan_and_preprocess",
    "predict",
    "predict_fold",
    "train_fold",
]
__version__ = "0.1.0"

_PLACES = {
    "DvtError": "dvtplan.core.errors",
    "EvaluationOptions": "dvtplan.evaluation.options",
    "FindingsOptions": "dvtplan.findings.options",
    "PredictOptions": "dvtplan.inference.options",
    "PreprocessOptions": "dvtplan.planning.preprocess",
    "Recipe": "dvtplan.planning.recipe",
    "TrainingOptions": "dvtplan.training.job",
    "Workspace": "dvtplan.data.paths",
    "evaluate": "dvtplan.evaluation.evaluate",
    "load_model": "dvtplan.inference.model",
    "open_workspace": "dvtplan.data.paths",
    "plan_and_preprocess": "dvtplan.planning.preprocess",
    "predict": "dvtplan.inference.predict",
    "predict_fold": "dvtplan.inference.predict",
    "train_fold": "dvtplan.training.train",
}
"""Name -> its module."""
_RENAMED = {"predict": "predict_path"}
"""Name -> its name there, if it is another."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'dvtplan' has no attribute {name!r}")
    importlib.import_module("dvtplan.core.threads").prepare()  # before torch is loaded
    return getattr(importlib.import_module(_PLACES[name]), _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
