"""Verified archives: equal bytes for equal members, and hostile archives are refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import processes
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core import json_records, verified_archive
from dvtplan.core.errors import DvtError
from dvtplan.data.folds import Fold, Splits

KIND = "test"
MEMBERS = {"a.json": b"{}", "deep/b.bin": bytes(range(256)), "c.txt": "zwölf\n".encode()}


def refused(act: Callable[[], object]) -> str:
    """Return the error message, which must be one printable line."""
    with pytest.raises(DvtError) as caught:
        act()
    assert str(caught.value).isprintable()
    return str(caught.value)


def write(path: Path, members: Mapping[str, bytes] = MEMBERS) -> Path:
    with verified_archive.write_archive(path, KIND) as archive:
        for name, content in members.items():
            archive.add(name, content)
    return path


def read_all(path: Path) -> dict[str, bytes]:
    with verified_archive.open_archive(path, KIND) as archive:
        return {name: archive.read(name) for name in archive.manifest.members}


def manifest(members: Mapping[str, bytes] = MEMBERS, **changes: Any) -> bytes:
    """Make the manifest of some members, with changed fields."""
    body = {
        "schema": 1,
        "record": "Manifest",
        "kind": KIND,
        "format": 1,
        "dvtplan": "0",
        "members": {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in members.items()},
    }
    return json.dumps(body | changes).encode()


def forge(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], **how: Any) -> Path:
    """Write an archive with members in order, also duplicate ones."""
    with zipfile.ZipFile(path, "w") as archive, contextlib.suppress(UserWarning):
        for name, content in members:
            archive.writestr(name, content, **how)
    return path


def forged(path: Path, extra: tuple[str | zipfile.ZipInfo, bytes], **how: Any) -> str:
    """Return the error for an archive with one extra member."""
    return refused(
        lambda: read_all(forge(path, [*MEMBERS.items(), extra, (verified_archive.MANIFEST, manifest())], **how))
    )


# --- writing --------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_all(write(tmp_path / "a.zip")) == MEMBERS
    with verified_archive.open_archive(tmp_path / "a.zip", KIND) as archive:
        assert archive.text("c.txt") == "zwölf\n" and "c.txt" in archive and "d.txt" not in archive
        assert "lacks d.txt" in refused(lambda: archive.read("d.txt"))


def test_equal_members_give_equal_bytes_that_anyone_can_unpack(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.zip"), write(tmp_path / "other.zip")
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {name: archive.read(name) for name in archive.namelist()[:-1]} == MEMBERS
        assert archive.namelist()[-1] == verified_archive.MANIFEST and archive.testzip() is None


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"before")
    with pytest.raises(ValueError), verified_archive.write_archive(tmp_path / "a.zip", KIND) as archive:
        archive.add("a", b"1")
        archive.add("../a", b"2")
    assert processes.tree(tmp_path) == {"a.zip": b"before"}


@pytest.mark.parametrize(
    "name", ["a", "/etc/passwd", "../up", "a/../b", "a//b", ".hidden", "a\\b", "C:x", "", "a/", "ä"]
)
def test_a_member_with_such_a_name_is_not_written(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(ValueError, match="cannot be the name"),
        verified_archive.write_archive(tmp_path / "a.zip", KIND) as archive,
    ):
        archive.add("a", b"")
        archive.add(name, b"")


def test_a_record_with_control_characters_is_not_written(tmp_path: Path) -> None:
    for word in ("\x1b[2J", "\u202egnp", "\ud800"):
        splits = Splits(source=word, folds=(Fold(index=0, train=(), test=()),))
        with verified_archive.write_archive(tmp_path / "a.zip", KIND) as archive:
            error_of = refused(lambda splits=splits: archive.add_record("splits.json", splits))  # type: ignore[misc]
        assert "splits.json: contains control characters" in error_of


# --- names and kinds of members -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../up", "/etc/passwd", "a/../../b", "C:\\x", "a\\b", ".hidden", "a\x1b[2J", "a/", "\u202ea", "x" * 300 + "/"],
)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    assert "contains a member called" in forged(tmp_path / "a.zip", (name, b""))


def test_a_name_that_hides_its_end_is_refused(tmp_path: Path) -> None:
    """ZIP readers cut names at a zero byte."""
    path = forge(tmp_path / "a.zip", [*MEMBERS.items(), ("c.txtX", b""), (verified_archive.MANIFEST, manifest())])
    path.write_bytes(path.read_bytes().replace(b"c.txtX", b"c.txt\0"))
    assert "contains a member called" in refused(lambda: read_all(path))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    assert "link is a link" in forged(tmp_path / "a.zip", (info, b"/etc/passwd"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    assert "contains c.txt twice" in forged(tmp_path / "a.zip", ("c.txt", b"other"))


def test_members_and_manifest_must_agree(tmp_path: Path) -> None:
    assert "contains 'new', not listed" in forged(tmp_path / "a.zip", ("new", b""))
    fewer = [*list(MEMBERS.items())[1:], (verified_archive.MANIFEST, manifest())]
    assert "lacks 'a.json', listed in manifest.json" in refused(lambda: read_all(forge(tmp_path / "b.zip", fewer)))
    changed = [*(MEMBERS | {"c.txt": b"longer than before"}).items(), (verified_archive.MANIFEST, manifest())]
    assert "c.txt has another size" in refused(lambda: read_all(forge(tmp_path / "c.zip", changed)))
    changed = [*(MEMBERS | {"a.json": b"[]"}).items(), (verified_archive.MANIFEST, manifest())]
    assert "a.json does not match its digest" in refused(lambda: read_all(forge(tmp_path / "d.zip", changed)))
    assert "it lacks manifest.json" in refused(lambda: read_all(forge(tmp_path / "e.zip", list(MEMBERS.items()))))


def test_a_wrong_manifest_is_refused(tmp_path: Path) -> None:
    def error_of(content: bytes) -> str:
        return refused(
            lambda: read_all(forge(tmp_path / "a.zip", [*MEMBERS.items(), (verified_archive.MANIFEST, content)]))
        )

    assert "has format 2; dvtplan" in error_of(manifest(format=2, novelty=1)) and "newer" in error_of(
        manifest(format=2)
    )
    assert "format 0 does not exist" in error_of(manifest(format=0))
    assert "is an archive of a cake, not of a test" in error_of(manifest(kind="cake"))
    assert "unknown field surprise" in error_of(manifest(surprise=1))
    assert "control characters" in error_of(manifest(dvtplan="\x1b[2J"))
    assert "not readable JSON" in error_of(b"[" * 100_000) or "recursion" in error_of(b"[" * 100_000)
    assert "manifest.json: " in error_of(b"\xff\xfe") and "manifest.json: " in error_of(b"")
    assert "larger than 16 MiB" in error_of(b" " * (verified_archive.LARGEST_TEXT + 1))


# --- bombs, locks, damage -------------------------------------------------------------------------


def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    """10 MB of zeros take 10 kB."""
    extra = ("bomb", bytes(10_000_000))
    assert "is compressed" in forged(tmp_path / "a.zip", extra, compress_type=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.zip").stat().st_size < 20_000


def patched(path: Path, name: str, offset: int, form: str, value: int) -> Path:
    """Change a field of a member's entry in the central directory (APPNOTE 4.3.12); offsets count from its start."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    struct.pack_into(form, content, entry + offset, value)
    path.write_bytes(content)
    return path


