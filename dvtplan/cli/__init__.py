"""The commands. Each one parses its options, calls its stage of the library, and prints what was written.

Stages are imported after parsing, so that ``--help`` is fast and ``dvt_evaluate`` never loads torch.
"""

from __future__ import annotations

from dvtplan.cli.evaluate import evaluate
from dvtplan.cli.import_dicom import import_dicom
from dvtplan.cli.model import model
from dvtplan.cli.overview import overview
from dvtplan.cli.plan_and_preprocess import plan_and_preprocess
from dvtplan.cli.predict import predict
from dvtplan.cli.report import report
from dvtplan.cli.train import train
from dvtplan.core.child_processes import INTERRUPTED

__all__ = [
    "INTERRUPTED",
    "evaluate",
    "import_dicom",
    "model",
    "overview",
    "plan_and_preprocess",
    "predict",
    "report",
    "train",
]
