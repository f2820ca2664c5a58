"""Verified archive: a ZIP file whose manifest lists the size and SHA-256 of every member.

Equal content gives equal bytes. The reader trusts nothing before it is checked, reads into memory, and never unpacks to
disk. Members are stored without compression: weights hardly shrink, and a stored member cannot be a ZIP bomb.
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
"""Increased when an older dvtplan cannot read the new format."""
LARGEST_TEXT = 16 << 20
"""Most bytes of a member that is read as text."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
"""Allowed names of members: no parent folder, no root, no drive, no hidden file."""
TIME = (1980, 1, 1, 0, 0, 0)
"""Time of every member: the earliest of ZIP."""
FAULTS = (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, RuntimeError, EOFError, LookupError,
          OverflowError, struct.error)  # fmt: skip
"""Exceptions of ``zipfile`` for damaged or hostile archives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file in the archive."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The list of all other members of an archive."""

    kind: str
    """Purpose of the archive, such as a model."""
    format: int
    dvtplan: str
    """Version that wrote the archive."""
    members: dict[str, Member]


# --- writing --------------------------------------------------------------------------------------


class ArchiveWriter:
    """Write the members of an archive, in order."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.members: dict[str, Member] = {}

    def add(self, name: str, content: bytes) -> None:
        """Add a member.

        Raises:
            ValueError: if the name is not allowed or used already.
        """
        if NAME.fullmatch(name) is None or name in self.members:
            raise ValueError(f"{name!r} cannot be the name of a member or is used already")
        self._put(name, content)
        self.members[name] = Member(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def add_record(self, name: str, record: Any) -> None:
        """Add a record as JSON. Fields that older versions do not know are omitted while they have their default.

        Raises:
            DvtError: if a text of the record contains control characters.
        """
        fault = find_control_characters(json_records.to_json(record))
        if fault:
            raise DvtError(
                f"{name}: {fault}, which an archive must not contain. Rename it in the data set and train again."
            )
        self.add(name, json_records.dump(record, omit_default=True).encode())

    def close(self, kind: str) -> None:
        """Write the manifest as the last member."""
        manifest = Manifest(kind=kind, format=FORMAT, dvtplan=__version__, members=self.members)
        self._put(MANIFEST, json_records.dump(manifest).encode())

    def _put(self, name: str, content: bytes) -> None:
        info = zipfile.ZipInfo(name, TIME)
        info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # a regular file, on any system
        self._archive.writestr(info, content)


@contextlib.contextmanager
def write_archive(path: Path, kind: str) -> Iterator[ArchiveWriter]:
    """Write an archive atomically; equal members in equal order give equal bytes.

    Raises:
        WriteFailed: if it cannot be written.
    """
    with files.atomic_write(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        writer = ArchiveWriter(archive)
        yield writer
        writer.close(kind)


# --- reading --------------------------------------------------------------------------------------


class ArchiveReader:
    """An open archive whose names and sizes agree with its manifest."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._archive = archive

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.members

    def read(self, name: str) -> bytes:
        """Return a member's bytes.

        Raises:
            DvtError: if the member is missing or its bytes do not fit the digest.
        """
        member = self.manifest.members.get(name)
        if member is None:
            raise DvtError(f"{self.path}: lacks {name}. {DOWNLOAD_AGAIN}")
        content = _content(self.path, self._archive, name)
        if len(content) != member.bytes or hashlib.sha256(content).hexdigest() != member.sha256:
            raise DvtError(f"{self.path}: {name} does not match its digest. {DOWNLOAD_AGAIN}")
        return content

    def text(self, name: str) -> str:
        """Return a member as UTF-8 text that is safe to print.

        Raises:
            DvtError: as ``read``; if the text is too large or contains control characters.
        """
        member = self.manifest.members.get(name)
        if member is not None and member.bytes > LARGEST_TEXT:
            raise DvtError(
                f"{self.path}: {name} has {member.bytes} bytes, at most {LARGEST_TEXT} for text. {DOWNLOAD_AGAIN}"
            )
        try:
            text = self.read(name).decode()
        except UnicodeDecodeError:
            raise DvtError(f"{self.path}: {name} is not UTF-8 text. {DOWNLOAD_AGAIN}") from None
        if any(_has_control_characters(line) for line in text.split("\n")):
            raise DvtError(f"{self.path}: {name} contains control characters. {DOWNLOAD_AGAIN}")
        return text

    def record(self, kind: type[R], name: str) -> R:
        """Return a member as a record.

        Raises:
            DvtError: as ``text``; if it is not a record of this kind.
        """
        text = self.text(name)
        try:
            record = json_records.parse(kind, text)
            fault = find_control_characters(json_records.to_json(record))
        except (ValueError, RecursionError) as error:
            raise DvtError(f"{self.path}: {name}: {_plain(error)}. {DOWNLOAD_AGAIN}") from error
        if fault:
            raise DvtError(f"{self.path}: {name}: {fault}. {DOWNLOAD_AGAIN}")
        return record


DOWNLOAD_AGAIN = "Download it again from its source."
"""What to do about a damaged archive."""


