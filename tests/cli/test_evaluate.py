"""The command dvt_evaluate, which never loads torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dvtplan.data.paths import Workspace

EVALUATE = """
import sys
from dvtplan import cli
cli.evaluate()
assert "torch" not in sys.modules, "torch was loaded"
"""


def test_evaluation_never_loads_torch(trained: Workspace) -> None:
    """Pictures included."""
    words = [sys.executable, "-c", EVALUATE, "--root", str(trained.root), "--overlays"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines() if line.startswith(str(trained.root))]
    assert trained.results("gn_unet") / "metrics.csv" in written
    assert len([p for p in written if p.suffix == ".png"]) == 4 and all(p.exists() for p in written)
