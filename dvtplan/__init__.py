"""dvtplan: plan, train, predict and evaluate leg vein thrombosis segmentation on MR.

The functions below are imported when they are first used, so ``import dvtplan`` is fast and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvtplan.evaluation.evaluate import evaluate
    from dvtplan.inference.model import load_model
    from dvtplan.inference.predict import predict_fold
    from dvtplan.inference.predict import predict_path as predict
    from dvtplan.planning.preprocess import plan_and_preprocess
    from dvtplan.training.train import train_fold

__all__ = ["__version__", "evaluate", "load_model", "plan_and_preprocess", "predict", "predict_fold", "train_fold"]
__version__ = "0.1.0"

_FUNCTIONS = {
    "evaluate": ("dvtplan.evaluation.evaluate", "evaluate"),
    "load_model": ("dvtplan.inference.model", "load_model"),
    "plan_and_preprocess": ("dvtplan.planning.preprocess", "plan_and_preprocess"),
    "predict": ("dvtplan.inference.predict", "predict_path"),
    "predict_fold": ("dvtplan.inference.predict", "predict_fold"),
    "train_fold": ("dvtplan.training.train", "train_fold"),
}
"""Name -> module and function."""


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'dvtplan' has no attribute {name!r}")
    module, function = _FUNCTIONS[name]
    return getattr(importlib.import_module(module), function)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
