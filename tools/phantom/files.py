"""Folders, and files written whole or not at all; where that fails, one line says what is in the way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def make_folder(folder: Path, option: str) -> None:
    """Make a folder and those above it.

    Args:
        folder: may be there already.
        option: of the command, that chose the place; for the message.

    Raises:
        OSError: naming the file or folder that is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if there.is_dir():
            text = f"{there}: no folder can be made in it ({error.strerror}). Free space, mend the permissions"
        else:
            text = f"{there}: expected a folder, found a file. Move it away"
        raise OSError(f"{text} or choose another {option}.") from error


def replace(path: Path, write: Callable[[Path], object], option: str = "--root") -> None:
    """Write beside the path and rename, so that nobody meets half a file, and none stays.

    Raises:
        OSError: if it cannot be written, naming it.
    """
    draft = path.with_name(f".{path.name}")
    try:
        write(draft)
        draft.replace(path)
    except OSError as error:
        raise cannot_write(path, error, option) from error
    finally:
        with contextlib.suppress(OSError):  # the first error tells more
            draft.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError, option: str) -> OSError:
    """The one line for a write that failed."""
    mend = f"Free space, mend the permissions or choose another {option}."
    return OSError(f"{path}: cannot be written ({error.strerror or error}). {mend}")


def remove(path: Path) -> None:
    """Remove a file.

    Raises:
        OSError: if that fails, naming it.
    """
    try:
        path.unlink()
    except OSError as error:
        raise OSError(
            f"{path}: cannot be removed ({error.strerror}). Mend the permissions of its folder or choose another "
            "--root or --dataset."
        ) from error
