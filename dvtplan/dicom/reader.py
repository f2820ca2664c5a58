"""Read DICOM files, headers and pixels. The only module that uses pydicom (extra `dicom`)."""

from __future__ import annotations

import contextlib
import errno
import functools
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.files import walk_files
from dvtplan.core.text import shorten_list
from dvtplan.dicom.header import HEADER_KEYWORDS, Header
from dvtplan.imaging.volume_names import is_hidden

try:
    import pydicom
except ImportError:  # require_pydicom reports it
    pydicom = None  # type: ignore[assignment]

PREAMBLE, MAGIC, GZIP = 128, b"DICM", b"\x1f\x8b"
ZEROS = 64
"""Zeros with which a damaged file may begin, at most. The preamble of most DICOM files is 128 zeros."""
LONGEST_REASON = 150
"""Characters of a reason in a message. Some contain the damaged bytes."""
START = 2048
"""Bytes at the start of a file that tell whether it is DICOM."""
STANDARD_UID = b"1.2.840.10008."
"""Start of every UID of the standard, such as the SOP class of an image."""
FIRST_ELEMENTS = (0x0000, 0x0001, 0x0002, 0x0005, 0x0008, 0x0012, 0x0013, 0x0014, 0x0016, 0x0018)
"""Elements of group 0002 or 0008 with which a file without preamble may begin."""
PIXEL_ELEMENTS = (0x0008, 0x0009, 0x0010)
"""Elements of group 7FE0 that contain pixels."""
NO_GROUPS = (0x0000, 0x0002)
"""Groups that stand before a data set only. Bytes that were overwritten with zeros read as group 0000."""
DIRECTORY, DIRECTORY_CLASS = "DICOMDIR", "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of which pydicom unpacks the whole data set first."""
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LARGEST_MEMBER = 2 << 30
"""Bytes of an unpacked file of an archive. No image of a leg is larger."""

SEGMENTATION = "SEG"
MR = "MR"
"""Expected modality (0008,0060) of scans."""
OTHER_MODALITIES = (SEGMENTATION, "RTDOSE", "PR", "KO")
"""Modalities of objects that may have rows and columns, but are not scans."""

Opener = Callable[[], BinaryIO]


class DamagedFile(DamagedScan):
    """A file that is DICOM, or probably was, but cannot be read to its end."""

    def __init__(self, name: str, reason: str, *, series_uid: str = "", certain: bool = True) -> None:
        """Describe the damage.

        Args:
            name: of the file within its folder or archive.
            reason: the damage, as a predicate.
            series_uid: of the series that the file belongs to; empty if it cannot be read any more.
            certain: the file is DICOM. Otherwise it may be any other file: it is empty, or holds only zeros.
        """
        super().__init__(f"{name}: {reason}. Copy or export it again, or remove it if it is not part of the scan.")
        self.name, self.reason, self.series_uid, self.certain = name, reason, series_uid, certain

    def __reduce__(self) -> tuple[Any, ...]:
        """Allow pickling, so that the error can leave a worker process."""
        return type(self), (self.name, self.reason), {"series_uid": self.series_uid, "certain": self.certain}


def is_dicom(path: str | Path) -> bool:
    """Return whether a path is a ZIP archive, a DICOM file, or a folder with DICOM files at any depth."""
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() == ".zip" or _is_dicom_file(path)
    return path.is_dir() and any(map(_is_dicom_file, walk_files(path)))


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _starts_like_dicom(file.read(START))
    except OSError:
        return False


