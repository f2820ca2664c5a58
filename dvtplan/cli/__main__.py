"""Run ``python -m dvtplan.cli train ...`` as ``dvt_train ...``, for processes without console scripts."""

from __future__ import annotations

import sys

from dvtplan import cli

COMMANDS = {"import_dicom": "dvt_import", "overview": "dvt"}
"""Function -> its command, if it is not ``dvt_`` and the function's name."""

if __name__ == "__main__":
    name = sys.argv.pop(1)
    sys.argv[0] = COMMANDS.get(name, f"dvt_{name}")  # the name in messages and --help
    getattr(cli, name)()
