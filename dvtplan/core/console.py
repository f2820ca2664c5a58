"""What a run tells: progress bars, notes, a log file and the table of epochs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from dvtplan.core.errors import DvtError
from dvtplan.core.files import cannot_write
from dvtplan.core.text import now

T = TypeVar("T")

verbosity = {"quiet": False, "verbose": False}
_translation: list[Callable[[str], str]] = []


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set what this process prints: quiet omits bars, notes and details; verbose adds details."""
    verbosity.update(quiet=quiet, verbose=verbose)


def set_translation(translate: Callable[[str], str]) -> None:
    """Pass every message through a function before it is printed; the command line puts its options' names in."""
    _translation[:] = [translate]


def translated(text: str) -> str:
    """A message in the words of whoever runs the library."""
    return _translation[0](text) if _translation else text


def is_verbose() -> bool:
    """Return whether details are printed."""
    return verbosity["verbose"]


def progress(items: Iterable[T], title: str, total: int | None = None, *, leave: bool = True) -> Iterable[T]:
    """A progress bar on stderr over items; silent for none. It goes at the end, or stays to be read."""
    if isinstance(items, Sized) and len(items) == 0:
        return items
    return tqdm(
        items,
        desc=title,
        total=total,
        leave=leave,
        disable=verbosity["quiet"],
        dynamic_ncols=True,
        file=sys.stderr,
        mininterval=refresh_interval_s(),
        delay=0 if leave else 2 * refresh_interval_s(),
    )


def refresh_interval_s() -> float:
    """Seconds between redraws of a bar: often for a person, seldom for a log file."""
    return 0.2 if sys.stderr.isatty() else 15.0


def info(text: str, log: Path | None = None) -> None:
    """Say something on stderr without breaking a progress bar, and keep it in a log file.

    Raises:
        DvtError: if the log cannot be written.
    """
    text = translated(text)
    if not verbosity["quiet"]:
        tqdm.write(text, file=sys.stderr)
    if log is not None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{now()} {text}\n")
        except OSError as error:
            raise DvtError(cannot_write(log, error)) from error


def debug(text: str) -> None:
    """Say something on stderr that only who asks for it by -v wants to know."""
    if is_verbose():
        info(text)


def warn(text: str) -> None:
    """Say on stderr what must not be missed; quiet does not silence it."""
    tqdm.write(f"warning: {translated(text)}", file=sys.stderr)