@contextlib.contextmanager
def open_archive(path: Path, kind: str) -> Iterator[ArchiveReader]:
    """Open an archive and check everything that does not need a member's content.

    Args:
        path: the archive.
        kind: expected purpose of the archive.

    Raises:
        DvtError: if the archive is missing or damaged, of another kind or a newer format, or does not
            agree with its manifest.
    """
    if not path.is_file():
        raise DvtError(f"{path}: not found. Choose an archive of a {kind}.")
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            infos = archive.infolist()
            fault = _fault(infos, path.stat().st_size)
        except PermissionError as error:
            raise DvtError(f"{path}: no permission to read. Fix the permissions, then run again.") from error
        except FAULTS as error:
            raise DvtError(f"{path}: is not a complete ZIP archive ({_plain(error)}). {DOWNLOAD_AGAIN}") from error
        if fault:
            raise DvtError(f"{path}: {fault}. {DOWNLOAD_AGAIN}")
        yield ArchiveReader(path, archive, _manifest(path, archive, kind))


def _fault(infos: list[zipfile.ZipInfo], size: int) -> str:
    """Return the fault in the directory of an archive of ``size`` bytes; empty if there is none."""
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if NAME.fullmatch(name) is None or info.orig_filename != name:
            return f"contains a member called {_quote(info.orig_filename)}, which is not an allowed name"
        if name in seen:
            return f"contains {name} twice"
        if kind not in (0, stat.S_IFREG):
            return f"{name} is a link or not a regular file"
        if info.flag_bits & 1:
            return f"{name} is protected by a password"
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            return f"{name} is compressed; members must be stored without compression"
        seen.add(name)
    if sum(info.file_size for info in infos) > size:
        return f"its members claim more bytes than the {size} of the file"
    return ""


def _manifest(path: Path, archive: zipfile.ZipFile, kind: str) -> Manifest:
    """Read the manifest and check that it agrees with the archive's directory in every name and size."""
    infos = {info.filename: info for info in archive.infolist()}
    if MANIFEST not in infos:
        raise DvtError(f"{path}: is not an archive of a {kind}: it lacks {MANIFEST}. Choose another file.")
    if infos[MANIFEST].file_size > LARGEST_TEXT:
        raise DvtError(f"{path}: {MANIFEST} is larger than {LARGEST_TEXT >> 20} MiB. {DOWNLOAD_AGAIN}")
    manifest = _parse_manifest(path, _content(path, archive, MANIFEST))
    if manifest.kind != kind:
        raise DvtError(f"{path}: is an archive of a {manifest.kind}, not of a {kind}. Choose another file.")
    present, listed = set(infos) - {MANIFEST}, set(manifest.members)
    if present != listed:
        missing, extra = sorted(map(_quote, listed - present)), sorted(map(_quote, present - listed))
        fault = f"lacks {shorten_list(missing)}" if missing else f"contains {shorten_list(extra)}"
        raise DvtError(f"{path}: {fault}, {'' if missing else 'not '}listed in {MANIFEST}. {DOWNLOAD_AGAIN}")
    wrong = [name for name, member in manifest.members.items() if infos[name].file_size != member.bytes]
    if wrong:
        raise DvtError(f"{path}: {wrong[0]} has another size than {MANIFEST} lists. {DOWNLOAD_AGAIN}")
    return manifest


def _parse_manifest(path: Path, content: bytes) -> Manifest:
    """Parse a manifest of this or an older format.

    Raises:
        DvtError: if it is of a newer format, or not a manifest.
    """
    try:
        text = content.decode()
        body = json.loads(text)
        format_ = body.get("format") if isinstance(body, dict) else None
        is_newer = isinstance(format_, int) and format_ > FORMAT
        manifest = None if is_newer else json_records.parse(Manifest, text)
        fault = find_control_characters(json_records.to_json(manifest))
    except (ValueError, RecursionError) as error:
        raise DvtError(f"{path}: {MANIFEST}: {_plain(error)}. {DOWNLOAD_AGAIN}") from error
    if manifest is None:
        raise DvtError(
            f"{path}: has format {format_}; dvtplan {__version__} reads up to {FORMAT}. Install a newer dvtplan."
        )
    if fault or manifest.format != FORMAT:
        raise DvtError(f"{path}: {MANIFEST}: {fault or f'format {manifest.format} does not exist'}. {DOWNLOAD_AGAIN}")
    return manifest


def _content(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except FAULTS as error:
        raise DvtError(f"{path}: {name} cannot be read ({_plain(error)}). {DOWNLOAD_AGAIN}") from error


# --- text -----------------------------------------------------------------------------------------


def find_control_characters(value: Any) -> str:
    """Return the first text in a JSON value that contains control characters, as a fault; empty if there is none.

    Control characters could change what a terminal shows.
    """
    if isinstance(value, dict):
        return next((fault for pair in value.items() for part in pair if (fault := find_control_characters(part))), "")
    if isinstance(value, list):
        return next((fault for part in value if (fault := find_control_characters(part))), "")
    if isinstance(value, str) and _has_control_characters(value):
        return f"contains control characters in {_quote(value)}"
    return ""


def _has_control_characters(text: str) -> bool:
    """Return whether a text contains control characters, direction marks or surrogates."""
    return not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text)


def _quote(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def _plain(error: BaseException) -> str:
    """Return an error as one line that is safe to print."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line[:200] if not _has_control_characters(line) else ascii(line[:200])
