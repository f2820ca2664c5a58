"""Errors that the user can fix, and a check for records."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


class DvtError(Exception):
    """An error that the user can fix.

    The message is one line: the file or value, what is wrong, what was expected, what to do. A parameter or a function
    stands in backticks. The command line prints the message without a traceback.
    """


class DamagedScan(DvtError):
    """The scan itself is faulty, independent of the options."""


class WriteFailed(DvtError):
    """A file cannot be written (full disk, permissions). The scan is not at fault."""


class DatasetProblems(DvtError):
    """All problems of a data set, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__("\n".join([f"{len(problems)} {noun} found; nothing was written.", *problems]))

    def __reduce__(self) -> tuple[type[DatasetProblems], tuple[list[str]]]:
        """Allow pickling, so that the error can leave a worker process."""
        return type(self), (list(self.problems),)
