"""A folder for matplotlib where the home folder cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvtplan.cli import cache_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files. The home folder is missing and cannot be created."""
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", cache_folder.VARIABLE):
        monkeypatch.setenv(name, "")  # restored afterwards, whatever the code does
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_without_a_writable_home_a_private_temporary_folder_is_used_again_and_again(temporary: Path) -> None:
    cache_folder.prepare()
    chosen = Path(os.environ[cache_folder.VARIABLE])
    assert chosen.parent == temporary and stat.S_IMODE(chosen.stat().st_mode) == 0o700
    del os.environ[cache_folder.VARIABLE]
    cache_folder.prepare()
    assert Path(os.environ[cache_folder.VARIABLE]) == chosen
    chosen.chmod(0o777)  # others could write into it
    del os.environ[cache_folder.VARIABLE]
    cache_folder.prepare()
    assert Path(os.environ[cache_folder.VARIABLE]) != chosen


def test_a_writable_home_and_a_choice_of_the_user_stay(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cache_folder.prepare()
    assert cache_folder.VARIABLE not in os.environ and not (tmp_path / ".config").exists()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv(cache_folder.VARIABLE, "mine")
    cache_folder.prepare()
    assert os.environ[cache_folder.VARIABLE] == "mine" and list(temporary.iterdir()) == []


def test_a_home_that_this_user_must_not_open_ends_no_command(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another user in a container: not even the question whether a file exists is allowed."""
    home = tmp_path / "closed"
    home.mkdir()
    may = os.access

    def refusing(original: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(path: Any, **options: Any) -> os.stat_result:
            if str(path).startswith(f"{home}/"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return original(path, **options)

        return look

    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(os, "stat", refusing(os.stat))
    monkeypatch.setattr(os, "lstat", refusing(os.lstat))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != home and may(path, mode))
    cache_folder.prepare()
    assert Path(os.environ[cache_folder.VARIABLE]).parent == temporary
