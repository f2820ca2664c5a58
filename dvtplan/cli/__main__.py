"""Run ``python -m dvtplan.cli train ...`` as ``dvt_train ...``, for processes without console scripts."""

from __future__ import annotations

import sys

from dvtplan import cli

COMMANDS = {"import_dicom": "dvt_import", "overview": "dvt"}
"""Function -> its command, if it is not ``dvt_`` and the function's name."""


def main() -> None:
    """Run the command that the first word names."""
    functions = [name for name in cli.__all__ if callable(getattr(cli, name))]
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    usage = f"usage: python -m dvtplan.cli {{{','.join(functions)}}} [option ...]"
    if name in ("-h", "--help"):
        print(usage)
        return
    if name not in functions:
        sys.exit(usage)
    sys.argv[0] = COMMANDS.get(name, f"dvt_{name}")  # the name in messages and --help
    getattr(cli, name)()


if __name__ == "__main__":
    main()