def _starts_like_dicom(start: bytes) -> bool:
    """Return whether a file has the preamble of DICOM, or is a data set without preamble."""
    return start[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC or (_has_first_element(start) and STANDARD_UID in start)


def _has_first_element(start: bytes) -> bool:
    """Return whether bytes begin with an element of group 0002 or 0008: a data set without preamble."""
    if len(start) < 8:
        return False
    little, big = struct.unpack_from("<HH", start), struct.unpack_from(">HH", start)
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    implicit = struct.unpack_from("<I", start, 4)[0] <= 64
    return any(
        group in (0x0002, 0x0008) and element in FIRST_ELEMENTS and valid
        for (group, element), valid in ((little, explicit or implicit), (big, explicit))
    )


def readable(value: object) -> str:
    """Return the value of a tag as text for messages, without characters that cannot be printed."""
    text = "" if value is None else str(value)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def require_pydicom() -> None:
    """Raise a DvtError if pydicom is not installed."""
    if pydicom is None:
        raise DvtError("Reading DICOM needs pydicom. Run pip install 'dvtplan[dicom]'.")


@contextlib.contextmanager
def open_files(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    """List every file of a folder or archive as (name within it, function that opens it).

    Meanwhile pydicom does not warn of invalid values, which the user cannot fix.

    Raises:
        DvtError: if the source cannot be read, or an archive is damaged, encrypted or unsafe.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with _list_files(source) as files:
            yield files


@contextlib.contextmanager
def _list_files(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    if source.is_dir():
        paths = walk_files(source, strict=True)
        yield [(str(p.relative_to(source)), lambda p=p: p.open("rb")) for p in paths]  # type: ignore[misc]
        return
    if source.suffix.lower() != ".zip":
        yield [(source.name, lambda: source.open("rb"))]
        return
    try:
        archive = zipfile.ZipFile(source)
    except Exception as error:  # damaged directories fail in many ways
        raise DamagedScan(f"{source}: cannot be read ({reason_of(error)}). Copy or export it again.") from error
    with archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        large = [m.filename for m in members if m.file_size > LARGEST_MEMBER]
        if large:
            raise DvtError(
                f"{source}: {shorten_list(large)}: larger than {LARGEST_MEMBER >> 30} GiB unpacked. Unpack the "
                "archive first."
            )
        if any(m.compress_type not in ZIP_METHODS for m in members):  # such as Deflate64 of Windows
            raise DvtError(f"{source}: is packed by a method that is not supported. Unpack the archive first.")
        if any(m.flag_bits & 1 for m in members):
            raise DvtError(f"{source}: is protected by a password. Unpack the archive first.")
        # Files are unpacked in memory only, so a path in the archive can never write outside a folder.
        names = _unique([m.filename for m in members])
        yield [
            (name, lambda m=m: archive.open(m))  # type: ignore[misc]
            for name, m in zip(names, members, strict=True)
        ]


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that occur several times, as of two folders that were flattened into one archive."""
    seen: Counter[str] = Counter()
    taken, unique = set(names), []
    for name in names:
        seen[name] += 1
        numbered = name
        while seen[name] > 1 and numbered in taken:
            numbered = f"{name} ({seen[name]})"
            seen[name] += numbered in taken
        taken.add(numbered)
        unique.append(numbered)
    return unique


def reason_of(error: Exception) -> str:
    """Return the first line of an error, or its type if it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0][:LONGEST_REASON].rstrip(".") or type(error).__name__


def read_header(name: str, opener: Opener) -> Header | None:
    """Read the tags ``HEADER_KEYWORDS`` of a DICOM file, with or without preamble; None for any other file.

    Args:
        name: of the file within its folder or archive.
        opener: opens it.

    Raises:
        DamagedFile: if it is DICOM, or may be, but ends before its pixels or cannot be read.
        DvtError: if the disk or the permissions do not allow to read it.
    """
    is_listing = is_directory(name)
    series_uid = ""
    try:
        with opener() as file:
            start = file.read(START)
            if is_listing or not _starts_like_dicom(start):
                if not is_listing:
                    _require_other_content(name, start)
                return None
            file.seek(0)
            tags = pydicom.filereader.read_partial(file, _is_pixels, force=True, specific_tags=_header_tags())
            has_pixels = tags.file_meta.get("TransferSyntaxUID") == DEFLATED or _is_at_pixels(file)
            series_uid = _whole_uid(tags, "SeriesInstanceUID")
            uid = _whole_uid(tags, "SOPClassUID") or _whole_uid(tags.file_meta, "MediaStorageSOPClassUID")
            header = _settle(tags)
    except DvtError:
        raise
    except FileNotFoundError as error:
        raise DamagedFile(name, "is a link to a file that is missing", certain=False) from error
    except Exception as error:  # damaged bytes make pydicom and zipfile fail in many ways
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # those two come from archives
            where = error.filename or name
            raise DvtError(f"{where}: cannot be read ({reason_of(error)}). Check the disk and permissions.") from error
        raise DamagedFile(name, f"is damaged ({reason_of(error)})", series_uid=series_uid) from error
    if uid == DIRECTORY_CLASS:
        return None
    if not has_pixels and not _is_complete_without_pixels(uid, header):
        raise DamagedFile(name, "ends before its pixels, so it is cut off", series_uid=series_uid)
    missing = [keyword for keyword in ("Rows", "Columns") if keyword not in header]
    if has_pixels and missing and (not uid or _is_image_class(uid)):
        raise DamagedFile(name, f"is an image without {' and '.join(missing)}", series_uid=series_uid)
    if not has_pixels:  # rows and columns of spectra, for example
        header.pop("Rows", None)
        header.pop("Columns", None)
    return header


@functools.cache
def _header_tags() -> list[Any]:
    return [pydicom.tag.Tag(keyword) for keyword in HEADER_KEYWORDS]


def _is_pixels(tag: int, vr: str | None, length: int) -> bool:
    """Return whether to stop before an element: pixels.

    Raises:
        ValueError: for an element that only damage puts into a data set.
    """
    if tag >> 16 in NO_GROUPS:
        raise ValueError(f"a tag of group {tag >> 16:04X} among others")
    return tag >> 16 == 0x7FE0 and tag & 0xFFFF in PIXEL_ELEMENTS


def is_directory(name: str) -> bool:
    """Return whether a file is called like the list of the files on a medium."""
    return Path(name).name.upper() == DIRECTORY


def _settle(tags: Any) -> Header:
    """Convert all values of a header. An invalid value, such as words in place of a number, stays as text.

    Raises:
        ValueError: if a sequence is damaged.
        NotImplementedError: if a value representation is unknown.
    """
    header = Header()
    for tag in list(tags.keys()):
        keyword, is_sequence = _described(tag)
        try:
            element = tags[tag]
        except NotImplementedError:  # an unknown value representation, so what follows may be misread
            raise
        except Exception:  # pydicom converts values in many ways
            header[keyword], found = _raw_text(tags, tag), False
        else:
            header[keyword], found = element.value, element.VR == "SQ"
        if found != is_sequence:
            raise ValueError(f"{keyword} is damaged")
    return header


@functools.cache
def _described(tag: Any) -> tuple[str, bool]:
    """Return the keyword of a tag of ``HEADER_KEYWORDS``, and whether it is a sequence."""
    return pydicom.datadict.keyword_for_tag(tag), pydicom.datadict.dictionary_VR(tag) == "SQ"


def tag_value(tags: Any, keyword: str) -> Any:
    """Return the value of a tag, as text if it is invalid; None if it is missing."""
    try:
        return tags.get(keyword)
    except Exception:  # pydicom converts values in many ways
        return _raw_text(tags, keyword)


def _raw_text(tags: Any, tag: Any) -> str:
    value = getattr(tags.get_item(tag), "value", b"")
    return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else str(value)


def read_all_tags(name: str, opener: Opener) -> Any:
    """Read all tags of a DICOM file except the pixels.

    Raises:
        DamagedScan: if it cannot be read.
    """
    try:
        with opener() as file:
            return pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except Exception as error:  # damaged bytes make pydicom and zipfile fail in many ways
        raise DamagedScan(f"{name}: cannot be read ({reason_of(error)}). Copy or export it again.") from error


def _require_other_content(name: str, start: bytes) -> None:
    """Raise a DamagedFile for a file that may have been DICOM. Hidden files are not."""
    if is_hidden(Path(name).name):
        return
    if not start:
        raise DamagedFile(name, "is empty", certain=False)
    with contextlib.suppress(zlib.error):
        if start.startswith(GZIP) and _starts_like_dicom(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start)):
            raise DamagedFile(name, "is packed with gzip, expected DICOM")
    if not any(start[:ZEROS]):
        raise DamagedFile(name, "begins with zeros, expected DICOM", certain=False)
    if _has_first_element(start[PREAMBLE + len(MAGIC) :]):
        raise DamagedFile(name, "has no DICM behind its preamble")
    if _has_first_element(start) or (STANDARD_UID in start and b"\0" in start):
        raise DamagedFile(name, "has a damaged start, expected DICOM", certain=False)


def _is_at_pixels(file: BinaryIO) -> bool:
    """Return whether a file continues with an element of pixels."""
    tag = file.read(4)
    return tag in {struct.pack(order, 0x7FE0, element) for order in ("<HH", ">HH") for element in PIXEL_ELEMENTS}


def _is_complete_without_pixels(uid: str, header: Any) -> bool:
    """Return whether a data set is an object without pixels: of the standard, or private."""
    if pydicom.uid.UID(uid).name != uid:  # registered
        return not _is_image_class(uid)
    is_private = pydicom.uid.UID(uid).is_valid and not uid.startswith(STANDARD_UID.decode())
    return is_private and "SOPInstanceUID" in header and "Rows" not in header


def _is_image_class(uid: str) -> bool:
    """Return whether the objects of a SOP class of the standard contain pixels."""
    words = pydicom.uid.UID(uid).name
    return "Image Storage" in words or words in ("Segmentation Storage", "RT Dose Storage", "Parametric Map Storage")


def _whole_uid(tags: Any, keyword: str) -> str:
    """Return a UID; an empty text if it is missing, or the file ends within it."""
    element = tags.get_item(keyword)
    value = getattr(element, "value", None)
    if isinstance(value, bytes) and len(value) < element.length:
        return ""
    return str(tags.get(keyword) or "")


def is_image(header: Any) -> bool:
    """Return whether a header is of an image with a position in the patient."""
    return not missing_tags(header) and "Rows" in header and not _is_other_object(header)


def _is_other_object(header: Any) -> bool:
    """Return whether an object is not a scan by its modality; an image with such a modality by mistake is one."""
    modality = header.get("Modality")
    if modality not in OTHER_MODALITIES or modality == SEGMENTATION:
        return modality == SEGMENTATION
    return "Image Storage" not in pydicom.uid.UID(str(header.get("SOPClassUID") or "")).name


def missing_tags(header: Any) -> list[str]:
    """Return the tags that the header of an image lacks for a place in the patient; none for another object."""
    uid = str(header.get("SOPClassUID") or "")
    if _is_other_object(header) or not ("Rows" in header or _is_image_class(uid)):
        return []
    needed = ["Rows", "Columns"]
    if "PerFrameFunctionalGroupsSequence" not in header:
        needed.append("ImagePositionPatient")
    return [keyword for keyword in needed if keyword not in header]


def series_number(header: Any) -> int:
    """Return the series number, or 0 if it is missing."""
    try:
        return int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0
