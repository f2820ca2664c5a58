"""DICOM folders and archives: the only door to pydicom, which comes with the extra `dicom`.

Series are found by their tags and images by their positions; the names of files say nothing.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dvtplan import stacks
from dvtplan.errors import DamagedScan, DvtError, how_many, some
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
    "PatientID", "StudyInstanceUID",
    "Rows", "Columns", "SamplesPerPixel", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "AcquisitionTime",
    "StackID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence", "SegmentSequence",
]  # fmt: skip
"""What is read of every file before its series is chosen."""

SEGMENTATION = "SEG"
MR = "MR"
"""What scans are expected to be (0008,0060)."""
NO_IMAGES = (SEGMENTATION, "RTDOSE", "PR", "KO")
"""Modalities of what may have rows and columns and is no scan."""

Opener = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume that a folder or archive holds."""

    name: str
    """What --series calls it: the series' number, and a letter where it holds several volumes."""
    title: str
    """Description, kind, matrix and spacing, for a list."""
    stack: Stack
    series_uid: str = ""
    study_uid: str = ""
    patient_id: str = ""
    """As the hospital has it: it is not to be shown, nor written into a data set."""
    modality: str = ""
    """As in DICOM, such as MR or CT; empty where it is not told."""

    @property
    def grid(self) -> Grid:
        """Where it lies; axes: image, row, column."""
        return self.stack.grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A segmentation object that a folder or archive holds: somebody's masks."""

    file: str
    """Name within the folder or archive."""
    number: str
    """Of its series."""
    title: str
    series_uids: tuple[str, ...]
    """Of the series that it says its masks belong to."""
    labels: tuple[str, ...]
    """Names of its segments."""
    made_by: str = ""
    """The program that drew it, where no person had a hand in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder or archive holds."""

    source: Path
    volumes: tuple[Volume, ...]
    faults: tuple[str, ...]
    """A line for each series that is no volume that may be read."""
    left_out: tuple[str, ...]
    """A line for each series that is none, such as a localizer."""
    segmentations: tuple[Segmentation, ...] = ()


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
    segmentations: list[Segmentation] = []
    with _files(source) as files:
        for name, opener in progress(files, "Look", leave=False):
            header = _header(name, opener)
            if header is not None and header.get("Modality") == SEGMENTATION:
                segmentations.append(_segmentation(name, header))
            elif header is not None and _is_image(header):
                series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((name, header))
    if not series and not segmentations:
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
        said = str(header.get("SeriesDescription") or "").strip()
        said = said if said.lower() not in ("", "none") else "no description"  # the word is what some exports put there
        modality = str(header.get("Modality") or "").strip()
        if modality not in ("", MR):
            said = f"{modality}, {said}"
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
            volumes.append(
                Volume(
                    name=number + letter,
                    title=kind,
                    stack=stack,
                    series_uid=str(header.get("SeriesInstanceUID", "")),
                    study_uid=str(header.get("StudyInstanceUID", "")),
                    patient_id=str(header.get("PatientID") or "").strip(),
                    modality=modality,
                )
            )
    return Found(
        source=source,
        volumes=tuple(volumes),
        faults=tuple(faults),
        left_out=tuple(left_out),
        segmentations=tuple(sorted(segmentations, key=lambda one: (one.number, one.file))),
    )


def study_of(source: Path) -> tuple[str, str]:
    """Patient id and study UID of the first DICOM image of a folder, archive or file; empty where there is none.

    Raises:
        DvtError: if pydicom is not installed, or the source cannot be read.
    """
    _require_pydicom()
    with _files(source) as files:
        for name, opener in files:
            header = _header(name, opener)
            if header is not None and _is_image(header):
                return str(header.get("PatientID") or "").strip(), str(header.get("StudyInstanceUID") or "")
    return "", ""


