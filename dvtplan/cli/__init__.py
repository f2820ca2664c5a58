"""The commands. Each parses, imports its stage, calls it, and prints what was written.

Stages are imported after parsing, so that ``--help`` is quick and ``dvt_evaluate`` never loads torch.
"""

from dvtplan.cli.data import import_dicom, plan_and_preprocess
from dvtplan.cli.models import model
from dvtplan.cli.overview import overview
from dvtplan.cli.prediction import predict
from dvtplan.cli.running import INTERRUPTED
from dvtplan.cli.scoring import evaluate, report
from dvtplan.cli.training import train

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
