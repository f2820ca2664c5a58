"""A ZIP archive with a manifest: size and SHA-256 of every member, equal bytes for equal content, read into memory.

Whoever made it, nothing in it is believed before it is checked, and nothing in it is ever unpacked to disk.
Members are stored as they are, not compressed: weights hardly shrink, and what does not grow when it is
read cannot be a bomb.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dvtplan import __version__
from dvtplan.core import files, json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list

R = TypeVar("R")

MANIFEST = "manifest.json"
FORMAT = 1
"""Raised when an older dvtplan could not read what is written."""
LARGEST_TEXT = 16 << 20
"""Bytes of a member that is read as text."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
"""What a member may be called: no way up, no root, no drive, nothing hidden."""
TIME = (1980, 1, 1, 0, 0, 0)
"""Of every member: the first that ZIP knows."""
FAULTS = (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, RuntimeError, EOFError, LookupError,
          OverflowError, struct.error)  # fmt: skip
"""What ``zipfile`` raises on damaged or hostile archives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of the archive."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is in an archive, but itself."""

    kind: str
    """What the archive is for."""
    format: int
    dvtplan: str
    """The version that wrote it."""
    members: dict[str, Member]


# --- writing --------------------------------------------------------------------------------------


class ArchiveWriter:
    """Takes the members of an archive, in the order in which they are to lie there."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.members: dict[str, Member] = {}

    def add(self, name: str, content: bytes) -> None:
        """One more member."""
        if NAME.fullmatch(name) is None or name in self.members:
            raise ValueError(f"{name!r} cannot be the name of a member, or stands there already")
        self._put(name, content)
        self.members[name] = Member(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def add_record(self, name: str, record: Any) -> None:
        """A record as JSON.

        Raises:
            DvtError: if it holds a word that an archive may not hold.
        """
        fault = find_control_characters(json_records.to_json(record))
        if fault:
            raise DvtError(f"{name}: {fault}, which cannot travel. Rename it in the data set and train again.")
        self.add(name, json_records.dump(record).encode())

    def close(self, kind: str) -> None:
        """The manifest, last."""
        manifest = Manifest(kind=kind, format=FORMAT, dvtplan=__version__, members=self.members)
        self._put(MANIFEST, json_records.dump(manifest).encode())

    def _put(self, name: str, content: bytes) -> None:
        info = zipfile.ZipInfo(name, TIME)
        info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # a plain file, on any system
        self._archive.writestr(info, content)


@contextlib.contextmanager
def write_archive(path: Path, kind: str) -> Iterator[ArchiveWriter]:
    """Write an archive whole or not at all; equal members in equal order give equal bytes.

    Raises:
        DvtError: if it cannot be written.
    """
    with files.atomic_write(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        writer = ArchiveWriter(archive)
        yield writer
        writer.close(kind)


# --- reading --------------------------------------------------------------------------------------


class ArchiveReader:
    """An archive that is open, whose names and sizes are those of its manifest."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._archive = archive

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.members

    def read(self, name: str) -> bytes:
        """A member's bytes, which fit their digest.

        Raises:
            DvtError: if they do not, or it is not there.
        """
        member = self.manifest.members.get(name)
        if member is None:
            raise DvtError(f"{self.path}: lacks {name}. Ask for it again where it comes from.")
        content = _content(self.path, self._archive, name)
        if len(content) != member.bytes or hashlib.sha256(content).hexdigest() != member.sha256:
            raise DvtError(f"{self.path}: {name} does not fit its digest. {DOWNLOAD_AGAIN}")
        return content

    def text(self, name: str) -> str:
        """A member as text in UTF-8 that a terminal can show.

        Raises:
            DvtError: as ``read``; if it is very large, or holds control characters.
        """
        member = self.manifest.members.get(name)
        if member is not None and member.bytes > LARGEST_TEXT:
            raise DvtError(f"{self.path}: {name} has {member.bytes} bytes, too many for a text. {DOWNLOAD_AGAIN}")
        try:
            text = self.read(name).decode()
        except UnicodeDecodeError:
            raise DvtError(f"{self.path}: {name} is no text in UTF-8. {DOWNLOAD_AGAIN}") from None
        if any(_hidden(line) for line in text.split("\n")):
            raise DvtError(f"{self.path}: {name} holds control characters. {DOWNLOAD_AGAIN}")
        return text

    def record(self, kind: type[R], name: str) -> R:
        """A member as a record.

        Raises:
            DvtError: as ``text``; if it is no such record.
        """
        text = self.text(name)
        try:
            made = json_records.parse(kind, text)
            fault = find_control_characters(json_records.to_json(made))
        except (ValueError, RecursionError) as error:
            raise DvtError(f"{self.path}: {name}: {_plain(error)}. {DOWNLOAD_AGAIN}") from error
        if fault:
            raise DvtError(f"{self.path}: {name}: {fault}. {DOWNLOAD_AGAIN}")
        return made


DOWNLOAD_AGAIN = "Fetch it again from where it comes from."


