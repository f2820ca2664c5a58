"""What a run tells: progress bars, notes, a log file and the table of epochs."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from dvtplan.artifacts import cannot_write, write_text
from dvtplan.errors import DvtError

T = TypeVar("T")

_telling = {"quiet": False, "verbose": False}


def tell(*, quiet: bool = False, verbose: bool = False) -> None:
    """How much this process tells: quiet leaves out bars, notes and details; verbose adds details."""
    _telling.update(quiet=quiet, verbose=verbose)


def is_verbose() -> bool:
    """Whether details are told."""
    return _telling["verbose"]


def progress(items: Iterable[T], title: str, total: int | None = None, *, leave: bool = True) -> Iterable[T]:
    """A progress bar on stderr over items; silent for none. It goes at the end, or stays to be read."""
    if isinstance(items, Sized) and len(items) == 0:
        return items
    return tqdm(
        items,
        desc=title,
        total=total,
        leave=leave,
        disable=_telling["quiet"],
        dynamic_ncols=True,
        file=sys.stderr,
        mininterval=_pace_s(),
        delay=0 if leave else 2 * _pace_s(),
    )


def _pace_s() -> float:
    """Seconds between redraws of a bar: often for a person, seldom for a log file."""
    return 0.2 if sys.stderr.isatty() else 15.0


def note(text: str, log: Path | None = None) -> None:
    """Say something on stderr without breaking a progress bar, and keep it in a log file.

    Raises:
        DvtError: if the log cannot be written.
    """
    if not _telling["quiet"]:
        tqdm.write(text, file=sys.stderr)
    if log is not None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{now()} {text}\n")
        except OSError as error:
            raise DvtError(cannot_write(log, error)) from error


def detail(text: str) -> None:
    """Say something on stderr that only who asks for it by -v wants to know."""
    if is_verbose():
        note(text)


def warn(text: str) -> None:
    """Say on stderr what must not be missed; quiet does not silence it."""
    tqdm.write(f"warning: {text}", file=sys.stderr)


def now() -> str:
    """Date, time and zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


class StepBar:
    """The progress bar of a training: steps done, time left, and a word on the loss."""

    def __init__(self, title: str, *, total: int, done: int, shown: bool) -> None:
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            disable=not shown or _telling["quiet"],
            file=sys.stderr,
            mininterval=_pace_s(),
        )

    def update(self) -> None:
        """One step further."""
        self._bar.update()

    def say(self, text: str) -> None:
        """What stands behind the bar."""
        self._bar.set_postfix_str(text)

    def __enter__(self) -> StepBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class Watch:
    """How long something takes, and how much of it goes by waiting for what it iterates over."""

    def __init__(self) -> None:
        self._start, self._waited = time.perf_counter(), 0.0

    def over(self, stream: Iterator[T]) -> Iterator[T]:
        """Pass items on, counting the time until each is there."""
        while True:
            asked = time.perf_counter()
            try:
                item = next(stream)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - asked
            yield item

    def seconds(self) -> float:
        """Since the start."""
        return max(time.perf_counter() - self._start, 1e-9)

    def waiting_share(self) -> float:
        """Of that, what went by waiting."""
        return self._waited / self.seconds()


def read_epochs(path: Path, before: int) -> list[dict[str, Any]]:
    """Rows of ``epochs.csv`` with an epoch number below ``before``; none where there is no file.

    Raises:
        DvtError: if the file is no such table.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row["epoch"]) < before]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DvtError(f"{path}: is no table of epochs ({error!r}). Move it away, then run again.") from error


def write_epochs(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``epochs.csv`` whole; all rows have the keys of the first."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def duration(seconds: float) -> str:
    """'42 s', '3 min 05 s', '2 h 10 min' or '3.1 days'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{seconds / 86400:.1f} days"


def size(count: float) -> str:
    """Bytes in a unit that people read: '12 MB', '3.4 GB'."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * scale:  # three digits of the smaller unit would round up to 1e+03
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
