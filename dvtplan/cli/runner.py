"""How a command runs: one line for what the user can mend, an exit status that tells what happened."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from dvtplan.core import process_group
from dvtplan.core.errors import DvtError

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it; a DvtError gives 1, a wrong option 2."""
COMMANDS = {
    "evaluate": "dvt_evaluate",
    "export_model": "dvt_model export",
    "import_dicom": "dvt_import",
    "plan_and_preprocess": "dvt_plan_and_preprocess",
    "predict": "dvt_predict",
    "train_fold": "dvt_train",
    "write_report": "dvt_report",
}
"""Function of the library -> command."""
BROKEN_PIPE = 141
"""Where the reader of the output has gone, as shells have it."""


def for_command_line(message: str) -> str:
    """Replace what the library wrote in backticks by the words of the command line.

    The library names a parameter as `` `folds` `` or `` `device='cpu'` `` and a stage by its function; they become
    ``--folds``, ``--device cpu`` and ``dvt_train``.
    """
    return re.sub(r"`([a-z]\w*)(?:=([^`]*))?`", _words, message)


def _words(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    if name in COMMANDS and value is None:
        return COMMANDS[name]
    option = name.replace("_", "-")
    if value in (None, "True"):
        return f"--{option}"
    if value == "False":
        return f"--no-{option}"
    return f"--{option} {re.sub(r'[][,]', ' ', value).replace(chr(39), '').strip()}"


def command(main: Callable[[list[str]], None]) -> Callable[[], None]:
    """A console script: one line for what the user can mend, a traceback only for our own faults."""

    @functools.wraps(main)
    def script() -> None:
        from dvtplan.core import console

        console.set_translation(for_command_line)
        try:
            main(sys.argv[1:])
            if not _flush():
                sys.exit(BROKEN_PIPE)
        except DvtError as error:
            if console.is_verbose():
                traceback.print_exception(error)
            _flush()
            sys.exit(_one_line(Path(sys.argv[0]).name, for_command_line(str(error))))
        except KeyboardInterrupt:
            print("\nInterrupted; what was finished is kept.", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            _flush()
            sys.exit(BROKEN_PIPE)

    return script


def _flush() -> bool:
    """Give out what was printed; false where its reader has gone, having seen enough (`dvt_model info M | head`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _one_line(command: str, message: str) -> str:
    """What an error leaves on the screen: under torchrun the first process tells it whole, the others say which
    they are."""
    rank, world = process_group.rank_and_world_size()
    if rank == 0:
        return f"{command}: {message}"
    return f"{command} (process {rank + 1} of {world}): {message.splitlines()[0]}"


@contextlib.contextmanager
def command_process_group() -> Iterator[process_group.ProcessGroup]:
    """The processes that torchrun started for this command, or this one alone, which does without torch."""
    if not process_group.under_torchrun():
        yield process_group.ProcessGroup()
        return
    from dvtplan.training import distributed

    with distributed.process_group("cpu") as group:
        yield group
