"""``python -m dvtplan.cli train ...`` is ``dvt_train ...``, for processes that have no scripts at hand."""

from __future__ import annotations

import sys

from dvtplan import cli

if __name__ == "__main__":
    name = sys.argv.pop(1)
    sys.argv[0] = f"dvt_{name}"  # what messages and --help call it
    getattr(cli, name)()
