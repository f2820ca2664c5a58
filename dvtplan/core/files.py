"""Atomic writes and folder locks."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dvtplan.core.errors import DvtError, WriteFailed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMP_PREFIX = ".writing-"
"""How the names of half-written files and folders begin."""

LOCK = ".lock"
"""The file that a sole writer holds."""
LOCK_TRIES = 15
"""Attempts, a fifth of a second apart, before the lock counts as taken."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; move it into place if nothing fails.

    The name keeps the suffixes (writers choose their format by them) and starts with a dot. On
    any failure the temporary file is gone and what stood at ``path`` is untouched.

    Raises:
        DvtError: if the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMP_PREFIX, suffix="-" + path.name, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise WriteFailed(cannot_write(path, error)) from error
    draft = Path(name)
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    except OSError as error:
        raise WriteFailed(cannot_write(path, error)) from error
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Be the only one of its kind at work in a folder, and begin by removing what a process that was
    killed left half-written there.

    The lock is the operating system's: it ends with the process, however that ends. Where there are
    no such locks (Windows), nobody is kept out.

    Raises:
        DvtError: if another process is at work there.
    """
    lock = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(lock)
    except OSError as error:
        raise WriteFailed(cannot_write(folder, error)) from error
    if file is None:
        raise DvtError(f"{folder}: another process is at work here. Wait for it, or end it.")
    with file:
        try:
            _remove_leftovers(folder)
            yield
        finally:
            lock.unlink(missing_ok=True)


def _acquire(lock: Path) -> IO[str] | None:
    """The lock file, locked, or none where another process keeps it.

    The children of a process that was killed may hold it for a moment, so a few attempts are made.
    """
    for _ in range(LOCK_TRIES):
        file = lock.open("w")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if fcntl is None or os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except (BlockingIOError, FileNotFoundError):
            time.sleep(0.2)
        except OSError:  # a file system without locks
            return file
        file.close()  # held by another, or the one that its last holder removed
    return None


def _remove_leftovers(folder: Path) -> None:
    for draft in folder.glob(f"{TEMP_PREFIX}*"):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # writing beside it will say what is wrong there
                draft.unlink()


def cannot_write(path: Path, error: OSError) -> str:
    """The one line for a write that failed."""
    return f"{path}: cannot be written ({error.strerror or error}). Free space or mend the permissions, then run again."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")