def maker_of(path: Path) -> tuple[str, set[str]]:
    """Who made a segmentation object (0008,0070) and how its segments were drawn (0062,0008); empty for other files."""
    _require_pydicom()
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Manufacturer", "SegmentSequence"])
        kinds = {str(one.get("SegmentAlgorithmType") or "") for one in header.get("SegmentSequence") or ()}
    except (InvalidDicomError, EOFError, OSError, ValueError, KeyError, AttributeError):
        return "", set()
    return str(header.get("Manufacturer") or ""), kinds


def choose(found: Found, wanted: str | None) -> Volume:
    """The volume that is wanted, or the only one.

    Args:
        found: what is there.
        wanted: its name; or part of its title, in small or capital letters, with ``*`` for anything.

    Raises:
        DvtError: with a list of what is there, where there are several or the wanted one is not.
    """
    listed = "; ".join(f"--series {v.name}: {v.title}" for v in found.volumes)
    if wanted is None and len(found.volumes) == 1 and not found.faults:
        return found.volumes[0]
    for volume in found.volumes:
        if volume.name == wanted:
            return volume
    alike = [] if wanted is None else [v for v in found.volumes if _is_part(wanted, v.title)]
    if len(alike) == 1:
        return alike[0]
    if not found.volumes:
        others = "; ".join([*found.left_out, *(one.title for one in found.segmentations)])
        if found.faults:
            raise DamagedScan("\n".join(found.faults))
        raise DvtError(f"{found.source}: holds no volume ({others}).")
    if wanted is None and len(found.volumes) == 1:
        raise DvtError(
            "\n".join([*found.faults, f"{found.source}: besides holds {listed}. Name it to leave the rest."])
        )
    what = "holds several volumes"
    if wanted is not None:
        what += f" that {wanted} may mean"
        listed = "; ".join(f"--series {v.name}: {v.title}" for v in alike or found.volumes)
    if wanted is not None and not alike:
        what = f"holds no volume {wanted}"
    raise DvtError("\n".join([*found.faults, f"{found.source}: {what}. Choose one of: {listed}."]))


def _is_part(wanted: str, title: str) -> bool:
    """Whether words, or a pattern with ``*``, occur in a title. A number alone is the name of a series."""
    bare = wanted.strip().lower()
    return not bare.isdecimal() and bool(bare) and fnmatch.fnmatchcase(title.lower(), f"*{bare.replace('[', '[[]')}*")


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
                    raise DamagedScan(f"{found.source}: {frames[k].name}: {one.shape} pixels for {frames[k].shape}.")
                if array is None:
                    array = np.empty(volume.grid.shape, one.dtype if plain else np.float32)
                array[k] = one if plain else one * np.float64(frames[k].slope) + frames[k].intercept
    if array is None:
        raise DamagedScan(f"{found.source}: series {volume.name} has no pixels. Export it again.")
    return array, volume.grid


def headers(found: Found, names: Iterable[str]) -> dict[str, Any]:
    """All tags but the pixels of some of the files, by their names.

    Raises:
        DvtError: if one cannot be read.
    """
    _require_pydicom()
    made = {}
    with _files(found.source) as files:
        openers = dict(files)
        for name in names:
            try:
                with openers[name]() as file:
                    made[name] = pydicom.dcmread(file, stop_before_pixels=True)
            except (InvalidDicomError, EOFError, OSError, KeyError, ValueError) as error:
                raise DvtError(f"{found.source}: {name}: cannot be read ({error}). Copy or export it again.") from error
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedFrame:
    """One frame of a segmentation object."""

    frame: Frame
    segment: int | None
    """Which segment it shows; none where its values are the segments' numbers."""
    pixels: np.ndarray
    """(rows, columns): whether a pixel belongs to the segment, or the number of the one that it belongs to."""


