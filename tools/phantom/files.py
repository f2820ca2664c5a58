"""Make folders, and write files completely or not at all. Errors are one line that names the path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def make_folder(folder: Path, option: str) -> None:
    """Make a folder and its parents.

    Args:
        folder: may exist.
        option: the command-line option that chose the folder, for the message.

    Raises:
        OSError: if it cannot be made, naming the file or folder that prevents it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if there.is_dir():
            text = f"{there}: cannot make a folder in it ({error.strerror}). Free space, fix the permissions"
        else:
            text = f"{there}: expected a folder, found a file. Move it"
        raise OSError(f"{text} or choose another {option}.") from error


def replace(path: Path, write: Callable[[Path], object], option: str = "--root") -> None:
    """Write a temporary file next to the path and rename it, so that no partial file is visible or left.

    Raises:
        OSError: if the file cannot be written, naming it.
    """
    draft = path.with_name(f".{path.name}")
    try:
        write(draft)
        draft.replace(path)
    except OSError as error:
        raise cannot_write(path, error, option) from error
    finally:
        with contextlib.suppress(OSError):  # the first error says more
            draft.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError, option: str) -> OSError:
    """Return an error with a one-line message for a failed write."""
    remedy = f"Free space, fix the permissions or choose another {option}."
    return OSError(f"{path}: cannot be written ({error.strerror or error}). {remedy}")


def remove(path: Path) -> None:
    """Remove a file.

    Raises:
        OSError: if that fails, naming it.
    """
    try:
        path.unlink()
    except OSError as error:
        raise OSError(
            f"{path}: cannot be removed ({error.strerror}). Fix the permissions of its folder or choose another "
            "--root or --dataset."
        ) from error
