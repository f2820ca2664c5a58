"""Step bar and stopwatch."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from dvtplan.core.console import T, refresh_interval_s, verbosity


class StepBar:
    """The progress bar of a training: steps done, time left, and a word on the loss."""

    def __init__(self, title: str, *, total: int, done: int, shown: bool) -> None:
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            disable=not shown or verbosity["quiet"],
            file=sys.stderr,
            mininterval=refresh_interval_s(),
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


class Stopwatch:
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
