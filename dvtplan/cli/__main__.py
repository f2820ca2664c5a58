"""Run ``python -m dvtplan.cli train ...`` as ``dvt_train ...``, for processes without console scripts."""

from __future__ import annotations

import sys

from dvtplan import cli
from dvtplan.cli import streams
from dvtplan.core import console

COMMANDS = {"import_dicom": "dvt_import", "overview": "dvt"}
"""Function -> its command, if it is not ``dvt_`` and the function's name."""


def main() -> None:
    """Run the command that the first word names; without one, list the commands as ``dvt`` does."""
    functions = [name for name in cli.__all__ if callable(getattr(cli, name))]
    names = {COMMANDS.get(name, f"dvt_{name}"): name for name in functions}
    word = sys.argv[1] if len(sys.argv) > 1 else "overview"
    name = names.get(word, word)
    if word.startswith("-"):
        name = "overview"
    elif len(sys.argv) > 1:
        del sys.argv[1]
    if name not in functions:
        streams.prepare()
        console.MESSAGES.write(f"python -m dvtplan: unknown command {word!r}. Choose from: {', '.join(functions)}.\n")
        sys.exit(2)
    sys.argv[0] = COMMANDS.get(name, f"dvt_{name}")  # the name in messages and --help
    getattr(cli, name)()


if __name__ == "__main__":
    main()
