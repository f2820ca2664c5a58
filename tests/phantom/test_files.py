"""Files of the phantom are written completely or not at all, and an error is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.processes import tree
from phantom.files import make_folder, remove, replace


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b", "--root")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_the_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^.*/file: expected a folder, found a file\. Move .* choose another --out\.$"):
        make_folder(tmp_path / "file" / below, "--out")


def test_a_link_to_nowhere_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "away")
    with pytest.raises(OSError, match=r"^.*/link: expected a folder"):
        make_folder(tmp_path / "link" / "a", "--out")


def test_the_folder_that_takes_no_other_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r": .* folder .*\(No space left on device\)\. Free space") as caught:
        make_folder(tmp_path / "a" / "b", "--root")
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def write(draft: Path) -> None:
        draft.write_text("new")
        assert tree(tmp_path) == {".a": b"new", "a": b"old"}

    replace(tmp_path / "a", write)
    assert tree(tmp_path) == {"a": b"new"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("?"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_draft(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_text("old")

    def write(draft: Path) -> None:
        draft.write_text("half")
        raise error

    with pytest.raises(OSError if isinstance(error, OSError) else type(error)) as caught:
        replace(tmp_path / "a", write)
    assert tree(tmp_path) == {"a": b"old"}
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{tmp_path / 'a'}: cannot be written (No space left on device). ")
        assert str(caught.value).endswith("--root.")


def test_a_file_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone: cannot be removed \(No such file or directory\)\. "):
        remove(tmp_path / "gone")
