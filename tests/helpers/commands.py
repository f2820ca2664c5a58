"""The commands, and how to start one in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from dvtplan import cli

COMMANDS = {
    "import": cli.import_dicom,
    "plan_and_preprocess": cli.plan_and_preprocess,
    "train": cli.train,
    "predict": cli.predict,
    "evaluate": cli.evaluate,
    "report": cli.report,
    "model": cli.model,
    "overview": cli.overview,
}
"""Name after ``dvt_`` -> function; the overview is ``dvt`` itself."""


def start(command: str, *words: object, **env: str) -> subprocess.Popen[str]:
    """Start a command; ``env`` adds to the environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvtplan.cli", command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
