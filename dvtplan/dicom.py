"""DICOM folders and archives: the only door to pydicom, which comes with the extra `dicom`.

Series are found by their tags and images by their positions; the names of files say nothing.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dvtplan import stacks
from dvtplan.errors import DvtError, how_many, some
from dvtplan.geometry import Grid
from dvtplan.journal import progress
from dvtplan.stacks import Frame, Stack

try:
    import pydicom
    from pydicom.errors import InvalidDicomError
except ImportError:  # said by those who need it
    pydicom = None  # type: ignore[assignment]

PREAMBLE, MAGIC = 128, b"DICM"
LARGEST_MEMBER = 2 << 30
"""Bytes of an unpacked member of an archive; no slice or multi-frame image of a leg has more."""

NEEDED = [
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType",
    "Rows", "Columns", "SamplesPerPixel", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "AcquisitionTime",
    "StackID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""What is read of every file before its series is chosen."""

Opener = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume that a folder or archive holds."""

    name: str
    """What --series calls it: the series' number, and a letter where it holds several volumes."""
    title: str
    """Description, kind, matrix and spacing, for a list."""
    stack: Stack

    @property
    def grid(self) -> Grid:
        """Where it lies; axes: image, row, column."""
        return self.stack.grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder or archive holds."""

    source: Path
    volumes: tuple[Volume, ...]
    faults: tuple[str, ...]
    """A line for each series that is no volume that may be read."""
    left_out: tuple[str, ...]
    """A line for each series that is none, such as a localizer."""


def is_dicom(path: Path) -> bool:
    """Whether a path is an archive, a DICOM file, or a folder with DICOM files somewhere in it."""
    if path.is_file():
        return path.suffix.lower() == ".zip" or _begins_as_dicom(path)
    return path.is_dir() and any(_begins_as_dicom(p) for p in sorted(path.rglob("*")) if p.is_file())


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
    except OSError:
        return False


def find(source: Path) -> Found:
    """List the volumes of a folder, an archive, or a file.

    Raises:
        DvtError: if pydicom is not installed, or nothing there is a DICOM image.
    """
    _require_pydicom()
    series: dict[str, list[Any]] = {}
    with _files(source) as files:
        for name, opener in progress(files, "Look", leave=False):
            header = _header(name, opener)
            if header is not None:
                series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((name, header))
    if not series:
        raise DvtError(f"{source}: holds no DICOM image. Name the folder that the scanner or the archive has written.")
    volumes: list[Volume] = []
    faults: list[str] = []
    left_out: list[str] = []
    taken: dict[str, int] = {}
    for files_of in sorted(series.values(), key=lambda entries: _number(entries[0][1])):
        header = files_of[0][1]
        number = str(_number(header))
        taken[number] = taken.get(number, 0) + 1
        number += "'" * (taken[number] - 1)  # another series of the same number
        said = str(header.get("SeriesDescription") or "no description")
        label = f"series {number} ({said})"
        try:
            frames = [frame for name, one in files_of for frame in _frames(name, one)]
            made = stacks.assemble(frames, f"{source}: {label}")
        except DvtError as error:
            faults.append(str(error))
            continue
        if not made:
            left_out.append(f"{label}: {how_many(len(frames), 'image')}, no volume")
        for k, stack in enumerate(made):
            letter = chr(ord("a") + k) if len(made) > 1 else ""
            kind = f"{said}{f', {stack.title}' if stack.title else ''}: {stacks.describe(stack)}"
            volumes.append(Volume(name=number + letter, title=kind, stack=stack))
    return Found(source=source, volumes=tuple(volumes), faults=tuple(faults), left_out=tuple(left_out))


def choose(found: Found, wanted: str | None) -> Volume:
    """The volume that is wanted, or the only one.

    Raises:
        DvtError: with a list of what is there, where there are several or the wanted one is not.
    """
    listed = "; ".join(f"--series {v.name}: {v.title}" for v in found.volumes)
    if wanted is None and len(found.volumes) == 1 and not found.faults:
        return found.volumes[0]
    for volume in found.volumes:
        if volume.name == wanted:
            return volume
    if not found.volumes:
        raise DvtError("\n".join(found.faults) or f"{found.source}: holds no volume ({'; '.join(found.left_out)}).")
    if wanted is None and len(found.volumes) == 1:
        raise DvtError(
            "\n".join([*found.faults, f"{found.source}: besides holds {listed}. Name it to leave the rest."])
        )
    what = "holds several volumes" if wanted is None else f"holds no volume {wanted}"
    raise DvtError("\n".join([*found.faults, f"{found.source}: {what}. Choose one of: {listed}."]))


def read(found: Found, volume: Volume) -> tuple[np.ndarray, Grid]:
    """The voxels of a volume, rescaled as its files say, in the order of its grid.

    Returns:
        int16, uint16 or what the files hold where nothing is to be rescaled, else float32; and the grid.

    Raises:
        DvtError: if a file is damaged or its compression is unknown here.
    """
    frames = volume.stack.frames
    plain = all(frame.slope == 1 and frame.intercept == 0 for frame in frames)
    array: np.ndarray | None = None
    with _files(found.source) as files:
        openers = dict(files)
        place = {(frame.file, frame.index): k for k, frame in enumerate(frames)}
        for name in progress(list(dict.fromkeys(frame.file for frame in frames)), "Read", leave=False):
            pixels = _pixels(f"{found.source}: {name}", openers[name])
            pixels = pixels[None] if pixels.ndim == 2 else pixels
            for index, one in enumerate(pixels):
                k = place.get((name, index))
                if k is None:
                    continue
                if one.shape != frames[k].shape:
                    raise DvtError(f"{found.source}: {frames[k].name}: {one.shape} pixels for {frames[k].shape}.")
                if array is None:
                    array = np.empty(volume.grid.shape, one.dtype if plain else np.float32)
                array[k] = one if plain else one * np.float64(frames[k].slope) + frames[k].intercept
    if array is None:
        raise DvtError(f"{found.source}: series {volume.name} has no pixels. Export it again.")
    return array, volume.grid


def _require_pydicom() -> None:
    if pydicom is None:
        raise DvtError("Reading DICOM needs pydicom. Run pip install 'dvtplan[dicom]'.")


@contextlib.contextmanager
def _files(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    """Every file of a folder or archive, by its name therein, and how to open it.

    Raises:
        DvtError: if the source cannot be read, or an archive is damaged, locked or a trap.
    """
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.is_file())
        yield [(str(p.relative_to(source)), lambda p=p: p.open("rb")) for p in paths]  # type: ignore[misc]
        return
    if source.suffix.lower() != ".zip":
        yield [(source.name, lambda: source.open("rb"))]
        return
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            large = [m.filename for m in members if m.file_size > LARGEST_MEMBER]
            if large:
                raise DvtError(
                    f"{source}: {some(large)}: more than {LARGEST_MEMBER >> 30} GiB unpacked. Unpack it yourself."
                )
            if any(m.flag_bits & 1 for m in members):
                raise DvtError(f"{source}: is locked by a password. Unpack it yourself.")
            # Members are never written, so that no name in the archive leads anywhere, and unpacked as far as read.
            yield [(m.filename, lambda m=m: archive.open(m)) for m in members]  # type: ignore[misc]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DvtError(f"{source}: cannot be read ({error}). Copy or export it again.") from error


def _header(name: str, opener: Opener) -> Any:
    """The tags of an image that has a place in the patient; none for other files."""
    try:
        with opener() as file:
            start = file.read(PREAMBLE + len(MAGIC))
            if start[PREAMBLE:] != MAGIC:
                return None
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=NEEDED)
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError):
        return None
    except OSError as error:
        raise DvtError(f"{name}: cannot be read ({error.strerror or error}). Check the disk.") from error
    has_place = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    is_image = "Rows" in header and "Columns" in header and header.get("Modality") not in ("SEG", "RTDOSE", "PR", "KO")
    return header if has_place and is_image else None


def _number(header: Any) -> int:
    try:
        return int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0


def _frames(name: str, header: Any) -> list[Frame]:
    """The images of a file.

    Raises:
        DvtError: for colour, for a mosaic, or where places are missing.
    """
    kind = [str(word).upper() for word in header.get("ImageType") or ()]
    if "MOSAIC" in kind:
        raise DvtError(f"{name}: is a mosaic, many slices in one picture. Export the slices singly (DICOM enhanced).")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DvtError(f"{name}: is a colour picture, expected one value a pixel. Choose the scan itself.")
    frames = []
    many = "PerFrameFunctionalGroupsSequence" in header
    for index in range(len(header.PerFrameFunctionalGroupsSequence) if many else 1):
        tags = _Tags(header, index) if many else header
        try:
            orientation = [float(v) for v in tags.get("ImageOrientationPatient")]
            position = [float(v) for v in tags.get("ImagePositionPatient")]
            spacing = [float(v) for v in tags.get("PixelSpacing")]
            row, column = (_unit(orientation[k : k + 3]) for k in (0, 3))
            if (
                len(position) != 3
                or len(spacing) != 2
                or not np.isfinite([*position, *spacing]).all()
                or min(spacing) <= 0
            ):
                raise ValueError
        except (TypeError, ValueError):
            raise DvtError(
                f"{name}: has no place in the patient (position, orientation, pixel spacing). Export it again."
            ) from None
        frames.append(
            Frame(
                file=name,
                index=index,
                uid=str(header.get("SOPInstanceUID", "")),
                shape=(int(header.Rows), int(header.Columns)),
                position_mm=(position[0], position[1], position[2]),
                along_row=row,
                along_column=column,
                spacing_mm=(spacing[0], spacing[1]),
                slope=float(_or(tags.get("RescaleSlope"), 1.0)),
                intercept=float(_or(tags.get("RescaleIntercept"), 0.0)),
                kind="\\".join(str(word) for word in tags.get("ImageType") or kind),
                stack=str(_or(tags.get("StackID"), "")),
                echo_ms=_maybe(tags.get("EffectiveEchoTime") if many else tags.get("EchoTime")),
                b_value=_maybe(tags.get("DiffusionBValue")),
                time_point=str(
                    _or(tags.get("TemporalPositionIndex") if many else tags.get("TemporalPositionIdentifier"), "")
                ),
                acquisition=str(_or(tags.get("AcquisitionNumber"), "")),
                trigger_ms=_maybe(tags.get("TriggerTime")),
                clock=str(_or(tags.get("AcquisitionTime"), "")),
            )
        )
    return frames


class _Tags:
    """Tags of one frame of a multi-frame object: its own, then those that all frames share."""

    def __init__(self, header: Any, index: int) -> None:
        shared = header.get("SharedFunctionalGroupsSequence") or [{}]
        self._groups = (header.PerFrameFunctionalGroupsSequence[index], shared[0])
        self._header = header

    def get(self, keyword: str) -> Any:
        """Its value in any of the groups, or in the object itself."""
        name = "FrameType" if keyword == "ImageType" else keyword
        for group in self._groups:
            for element in group or ():
                if element.VR == "SQ" and len(element.value) and name in element.value[0]:
                    return element.value[0].get(name)
        return self._header.get(keyword)


def _unit(vector: Sequence[float]) -> tuple[float, float, float]:
    length = float(np.linalg.norm(vector))
    if len(vector) != 3 or not 0.9 < length < 1.1:
        raise ValueError(f"not a direction: {vector}")
    return (vector[0] / length, vector[1] / length, vector[2] / length)


def _or(value: Any, instead: Any) -> Any:
    return instead if value is None or value == "" else value


def _maybe(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _pixels(name: str, opener: Opener) -> np.ndarray:
    """Stored values of a file, (rows, columns) or (frames, rows, columns)."""
    try:
        with opener() as file:
            whole = pydicom.dcmread(file)
            return np.asarray(whole.pixel_array)
    except NotImplementedError as error:
        raise DvtError(f"{name}: its compression is unknown here ({error}). Export it uncompressed.") from error
    except Exception as error:  # decoders fail in their own ways
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        mend = (
            "Run pip install 'dvtplan[dicom]', or export it uncompressed."
            if "plugin" in reason or "Unable to dec" in reason
            else "Copy or export it again."
        )
        raise DvtError(f"{name}: its pixels cannot be read ({reason}). {mend}") from error
