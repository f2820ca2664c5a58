"""A pool of worker processes over cases: as many as fit into memory, with a progress bar and clear errors."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import TypeVar

from dvtplan.core import child_processes, console, shared_settings, threads
from dvtplan.core.console import progress
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import local_world_size
from dvtplan.core.text import shorten_list

T = TypeVar("T")
R = TypeVar("R")

FORKSERVER = "forkserver"
"""Python's name for the start method that copies a prepared process."""
UNAVAILABLE = (OSError, NotImplementedError, ImportError)
"""Errors of a system that gives no semaphores (/dev/shm), sockets or processes."""
MEMORY_SHARE = 0.7
"""Share of the free memory that all workers together may use."""
TERMINATED = 143
"""Exit status of a worker that was asked to end, as in shells; the pool asks all others when one dies."""
LONGEST_SOCKET = 100
"""Bytes of the longest path of a socket: 107 on Linux, 103 elsewhere."""
SOCKET_NAME = 32
"""Bytes that Python adds to the folder for temporary files, for a folder and a socket of its own."""


def available_cores() -> int:
    """Return how many cores this process may use; processes that torchrun started on this machine share its cores."""
    return max(1, threads.usable_cores() // local_world_size())


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
    if jobs > 1 and len(items) > 1:
        pool = _start_pool(function, items, title, jobs)
        if pool is not None:
            return _collect(*pool, items, names, title, jobs)
    return [function(item) for item in progress(items, title)]


def _start_pool(
    function: Callable[[T], R], items: Sequence[T], title: str, jobs: int
) -> tuple[ProcessPoolExecutor, dict[Future[R], int]] | None:
    """Start worker processes and give them all items; None if the surroundings do not allow that.

    Returns:
        The pool, and each future with the index of its item. A worker that dies at once may leave items without one.
    """
    work = function.func if isinstance(function, functools.partial) else function
    futures: dict[Future[R], int] = {}
    pool: ProcessPoolExecutor | None = None
    try:
        with child_processes.startable_main(), child_processes.starts_without_interrupts():
            pool = ProcessPoolExecutor(
                jobs,
                mp_context=_context(work.__module__),
                initializer=_prepare_worker,
                initargs=(console.settings(), shared_settings.snapshot()),
            )
            for index, item in enumerate(items):
                futures[pool.submit(_or_exit, function, item)] = index
    except BrokenProcessPool:
        pass  # what is missing is reported by ``_collect``
    except UNAVAILABLE as error:
        if pool is not None:
            _stop(pool)
        console.warn(f"{title}: cannot start worker processes here ({error}); everything is done in one process.")
        return None
    except BaseException:
        if pool is not None:
            _stop(pool)
        raise
    return None if pool is None else (pool, futures)


def _collect(
    pool: ProcessPoolExecutor,
    futures: dict[Future[R], int],
    items: Sequence[T],
    names: Sequence[str],
    title: str,
    jobs: int,
) -> list[R]:
    """Return the results in the order of the items. At an error the open cases are finished, at an interrupt not."""
    results: dict[int, R] = {}
    workers = _workers(pool)
    try:
        for future in progress(as_completed(futures), title, total=len(items)):
            results[futures[future]] = future.result()
        if len(futures) < len(items):
            raise BrokenProcessPool
    except BrokenProcessPool:
        # Some finished cases are not collected yet, and all cases that had not begun fail as well.
        undone = [names[i] for f, i in futures.items() if not f.done() or f.exception() is not None]
        undone += names[len(futures) :]
        fate, reason = "was killed", "Usually memory was exhausted"
        if any((worker.exitcode or 0) > 0 and worker.exitcode != TERMINATED for worker in workers):
            fate, reason = "ended", "Its error is printed above"
        raise DvtError(
            f"{title}: a worker process {fate} while one of these cases was open: {shorten_list(undone[:jobs])}. "
            f"{reason}. Run again with `jobs={max(1, jobs // 2)}`; finished cases are kept."
        ) from None
    except KeyboardInterrupt:
        _stop(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[i] for i in range(len(items))]


def _workers(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    return list((getattr(pool, "_processes", None) or {}).values())


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers of a pool now."""
    workers = _workers(pool)
    pool.shutdown(wait=False, cancel_futures=True)
    child_processes.end_children(workers)


def _or_exit(function: Callable[[T], R], item: T) -> R:
    """Apply a function in a worker. SIGTERM ends the worker after its files are cleaned up, not only this item."""
    _at_work[:] = [True]
    try:
        return function(item)
    except child_processes.Terminated:
        os._exit(TERMINATED)
    finally:
        _at_work.clear()


_at_work: list[bool] = []


def _end_worker(number: int, _frame: object) -> None:
    if not _at_work:
        os._exit(TERMINATED)
    signal.signal(number, signal.SIG_IGN)
    raise child_processes.Terminated


def sharing_fault() -> str:
    """Return why processes cannot share semaphores here, mostly because of /dev/shm; empty if they can."""
    try:
        multiprocessing.get_context("spawn").Semaphore()
    except UNAVAILABLE as error:
        return str(error)
    return ""


def preload(module: str, *libraries: str) -> None:
    """Start to import a module in the process that workers are copied from, while this process imports it too.

    Args:
        module: the module of the workers' function.
        libraries: what its functions import when they run; this process may never need it.
    """
    _libraries[:] = libraries
    with contextlib.suppress(*UNAVAILABLE):  # ``over_cases`` does without
        if _context(module).get_start_method() == FORKSERVER:
            from multiprocessing import forkserver  # not available on every system

            with child_processes.starts_without_interrupts():
                forkserver.ensure_running()


def _context(module: str) -> BaseContext:
    """Return the context that starts workers as copies of one process that has imported a module.

    So the module is imported once for all pools of a command. Without forkserver every worker imports it. It needs a
    socket in the folder for temporary files, whose path can be too long for a socket.
    """
    room = LONGEST_SOCKET - SOCKET_NAME
    if FORKSERVER not in multiprocessing.get_all_start_methods() or len(os.fsencode(tempfile.gettempdir())) > room:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context(FORKSERVER)
    context.set_forkserver_preload([module, *_libraries])
    return context


_libraries: list[str] = []


def _prepare_worker(settings: tuple[dict[str, bool], list[Callable[[str], str]]], shared: dict[str, str]) -> None:
    """Print messages and read files like the parent, end with it, and clean up on SIGTERM."""
    console.restore(settings)
    shared_settings.restore(shared)
    child_processes.become_worker()
    signal.signal(signal.SIGTERM, _end_worker)
