"""Atomic writes, and locks of folders."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.processes import python
from helpers.records import PLAN

from dvtplan.core import files, json_records
from dvtplan.core.errors import DvtError, WriteFailed


def test_files_in_folders_that_are_links_are_listed_once(tmp_path: Path) -> None:
    for name in ("top/b", "top/sub/a", "other/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in (("other", "other"), ("other2", "other"), ("up", "."), ("self", "top"), ("gone", "none")):
        (tmp_path / "top" / link).symlink_to(tmp_path / target)
    listed = [str(path.relative_to(tmp_path / "top")) for path in files.walk_files(tmp_path / "top")]
    assert listed == ["b", "gone", "other/c", "sub/a"]


def test_a_folder_that_cannot_be_listed_is_refused_if_all_files_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    list_folder = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert files.walk_files(tmp_path) == []
    with pytest.raises(DvtError, match=r"closed: .*[Pp]ermission"):
        files.walk_files(tmp_path, strict=True)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"), files.atomic_write(path) as draft:
        draft.write_text("ne")
        raise RuntimeError("half-way")
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.atomic_write(tmp_path / "a" / "b.nii.gz") as draft:
        assert draft.name.startswith(files.TEMP_PREFIX)
        assert draft.name.endswith(".nii.gz") and draft.name.count(".") == 3
        raise KeyboardInterrupt
    assert list((tmp_path / "a").iterdir()) == []


def test_a_new_file_replaces_the_old_and_has_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    before = os.umask(0o027)
    try:
        files.write_text(path, "new")
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_without_permission_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the system's answer is played.
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(DvtError, match=r"plan.json: cannot be written \(Permission denied\). Free space or fix"):
        json_records.save(PLAN, tmp_path / "plan.json")


def test_a_file_instead_of_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(DvtError, match=r"results/plan.json: cannot be written"):
        json_records.save(PLAN, tmp_path / "results" / "plan.json")


def test_a_full_disk_is_one_clear_line_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")
    code = (
        "import sys; from pathlib import Path; from dvtplan.core import errors, files\n"
        "try: files.write_text(Path(sys.argv[1]), 'x' * 100_000)\n"
        "except errors.DvtError as error: sys.exit(str(error))"
    )
    ran = python(["-c", code, path], file_limit=50_000)
    assert ran.stderr == (
        f"{path}: cannot be written (File too large). Free space or fix the permissions, then run again.\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert path.read_text() == "old"


def test_the_holder_of_a_lock_first_removes_leftovers_and_nothing_else(tmp_path: Path) -> None:
    for name in (".writing-x1-plan.json", "plan.json", ".hidden"):
        (tmp_path / name).write_text("")
    for name in (".writing-a-x2", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.npy").write_text("")
    with files.exclusive_lock(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", ".lock", "a", "plan.json"]


def test_a_lock_excludes_a_second_process_until_it_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_TRIES", 1)
    with (
        files.exclusive_lock(tmp_path / "fold"),
        pytest.raises(DvtError, match=r"fold: another process is at work here\. Wait for it or end it\.$"),
        files.exclusive_lock(tmp_path / "fold"),
    ):
        pass
    with files.exclusive_lock(tmp_path / "fold"):
        pass
    assert list((tmp_path / "fold").iterdir()) == []


def test_a_file_that_cannot_be_written_later_is_refused_before(tmp_path: Path) -> None:
    files.require_writable(tmp_path / "new" / "er" / "table.csv")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "table.csv"):
        with pytest.raises(WriteFailed, match=r"cannot be written .*Choose another path"):
            files.require_writable(path)


def test_a_file_system_without_locks_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    for _ in range(2):
        with files.exclusive_lock(tmp_path):
            pass
    assert capsys.readouterr().err.count("without locks") == 1


def test_bytes_of_a_file_name_that_are_not_text_are_written_as_escapes(tmp_path: Path) -> None:
    files.write_text(tmp_path / "note.json", json.dumps(os.fsdecode(b"M\xfcller"), ensure_ascii=False))
    assert json.loads((tmp_path / "note.json").read_text(encoding="utf-8")) == os.fsdecode(b"M\xfcller")


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    with files.atomic_write(tmp_path / "alive.txt") as alive:
        dead = alive.with_name(alive.name.replace("alive", "dead"))
        foreign, old = (tmp_path / f".writing-?{name}-12345678-a.txt" for name in ("???", "..."))
        for path in (dead, foreign, old):
            path.touch()
        os.utime(old, (0, 0))
        files.remove_abandoned.cache_clear()  # as in another process
        files.write_text(tmp_path / "next.txt", "next")
        assert set(tmp_path.iterdir()) == {alive, foreign, tmp_path / "next.txt"}
        alive.write_text("alive")
    assert (tmp_path / "alive.txt").read_text() == "alive"


def test_only_a_lock_that_nobody_holds_is_removed(tmp_path: Path) -> None:
    with files.exclusive_lock(tmp_path, name="held"):
        (tmp_path / "left").touch()
        for name in ("held", "left"):
            files.remove_unlocked(tmp_path / name)
        assert [p.name for p in tmp_path.iterdir()] == ["held"]


def test_a_draft_that_another_process_took_for_abandoned_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment before it is locked."""
    flock, removed = files.fcntl.flock, []

    def late(handle: int, kind: int) -> None:
        if not removed:
            removed.extend(tmp_path.glob(".writing-*"))
            removed[0].unlink()
        flock(handle, kind)

    monkeypatch.setattr(files.fcntl, "flock", late)
    files.write_text(tmp_path / "a.txt", "a")
    assert removed and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_writers_of_one_file_do_not_remove_the_drafts_of_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        files.remove_abandoned.cache_clear()  # as in another process
        files.write_text(tmp_path / "a.txt", str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(400)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