def marked_frames(found: Found, segmentation: Segmentation) -> tuple[dict[int, str], list[MarkedFrame]]:
    """What a segmentation object holds: the names of its segments by number, and its frames.

    Fractional segments count from half of their largest value on.

    Raises:
        DvtError: if it is damaged, or a frame has no place or segment.
    """
    name = segmentation.file
    header = headers(found, [name])[name]
    with _files(found.source) as files:
        pixels = _pixels(f"{found.source}: {name}", dict(files)[name])
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    placed = _frames(f"{found.source}: {name}", header)
    if len(placed) != len(pixels) or any(one.shape != pixels.shape[1:] for one in placed):
        raise DvtError(f"{found.source}: {name}: places {len(placed)} frames and holds {len(pixels)}. Export it again.")
    kind = str(header.get("SegmentationType", "BINARY"))
    half = float(header.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
    made = []
    for frame, one in zip(placed, pixels, strict=True):
        segment = None if kind == "LABELMAP" else _Tags(header, frame.index).get("ReferencedSegmentNumber")
        if kind != "LABELMAP" and segment is None:
            raise DvtError(f"{found.source}: {frame.name}: belongs to no segment. Export it again.")
        made.append(
            MarkedFrame(
                frame=frame,
                segment=None if segment is None else int(segment),
                pixels=one if kind == "LABELMAP" else one >= half,
            )
        )
    return {int(one.SegmentNumber): _label(one) for one in header.get("SegmentSequence") or ()}, made


def _segmentation(name: str, header: Any) -> Segmentation:
    labels = tuple(_label(one) for one in header.get("SegmentSequence") or ())
    number = str(_number(header))
    said = str(header.get("SeriesDescription") or "no description")
    return Segmentation(
        file=name,
        number=number,
        title=f"segmentation {number} ({said}): {', '.join(labels) or 'no segment'}",
        series_uids=tuple(
            str(one.get("SeriesInstanceUID", "")) for one in header.get("ReferencedSeriesSequence") or ()
        ),
        labels=labels,
        made_by=_made_by(header.get("SegmentSequence") or ()),
    )


def _made_by(segments: Sequence[Any]) -> str:
    """The program that drew any of the segments without a person."""
    drawn = [one for one in segments if one.get("SegmentAlgorithmType") == "AUTOMATIC"]
    return str(drawn[0].get("SegmentAlgorithmName") or "a program") if drawn else ""


def _label(segment: Any) -> str:
    return str(segment.get("SegmentLabel") or segment.get("SegmentNumber") or "").strip()


def _require_pydicom() -> None:
    if pydicom is None:
        raise DvtError("Reading DICOM needs pydicom. Run pip install 'dvtplan[dicom]'.")


@contextlib.contextmanager
def _files(source: Path) -> Iterator[list[tuple[str, Opener]]]:
    """As ``_listed``; meanwhile pydicom does not warn of values that are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with _listed(source) as files:
            yield files


@contextlib.contextmanager
def _listed(source: Path) -> Iterator[list[tuple[str, Opener]]]:
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
        raise DamagedScan(f"{source}: cannot be read ({error}). Copy or export it again.") from error


def _header(name: str, opener: Opener) -> Any:
    """The tags that are needed of a DICOM object; none for other files."""
    try:
        with opener() as file:
            start = file.read(PREAMBLE + len(MAGIC))
            if start[PREAMBLE:] != MAGIC:
                return None
            file.seek(0)
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=NEEDED)
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError):
        return None
    except OSError as error:
        raise DvtError(f"{name}: cannot be read ({error.strerror or error}). Check the disk.") from error


def _is_image(header: Any) -> bool:
    """Whether tags are those of an image that has a place in the patient."""
    has_place = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    return has_place and "Rows" in header and "Columns" in header and header.get("Modality") not in NO_IMAGES


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
        reason, _, further = str(error).strip().partition("\n")
        lacking = re.search(r"pylibjpeg - requires (.+)", further)
        if lacking is not None:
            raise DvtError(
                f"{name}: {reason.partition(' because')[0].strip()}, which takes {lacking[1].strip()}. "
                "Run pip install 'dvtplan[dicom]', or export it uncompressed."
            ) from error
        reason = reason.rstrip(".") or type(error).__name__
        raise DamagedScan(f"{name}: its pixels cannot be read ({reason}). Copy or export it again.") from error
