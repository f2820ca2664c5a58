"""A pool of worker processes over cases: as many as fit into memory, with a progress bar and clear errors."""

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

from dvtplan.core import console
from dvtplan.core.console import progress
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import local_world_size

T = TypeVar("T")
R = TypeVar("R")

FORKSERVER = "forkserver"
"""Python's name for the start method that copies a prepared process."""
MEMORY_SHARE = 0.7
"""Share of the free memory that all workers together may use."""


def available_cores() -> int:
    """Return how many cores this process may use; processes that torchrun started on this machine share its cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_world_size())


def free_memory_bytes() -> int | None:
    """Return the memory that is available without swapping, or None if the system does not report it."""
    try:
        with open("/proc/meminfo") as file:  # noqa: PTH123 - a kernel interface, not a project file
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def choose_workers(jobs: int | None, voxels: Sequence[int], bytes_per_voxel: int, *, few_voxels: int = 0) -> int:
    """Return how many worker processes to start: at most one per case, and as many as fit into free memory.

    Args:
        jobs: the number that the user wants; None for one per core.
        voxels: size of each case; 0 if unknown. The largest decides what fits.
        bytes_per_voxel: peak memory of a worker per voxel of its case.
        few_voxels: below this sum a single process is faster; used if ``jobs`` is None.
    """
    if jobs is None and sum(voxels) < few_voxels:
        return 1
    most = min(jobs or available_cores(), max(1, len(voxels)))
    bytes_each = max(voxels, default=0) * bytes_per_voxel
    free = free_memory_bytes()
    if free is None or bytes_each <= 0:
        return max(1, most)
    return max(1, min(most, int(free * MEMORY_SHARE // bytes_each)))


def over_cases(
    function: Callable[[T], R], items: Sequence[T], names: Sequence[str], *, title: str, jobs: int
) -> list[R]:
    """Apply a function to every item in ``jobs`` processes, with a progress bar. One job runs in this process.

    Args:
        function: a function that can be pickled.
        items: its arguments.
        names: case of each item, for messages.
        title: text of the progress bar.
        jobs: number of processes.

    Returns:
        The results in the order of ``items``.

    Raises:
        DvtError: if a worker process is killed, with the cases that were open; or as ``function``.
    """
    if jobs <= 1 or len(items) <= 1:
        return [function(item) for item in progress(items, title)]
    results: dict[int, R] = {}
    futures: dict[Future[R], int] = {}
    work = function.func if isinstance(function, functools.partial) else function
    context = _context(work.__module__)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker, initargs=(console.settings(),))
    try:
        for index, item in enumerate(items):
            futures[pool.submit(function, item)] = index
        for future in progress(as_completed(futures), title, total=len(items)):
            results[futures[future]] = future.result()
    except BrokenProcessPool:
        # Some finished cases are not collected yet, and all cases that had not begun fail as well.
        undone = [names[i] for f, i in futures.items() if not f.done() or f.exception() is not None]
        undone += names[len(futures) :]
        raise DvtError(
            f"{title}: a worker process was killed while one of these cases was open: {', '.join(undone[:jobs])}. "
            f"Usually memory was exhausted. Run again with `jobs={max(1, jobs // 2)}`; finished cases are kept."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[i] for i in range(len(items))]


def preload(module: str) -> None:
    """Start to import a module in the process that workers are copied from, while this process imports it too."""
    if _context(module).get_start_method() == FORKSERVER:
        from multiprocessing import forkserver  # not available on every system

        forkserver.ensure_running()


def _context(module: str) -> BaseContext:
    """Return the context that starts workers as copies of one process that has imported a module.

    So the module is imported once for all pools of a command. Without forkserver every worker imports it.
    """
    if FORKSERVER not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context(FORKSERVER)
    context.set_forkserver_preload([module])
    return context


def _prepare_worker(settings: tuple[dict[str, bool], list[Callable[[str], str]]]) -> None:
    """Leave Ctrl-C, which reaches every process, to the parent, end with the parent, and print messages like it."""
    console.restore(settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Make this worker process end when its parent is killed; otherwise it would wait for work forever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
