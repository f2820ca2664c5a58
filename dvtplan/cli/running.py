"""How a command runs: one line for what the user can mend, an exit status that tells what happened."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from dvtplan import team
from dvtplan.errors import DvtError

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it; a DvtError gives 1, a wrong option 2."""
BROKEN_PIPE = 141
"""Where the reader of the output has gone, as shells have it."""


def command(main: Callable[[list[str]], None]) -> Callable[[], None]:
    """A console script: one line for what the user can mend, a traceback only for our own faults."""

    @functools.wraps(main)
    def script() -> None:
        try:
            main(sys.argv[1:])
            if not _flush():
                sys.exit(BROKEN_PIPE)
        except DvtError as error:
            from dvtplan import journal

            if journal.is_verbose():
                traceback.print_exception(error)
            _flush()
            sys.exit(_one_line(Path(sys.argv[0]).name, str(error)))
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
    rank, world = team.place()
    if rank == 0:
        return f"{command}: {message}"
    return f"{command} (process {rank + 1} of {world}): {message.splitlines()[0]}"


@contextlib.contextmanager
def gathered() -> Iterator[team.Team]:
    """The processes that torchrun started for this command, or this one alone, which does without torch."""
    if not team.under_torchrun():
        yield team.Team()
        return
    from dvtplan import parallel

    with parallel.joined("cpu") as group:
        yield group
