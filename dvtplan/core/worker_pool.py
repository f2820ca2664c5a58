"""A pool of worker processes over cases: as many as fit into memory, with a progress bar, and with
the real cause when one of them dies."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

from dvtplan.core.console import progress
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import local_world_size

T = TypeVar("T")
R = TypeVar("R")

FORKSERVER = "forkserver"
"""Python's name for processes that begin as copies of one."""
MEMORY_SHARE = 0.7
"""Of the memory that is free, how much the workers may plan to use together."""


def available_cores() -> int:
    """Processors this process may run on: not those of the whole machine, and its share of them where
    a launcher has started several processes here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_world_size())


def free_memory_bytes() -> int | None:
    """Memory that can be had without swapping, or none where the system does not say."""
    try:
        with open("/proc/meminfo") as file:  # noqa: PTH123 - a kernel interface, not a project file
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def choose_workers(jobs: int | None, tasks: int, bytes_each: int) -> int:
    """Worker processes to start: what was asked for (or a process per core), but no more than there
    are tasks, nor than fit into free memory."""
    wanted = min(jobs or available_cores(), max(1, tasks))
    free = free_memory_bytes()
    if free is None or bytes_each <= 0:
        return max(1, wanted)
    return max(1, min(wanted, int(free * MEMORY_SHARE // bytes_each)))


def over_cases(
    function: Callable[[T], R], items: Sequence[T], names: Sequence[str], *, title: str, jobs: int
) -> list[R]:
    """Apply a function to every item, in ``jobs`` processes, with a progress bar.

    With one job everything runs in this process.

    Returns:
        The results in the order of ``items``.

    Raises:
        DvtError: if a worker process is killed, naming the cases that were being worked on.
    """
    if jobs <= 1 or len(items) <= 1:
        return [function(item) for item in progress(items, title)]
    results: dict[int, R] = {}
    futures: dict[Future[R], int] = {}
    work = function.func if isinstance(function, functools.partial) else function
    context = _context(work.__module__)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_follow_the_parent)
    try:
        for index, item in enumerate(items):
            futures[pool.submit(function, item)] = index
        for future in progress(as_completed(futures), title, total=len(items)):
            results[futures[future]] = future.result()
    except BrokenProcessPool:
        # Not all that ended well has been collected by now, and all that had not begun fails as well.
        undone = [names[i] for f, i in futures.items() if not f.done() or f.exception() is not None]
        undone += names[len(futures) :]
        raise DvtError(
            f"{title}: a worker process was killed while one of these cases was open: {', '.join(undone[:jobs])}. "
            f"Most often memory ran out; run again with --jobs {max(1, jobs // 2)}, finished cases are kept."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[i] for i in range(len(items))]


def preload(module: str) -> None:
    """Import what workers will need in the process that they are to be copies of, while this one imports it too."""
    if _context(module).get_start_method() == FORKSERVER:
        from multiprocessing import forkserver  # not there on every system

        forkserver.ensure_running()


def _context(module: str) -> BaseContext:
    """How worker processes begin: as copies of one that has imported a module, so that this is done once for all
    workers of all pools of a command; each for itself where the system has no copies."""
    if FORKSERVER not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context(FORKSERVER)
    context.set_forkserver_preload([module])
    return context


def _follow_the_parent() -> None:
    """In a worker process: leave Ctrl-C, which reaches all of them, to the parent, and end when it is
    killed; a worker without work would wait for some for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
