"""A folder for matplotlib's fonts where the home folder cannot be written, as in many containers."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

VARIABLE = "MPLCONFIGDIR"
"""Where matplotlib keeps its files; read by matplotlib."""


def prepare() -> None:
    """Let matplotlib use a folder for temporary files if it could not use its own. It would warn at every start."""
    if VARIABLE in os.environ or _home_is_writable():
        return
    with contextlib.suppress(OSError):
        os.environ[VARIABLE] = str(_private_folder(Path(tempfile.gettempdir())))


def _home_is_writable() -> bool:
    try:
        folders = [
            Path(os.environ.get(variable) or Path.home() / name) / "matplotlib"
            for variable, name in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"))
        ]
        return all(_can_be_created(folder) for folder in folders)
    except (RuntimeError, OSError):  # no home folder, or one that this user must not open
        return False


def _can_be_created(folder: Path) -> bool:
    """Return whether a folder exists or could be created; nothing is created."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _private_folder(parent: Path) -> Path:
    """Return a folder that only this user can write; the same every time, so that fonts are listed once."""
    folder = parent / f"dvtplan-matplotlib-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    mine = not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)
    if stat.S_ISDIR(about.st_mode) and mine:
        return folder
    return Path(tempfile.mkdtemp(prefix="dvtplan-matplotlib-", dir=parent))
