"""Progress bar and stopwatch of a training."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from dvtplan.core.console import MESSAGES, T, refresh_interval_s, verbosity


class StepBar:
    """Show the progress of a training: finished steps, remaining time and a message."""

    def __init__(self, title: str, *, total: int, done: int, shown: bool) -> None:
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            disable=not shown or verbosity["quiet"] or sys.stderr is None,
            file=MESSAGES,
            mininterval=refresh_interval_s(),
        )

    def update(self, total: int) -> None:
        """Count one more step, of ``total``."""
        self._bar.total = total
        self._bar.update()

    def set_message(self, text: str) -> None:
        """Show a text behind the bar."""
        self._bar.set_postfix_str(text)

    def __enter__(self) -> StepBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class Stopwatch:
    """Measure how long an iteration takes, and its share of waiting for the iterator."""

    def __init__(self, *, seconds: float = 0.0, waited: float = 0.0) -> None:
        """Start; ``seconds`` and ``waited`` passed before."""
        self._start, self._waited = time.perf_counter() - seconds, waited

    def over(self, stream: Iterator[T]) -> Iterator[T]:
        """Yield the items of an iterator, and add up the time spent waiting for them."""
        while True:
            begin = time.perf_counter()
            try:
                item = next(stream)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - begin
            yield item

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return max(time.perf_counter() - self._start, 1e-9)

    def waited(self) -> float:
        """Return the seconds of waiting."""
        return self._waited

    def waiting_share(self) -> float:
        """Return the share of this time that was spent waiting."""
        return self._waited / self.seconds()
