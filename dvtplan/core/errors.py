"""Errors that the user can fix, and a check for records."""

from __future__ import annotations

import numbers
import sys
from pathlib import Path


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


class DvtError(Exception):
    """An error that the user can fix.

    The message is one line: the file or value, what is wrong, what was expected, what to do. A parameter or a function
    stands in backticks. The command line prints the message without a traceback.
    """


class InvalidValue(DvtError, ValueError):
    """A value that a parameter cannot have."""


def require_whole(name: str, value: object, minimum: int, *, optional: bool = False) -> None:
    """Refuse the value of a parameter that is not a whole number, or is too small.

    Args:
        name: of the parameter.
        value: to check.
        minimum: smallest valid value.
        optional: whether None is valid, too.

    Raises:
        InvalidValue: in one line.
    """
    if optional and value is None:
        return
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < minimum:
        also = " or None" if optional else ""
        raise InvalidValue(f"`{name}={value!r}`: expected a whole number from {minimum}{also}.")


class DamagedScan(DvtError):
    """The scan itself is faulty, independent of the options."""


class WriteFailed(DvtError):
    """A file cannot be written (full disk, permissions). The scan is not at fault."""


def require_unicode(path: Path) -> None:
    """Refuse a path that libraries written in C++ cannot open; some of them end the whole process.

    Raises:
        DvtError: if bytes of the path are not text in the encoding of file names.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown, encoding = str(path).encode("utf-8", "backslashreplace").decode(), sys.getfilesystemencoding()
        raise DvtError(
            f"{shown}: its name is not {encoding} text, which the libraries that read and write it require. "
            + ("Rename it." if encoding == "utf-8" else "Set PYTHONUTF8=1, or use a UTF-8 locale.")
        ) from None


def cannot_write(path: Path, error: OSError | str) -> str:
    """Return the message for a failed write."""
    if isinstance(error, (NotADirectoryError, FileExistsError, IsADirectoryError)):
        return (
            f"{path}: cannot be written ({error.strerror}). Choose another path, or move the existing file or folder."
        )
    reason = error if isinstance(error, str) else error.strerror or str(error)
    return f"{path}: cannot be written ({reason}). Free space or fix the permissions, then run again."


def cannot_read(path: Path, error: OSError, advice: str = "Fix the permissions.") -> str:
    """Return the message for a failed read, with what to do."""
    return f"{path}: cannot be read ({error.strerror or error}). {advice}"


class FolderInUse(DvtError):
    """Another process is at work in the folder, or on the file. Nothing is wrong with either."""


class MaskEdited(DvtError):
    """A mask that a prediction was about to replace was edited meanwhile, and is kept."""


class DatasetProblems(DvtError):
    """All problems of a data set, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__("\n".join([f"{len(problems)} {noun} found; nothing was written.", *problems]))

    def __reduce__(self) -> tuple[type[DatasetProblems], tuple[list[str]]]:
        """Allow pickling, so that the error can leave a worker process."""
        return type(self), (list(self.problems),)
