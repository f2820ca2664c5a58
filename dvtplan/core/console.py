"""Messages and progress bars on stderr, with an optional log file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

from dvtplan.core.errors import DvtError, cannot_write
from dvtplan.core.text import now

T = TypeVar("T")


class _Messages:
    """stderr, as it is at the moment. A message that cannot be written is dropped; work goes on without it."""

    def write(self, text: str) -> int:
        """Write a text if that is possible; return its length."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full or hung up, closed, None
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        """Return whether a person watches."""
        try:
            return sys.stderr.isatty()
        except (ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


MESSAGES = _Messages()
"""The stream of all messages."""

verbosity = {"quiet": False, "verbose": False}
_translation: list[Callable[[str], str]] = []


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set what this process prints: ``quiet`` leaves only warnings, ``verbose`` adds details."""
    verbosity.update(quiet=quiet, verbose=verbose)


def set_translation(translate: Callable[[str], str]) -> None:
    """Set a function that rewrites every message; the command line inserts the names of its options.

    Worker processes use it too, so it must be defined in a module.
    """
    _translation[:] = [translate]


def settings() -> tuple[dict[str, bool], list[Callable[[str], str]]]:
    """Return the verbosity and translation of this process, for ``restore`` in another process."""
    return dict(verbosity), list(_translation)


def restore(state: tuple[dict[str, bool], list[Callable[[str], str]]]) -> None:
    """Print messages like the process that called ``settings``."""
    verbosity.update(state[0])
    _translation[:] = state[1]


def translated(text: str) -> str:
    """Return a message as ``set_translation``'s function rewrites it."""
    return _translation[0](text) if _translation else text


def is_verbose() -> bool:
    """Return whether details are printed."""
    return verbosity["verbose"]


def progress(items: Iterable[T], title: str, total: int | None = None, *, leave: bool = True) -> Iterable[T]:
    """Iterate over items with a progress bar on stderr; ``leave`` keeps the bar at the end. No items, no bar."""
    if isinstance(items, Sized) and len(items) == 0:
        return items
    bar: Iterable[T] = _bar(title, items, total, leave=leave)
    return bar


def progress_in_blocks(count: int, block: int, title: str, *, leave: bool = True) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each block of ``count`` items; a progress bar on stderr counts the items, not blocks."""
    with _bar(title, None, count, leave=leave) as bar:
        for start in range(0, count, block):
            stop = min(start + block, count)
            yield start, stop
            bar.update(stop - start)


def _bar(title: str, items: Iterable[T] | None, total: int | None, *, leave: bool) -> Any:
    """Return a progress bar of tqdm."""
    from tqdm import tqdm  # slow to load, and every command sets up this module before it prints its help

    return tqdm(
        items,
        desc=title,
        total=total,
        leave=leave,
        disable=verbosity["quiet"] or sys.stderr is None,
        dynamic_ncols=True,
        file=MESSAGES,
        mininterval=refresh_interval_s(),
        delay=0 if leave else 2 * refresh_interval_s(),
    )


def refresh_interval_s() -> float:
    """Return the seconds between redraws of a bar: short for a terminal, long for a log file."""
    return 0.2 if MESSAGES.isatty() else 15.0


def info(text: str, log: Path | None = None) -> None:
    """Print a message to stderr without breaking a progress bar, and append it to a log file.

    Raises:
        DvtError: if the log file cannot be written.
    """
    text = translated(text)
    if not verbosity["quiet"]:
        _write(text)
    if log is not None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{now()} {text}\n")
        except OSError as error:
            raise DvtError(cannot_write(log, error)) from error


def debug(text: str) -> None:
    """Print a message to stderr if details are wanted."""
    if is_verbose():
        info(text)


def warn(text: str) -> None:
    """Print a warning to stderr, also if quiet."""
    _write(f"warning: {translated(text)}")


def _write(text: str) -> None:
    """Print to stderr without breaking a progress bar."""
    from tqdm import tqdm

    tqdm.write(text, file=MESSAGES)
