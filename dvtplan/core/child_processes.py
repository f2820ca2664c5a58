"""Child processes end with their parent, and signals end a process in order.

A parent ends its children when it is interrupted. A child that this does not reach, because its parent was killed,
notices the end of the parent by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from dvtplan.core.errors import DvtError

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""
GRACE_S = 10.0
"""Seconds in which a process may clean up after SIGTERM, before it is killed."""
POLL_S = 0.5
"""Seconds between two looks at the parent, where the system does not report its end."""
TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a process in order, as Ctrl-C does."""
_PR_SET_PDEATHSIG = 1


_received: list[int] = []


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end, as Ctrl-C does."""


def exit_status() -> int:
    """Return the status of an interrupted process: 128 and the number of the first signal, as in shells."""
    return 128 + _received[0] if _received else INTERRUPTED


class Child(Protocol):
    """A process of ``multiprocessing`` or ``subprocess``."""

    @property
    def pid(self) -> int | None:
        """Its number."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


# --- in the parent --------------------------------------------------------------------------------


def is_running(child: Child) -> bool:
    """Return whether a child has not ended yet."""
    poll = getattr(child, "poll", None)
    return poll() is None if poll else bool(child.is_alive())  # type: ignore[attr-defined]


def end_children(children: Sequence[Child], grace_s: float = GRACE_S) -> None:
    """Ask children to end, wait for them, and kill those that do not."""
    for child in children:
        if is_running(child):
            child.terminate()
    deadline = time.monotonic() + grace_s
    try:
        while any(map(is_running, children)) and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:  # also if this wait is interrupted
        for child in children:
            if is_running(child):
                child.kill()


@contextlib.contextmanager
def startable_main() -> Iterator[None]:
    """Let children start although the main program has no file, as in ``python - < script`` or a notebook.

    A child that does not copy this process imports the main program again. A program without a file cannot be
    imported, and the functions of this package do not need it.

    Raises:
        DvtError: in a child that is importing the main program; the program is not protected against that.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise DvtError(
            "A worker process imports your script, which starts to work again. Put the script's calls into a function, "
            "and call this function under: if __name__ == '__main__':"
        )
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None or Path(file).exists():
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


@contextlib.contextmanager
def starts_without_interrupts() -> Iterator[None]:
    """Hold back Ctrl-C in this block, and in all processes that start in it for as long as they live.

    Python protects the process that workers are copied from only after its imports. A worker is protected by
    ``become_worker``, which it reaches later. A held interrupt is raised here at the end of the block, so that the
    parent knows all children that it has to end. SIGTERM is not held back.

    Raises:
        OSError, ImportError: if processes cannot be started here.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker  # not available on every system

    resource_tracker.ensure_running()  # before, because its start unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Raise ``Terminated`` in this block on SIGTERM or SIGHUP, so that files are cleaned up and children end.

    A signal that this process ignores stays ignored (``nohup``). After the first signal, these signals are ignored
    until the block ends. Only the main thread can handle signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {number: signal.getsignal(number) for number in TERMINATING}
    handled = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, _raise_terminated)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def _raise_terminated(number: int, _frame: object) -> None:
    for each in TERMINATING:
        if signal.getsignal(each) == _raise_terminated:
            signal.signal(each, signal.SIG_IGN)
    _received.append(number)
    raise Terminated


# --- in a child -----------------------------------------------------------------------------------


def become_worker() -> None:
    """Leave Ctrl-C, which reaches every process, to the parent; end at once on SIGTERM, and with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in TERMINATING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    end_with_parent()


def end_with_parent(parent: int | None = None) -> None:
    """Make this process end when its parent has ended, however that ended.

    Args:
        parent: number of the parent; None if ``multiprocessing`` started this process.
    """
    _ask_kernel_for_sigkill()
    if parent is not None and os.getppid() != parent:  # it ended before
        os._exit(1)
    threading.Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _ask_kernel_for_sigkill() -> None:
    """Let Linux end this process with the one that started it. Native code does not delay this."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait_for_end(parent: int | None) -> None:
    if parent is None:
        process = multiprocessing.parent_process()
        if process is None:
            return
        process.join()
    else:
        while os.getppid() == parent:
            time.sleep(POLL_S)
    os._exit(1)