def test_sizes_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    path = patched(write(tmp_path / "a.zip"), "a.json", 20, "<I", 1 << 30)
    path = patched(path, "a.json", 24, "<I", 1 << 30)
    assert "claim more bytes" in refused(lambda: read_all(path))
    path = patched(write(tmp_path / "b.zip"), "a.json", 24, "<I", 1 << 30)
    assert "is compressed" in refused(lambda: read_all(path))


def test_a_member_with_a_password_is_refused(tmp_path: Path) -> None:
    path = patched(write(tmp_path / "a.zip"), "a.json", 8, "<H", 1)
    assert "a.json is protected by a password" in refused(lambda: read_all(path))


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """The second entry points to the first member, as in bombs without compression."""
    path = patched(write(tmp_path / "a.zip"), "deep/b.bin", 42, "<I", 0)
    assert "deep/b.bin cannot be read" in refused(lambda: read_all(path))


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK, but no more")
    assert "is not a complete ZIP archive" in refused(lambda: read_all(tmp_path / "a.zip"))
    assert "not found" in refused(lambda: read_all(tmp_path / "none.zip"))
    assert "not found" in refused(lambda: read_all(tmp_path))


def test_only_printable_text_is_returned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"esc": b"\x1b[2J", "bad": b"\xff", "json": b'{"a": "\\u001b"}', "large": b""})
    with verified_archive.open_archive(path, KIND) as archive:
        assert "control characters" in refused(lambda: archive.text("esc"))
        assert "not UTF-8 text" in refused(lambda: archive.text("bad"))
        assert "expected Splits" in refused(lambda: archive.record(Splits, "json"))


@pytest.mark.parametrize("word", ['"\\u001b[2J"', '"\\ud800"', "1e999", "NaN", "1" * 5000])
def test_records_with_harmful_values_are_refused(tmp_path: Path, word: str) -> None:
    text = json_records.dump(Splits(source="WORD", folds=())).replace('"WORD"', word)
    with verified_archive.open_archive(write(tmp_path / "a.zip", {"r.json": text.encode()}), KIND) as archive:
        assert "r.json" in refused(lambda: archive.record(Splits, "r.json"))


@settings(deadline=None)
@given(st.data())
def test_any_changed_or_missing_byte_is_noticed_or_has_no_effect(data: st.DataObject) -> None:
    path = GOOD / "good.zip"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    bad = GOOD / "bad.zip"
    bad.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        assert read_all(bad) == MEMBERS
    except DvtError as error:
        assert str(error).isprintable()


@pytest.fixture(autouse=True, scope="module")
def _good(tmp_path_factory: pytest.TempPathFactory) -> None:
    global GOOD
    GOOD = tmp_path_factory.mktemp("archive")
    write(GOOD / "good.zip")


GOOD = Path()