@contextlib.contextmanager
def open_archive(path: Path, kind: str) -> Iterator[ArchiveReader]:
    """Open an archive and check all that can be checked before a member is read.

    Args:
        path: the archive.
        kind: what it must be for.

    Raises:
        DvtError: if it is not there, damaged, of another kind or a newer format, or if anything in it is not as a
            manifest of ours would have it.
    """
    if not path.is_file():
        raise DvtError(f"{path}: not found. Name an archive of a {kind}.")
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            infos = archive.infolist()
            fault = _fault(infos, path.stat().st_size)
        except PermissionError as error:
            raise DvtError(f"{path}: may not be read. Mend its permissions, then run again.") from error
        except FAULTS as error:
            raise DvtError(f"{path}: is no whole ZIP archive ({_plain(error)}). {DOWNLOAD_AGAIN}") from error
        if fault:
            raise DvtError(f"{path}: {fault}. {DOWNLOAD_AGAIN}")
        yield ArchiveReader(path, archive, _manifest(path, archive, kind))


def _fault(infos: list[zipfile.ZipInfo], size: int) -> str:
    """What is wrong with the directory of an archive of some bytes; empty if nothing is."""
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if NAME.fullmatch(name) is None or info.orig_filename != name:
            return f"holds a member called {_shown(info.orig_filename)}, which no such archive has"
        if name in seen:
            return f"holds {name} twice"
        if kind not in (0, stat.S_IFREG):
            return f"{name} is a link or no plain file"
        if info.flag_bits & 1:
            return f"{name} is locked by a password"
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            return f"{name} is compressed, and such an archive stores its members as they are"
        seen.add(name)
    if sum(info.file_size for info in infos) > size:
        return f"its members claim more bytes than its {size}"
    return ""


def _manifest(path: Path, archive: zipfile.ZipFile, kind: str) -> Manifest:
    """The manifest, once it agrees with the archive's directory in every name and size."""
    infos = {info.filename: info for info in archive.infolist()}
    if MANIFEST not in infos:
        raise DvtError(f"{path}: is no archive of a {kind}: it lacks {MANIFEST}. Name another file.")
    if infos[MANIFEST].file_size > LARGEST_TEXT:
        raise DvtError(f"{path}: {MANIFEST} is larger than {LARGEST_TEXT >> 20} MiB. {DOWNLOAD_AGAIN}")
    content = _content(path, archive, MANIFEST)
    try:
        text = content.decode()
        body = json.loads(text)
        form = body.get("format") if isinstance(body, dict) else None
        if isinstance(form, int) and form > FORMAT:
            newer = True
        else:
            newer, manifest = False, json_records.parse(Manifest, text)
            fault = find_control_characters(json_records.to_json(manifest))
    except (ValueError, RecursionError) as error:
        raise DvtError(f"{path}: {MANIFEST}: {_plain(error)}. {DOWNLOAD_AGAIN}") from error
    if newer:
        raise DvtError(f"{path}: is of format {form}; dvtplan {__version__} reads up to {FORMAT}. Install a newer one.")
    if fault or manifest.format != FORMAT:
        raise DvtError(
            f"{path}: {MANIFEST}: {fault or f'format {manifest.format} was never written'}. {DOWNLOAD_AGAIN}"
        )
    if manifest.kind != kind:
        raise DvtError(f"{path}: is an archive of a {manifest.kind}, not of a {kind}. Name another file.")
    there, named = set(infos) - {MANIFEST}, set(manifest.members)
    if there != named:
        lacking, beyond = sorted(map(_shown, named - there)), sorted(map(_shown, there - named))
        what = (
            f"lacks {shorten_list(lacking)}, which {MANIFEST} names"
            if lacking
            else f"holds {shorten_list(beyond)} beside it"
        )
        raise DvtError(f"{path}: {what}. {DOWNLOAD_AGAIN}")
    wrong = [name for name, member in manifest.members.items() if infos[name].file_size != member.bytes]
    if wrong:
        raise DvtError(f"{path}: {wrong[0]} has not the size that {MANIFEST} tells. {DOWNLOAD_AGAIN}")
    return manifest


def _content(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except FAULTS as error:
        raise DvtError(f"{path}: {name} cannot be read ({_plain(error)}). {DOWNLOAD_AGAIN}") from error


# --- words ----------------------------------------------------------------------------------------


def find_control_characters(value: Any) -> str:
    """What is wrong with the words in a JSON value: those with control characters, which could write to a terminal."""
    if isinstance(value, dict):
        return next((fault for pair in value.items() for part in pair if (fault := find_control_characters(part))), "")
    if isinstance(value, list):
        return next((fault for part in value if (fault := find_control_characters(part))), "")
    return f"holds control characters in {_shown(value)}" if isinstance(value, str) and _hidden(value) else ""


def _hidden(text: str) -> bool:
    """Whether a text holds controls, marks that turn its direction, or halves of characters."""
    return not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def _plain(error: BaseException) -> str:
    """An error in one line that a terminal can show."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line[:200] if not _hidden(line) else ascii(line[:200])
