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
            sys.stdout.flush()
        except DvtError as error:
            from dvtplan import journal

            if journal.is_verbose():
                traceback.print_exception(error)
            sys.exit(_one_line(Path(sys.argv[0]).name, str(error)))
        except KeyboardInterrupt:
            print("\nInterrupted; what was finished is kept.", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # Who reads has seen enough, as in `dvt_model info M | head`; what is left would fail once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(BROKEN_PIPE)

    return script


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
