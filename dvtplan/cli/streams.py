"""Standard streams of a command that are closed, full, or cannot show every letter."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


def prepare() -> None:
    """Make stdin, stdout and stderr usable, whatever the shell did to them (``>&-``).

    A closed one becomes the null device; otherwise the next file that is opened would take its number and receive
    what is printed. A file name that stdout cannot encode is printed with escapes.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if not _is_open(number):
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    # In the locale C without UTF-8, Python itself chooses surrogateescape, which fails for letters such as ±.
    if getattr(sys.stdout, "errors", "") in ("strict", "surrogateescape") and hasattr(sys.stdout, "reconfigure"):
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
    _discard_at_exit()


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError as error:
        return error.errno != errno.EBADF
    return True


class Output:
    """stdout that remembers why it cannot be written.

    Text for a full disk is dropped, so that long work still ends in order. If the reader of a pipe has gone, work
    ends as in other programs.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """The first error; None: everything was written so far."""

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self.failure = self.failure or error
            if isinstance(error, BrokenPipeError):
                raise
            return len(text)

    def flush(self) -> None:
        """Write what is buffered; what cannot be written is discarded."""
        self.failure = self.failure or _flush(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def output() -> Iterator[Output]:
    """Replace stdout by an ``Output`` in this block."""
    before = sys.stdout
    replaced = Output(before)
    sys.stdout = cast("TextIO", replaced)
    try:
        yield replaced
    finally:
        sys.stdout = before


def _flush(stream: TextIO) -> OSError | None:
    """Flush a stream. If that fails, return the error, and discard what is not written yet.

    Python flushes once more at exit, which would fail again.
    """
    try:
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        return error
    except ValueError:  # closed
        return None
    return None


@functools.cache
def _discard_at_exit() -> None:
    """Do not let a stream that cannot be written decide the exit status."""
    atexit.register(lambda: [_flush(stream) for stream in (sys.stdout, sys.stderr)])
