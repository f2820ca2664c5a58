"""The one exception that a user is meant to read, and the words that messages share."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class DvtError(Exception):
    """Something the user can mend: the message names the file, what was expected, what was
    found and what to do, in one line. The command line prints it without a traceback."""


class DamagedScan(DvtError):
    """A scan is at fault itself, whatever is asked of it."""


class WriteFailed(DvtError):
    """Something cannot be written: the disk is full, or a folder forbids it. No scan is at fault."""


class DatasetProblems(DvtError):
    """Every problem of a data set at once, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__("\n".join([f"{len(problems)} {noun} found; nothing was written.", *problems]))

    def __reduce__(self) -> tuple[type[DatasetProblems], tuple[list[str]]]:
        """Made anew from its problems, so that it survives the way out of a worker process."""
        return type(self), (list(self.problems),)
