"""Atomic writes and folder locks."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dvtplan.core import console
from dvtplan.core.errors import DvtError, FolderInUse, WriteFailed, cannot_write

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMP_PREFIX = ".writing-"
"""Prefix of the names of unfinished files and folders."""

HOST_LETTERS = 4
"""Letters after the prefix that stand for the machine."""
DAY_S = 86400.0

LOCK = ".lock"
"""Name of the lock file in a folder."""
LOCK_TRIES = 15
"""Attempts, 0.2 s apart, before the lock counts as taken."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to ``path``; move it to ``path`` if the block succeeds.

    The temporary name keeps the ending, because writers choose the format by it, and no more of the name, which may
    contain other endings. It starts with a dot. If the block fails, the temporary file is removed and an existing file
    at ``path`` is unchanged. If the process is killed, the temporary file stays, and the next process that writes into
    the folder removes it.

    Raises:
        WriteFailed: if the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        handle, draft = _create_draft(path)
    except OSError as error:
        raise WriteFailed(cannot_write(path, error)) from error
    try:
        with _held(handle):
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.chmod(0o666 & ~_umask())
            draft.replace(path)
    except OSError as error:
        raise WriteFailed(cannot_write(path, error)) from error
    finally:
        draft.unlink(missing_ok=True)


def _create_draft(path: Path) -> tuple[int, Path]:
    """Create an empty draft, locked, so that ``remove_abandoned`` of another process keeps it."""
    ending = "".join(path.suffixes[-2 if path.suffix.lower() == ".gz" else -1 :])
    while True:
        handle, name = tempfile.mkstemp(prefix=f"{TEMP_PREFIX}{_host()}-", suffix=ending, dir=path.parent)
        if fcntl is None:
            return handle, Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # without locks nobody else can lock it either
            return handle, Path(name)
        if Path(name).exists():
            return handle, Path(name)
        os.close(handle)  # it was taken for abandoned before it was locked


@contextlib.contextmanager
def _held(handle: int) -> Iterator[None]:
    """Keep a file open, and so locked, during this block."""
    if fcntl is None:  # Windows does not move an open file
        os.close(handle)
        yield
        return
    try:
        yield
    finally:
        os.close(handle)


@functools.cache
def _host() -> str:
    """Return a short tag of this machine, because locks need not reach other machines."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:HOST_LETTERS]


@functools.lru_cache(maxsize=1024)
def remove_abandoned(folder: Path) -> None:
    """Remove the drafts that killed processes left in a folder that others may use; once per process.

    A draft of another machine is removed after a day.
    """
    for draft in folder.glob(f"{TEMP_PREFIX}*"):
        with contextlib.suppress(OSError):
            is_ours = draft.name.startswith(f"{TEMP_PREFIX}{_host()}-")
            if draft.is_file() and (is_ours or time.time() - draft.stat().st_mtime > DAY_S):
                remove_unlocked(draft)


def remove_unlocked(path: Path) -> None:
    """Remove a file unless a process holds a lock on it, or that is unknown."""
    if fcntl is not None:
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def exclusive_lock(folder: Path, *, name: str = LOCK, tries: int | None = None, clean: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a folder; first remove leftovers of a killed process.

    The operating system releases the lock when the process ends. Without such locks (Windows) other processes are not
    excluded; on a file system without them a warning says so.

    Args:
        folder: the folder; created if missing.
        name: file name of the lock. Locks of different names do not exclude each other.
        tries: attempts, a fifth of a second apart; None for ``LOCK_TRIES``.
        clean: whether to remove leftovers. False where others write into the folder meanwhile.

    Raises:
        FolderInUse: if another process is at work there.
        WriteFailed: if the folder cannot be written.
    """
    lock = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(lock, LOCK_TRIES if tries is None else tries)
    except OSError as error:
        raise WriteFailed(cannot_write(folder, error)) from error
    if file is None:
        raise FolderInUse(f"{folder}: another process is at work here. Wait for it or end it.")
    with file:
        try:
            if clean:
                _remove_leftovers(folder)
            yield
        finally:
            lock.unlink(missing_ok=True)


def _acquire(lock: Path, tries: int) -> IO[str] | None:
    """Return the locked file, or None if another process holds it.

    Children of a killed process may hold the lock for a moment, so several attempts are made.
    """
    for _ in range(tries):
        file = lock.open("w")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if fcntl is None or os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except (BlockingIOError, FileNotFoundError):
            time.sleep(0.2)
        except OSError:
            _warn_of_missing_locks(lock.parent)
            return file
        file.close()  # another process holds it, or its last holder has removed it
    return None


@functools.cache
def _warn_of_missing_locks(folder: Path) -> None:
    console.warn(f"{folder}: is on a file system without locks. Do not let two processes work there at the same time.")


def _remove_leftovers(folder: Path) -> None:
    for draft in folder.glob(f"{TEMP_PREFIX}*"):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # the next write there reports the reason
                draft.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def walk_files(folder: Path, *, strict: bool = False) -> list[Path]:
    """List the files of a folder at any depth, in order, also in folders that are links. Each folder is listed once.

    Links to missing files are in the list: they stand for a file.

    Args:
        folder: to list.
        strict: refuse a folder that cannot be listed; otherwise its files are left out.

    Raises:
        DvtError: with ``strict``, if the disk or the permissions do not allow to list a folder.
    """

    def refuse(error: OSError) -> None:
        if strict:
            raise DvtError(
                f"{error.filename}: cannot be listed ({error.strerror}). Check the disk and permissions."
            ) from error

    start = folder.resolve()
    seen = {start, *start.parents}
    files = []
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        # A link may lead back to a folder above it, or to one that is listed already.
        for name in sorted(folders):
            target = Path(parent, name).resolve()
            if target in seen:
                folders.remove(name)
            seen.add(target)
        files += [path for name in names if (path := Path(parent, name)).is_file() or path.is_symlink()]
    return sorted(files)


def require_writable(path: Path) -> None:
    """Check before long work that a file can be written afterwards. Nothing stays on disk.

    Raises:
        WriteFailed: if it is a folder, or a folder above it is missing and cannot be created, or is not writable.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise WriteFailed(cannot_write(path, error)) from error
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8. Bytes of file names that are not text become escapes, as in JSON."""
    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
