"""DICOM into a data set in nnU-Net's layout: patient by patient, under names that are nobody's, nothing resampled."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.files import exclusive_lock, write_text
from dvtplan.core.text import shorten_list
from dvtplan.data import cases_table, dataset
from dvtplan.dicom import reader
from dvtplan.dicom.import_key import KeyRow, next_number, read_key, read_table, write_key, write_rows
from dvtplan.dicom.segmentation import read_segmentation
from dvtplan.dicom.series import Segmentation, StudyContents, Volume, choose, find, read_volume, study_of
from dvtplan.dicom.slice_sorting import ROUNDING_MM
from dvtplan.imaging import volume_checks, volume_io
from dvtplan.imaging.geometry import Grid, distance_mm, turned_onto
from dvtplan.imaging.volume_io import ENDINGS, stem

ENDING = ".nii.gz"
TRAINING, WITHOUT, LABELS = "imagesTr", "imagesTs", "labelsTr"
"""Folders of images with masks, of images without, and of masks."""
DESCRIPTION = "Imported from DICOM by dvtplan"
PATIENT_BY = ("tag", "folder")
"""What makes a patient: its DICOM tag, or the folder that was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    folder: Path
    key: Path
    added: tuple[str, ...]
    """Cases that are new, or have a mask now."""
    kept: tuple[str, ...]
    """Cases that were there already."""
    unmasked: tuple[str, ...]
    """Of all of them, those that have no mask and lie in imagesTs."""
    faults: tuple[str, ...]
    """A line for each input that is no case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What an import asks of every input."""

    channels: tuple[str, ...]
    labels: dict[str, int]
    series: tuple[str, ...] | None
    segmentation: str | None
    masks: Mapping[str, str]
    """Input -> what the table names for it: a file, or the number of a segmentation object's series."""
    table: Path | None
    by: str
    keep_names: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    """An input that has been looked through."""

    source: Path
    found: StudyContents
    chosen: tuple[Volume, ...]
    mask: Path | Segmentation | None

    @property
    def series(self) -> str:
        """What tells this case from all others."""
        return " ".join(v.series_uid + re.sub(r"[\d']", "", v.name) for v in self.chosen)

    @property
    def mask_name(self) -> str:
        """For the key."""
        if isinstance(self.mask, Segmentation):
            return f"{self.source}: {self.mask.file}"
        return "" if self.mask is None else str(self.mask)


def import_dicom(
    sources: Sequence[Path],
    out: Path,
    channels: Sequence[str],
    *,
    labels: Sequence[str] = (),
    series: Sequence[str] | None = None,
    segmentation: str | None = None,
    masks: Path | None = None,
    key: Path | None = None,
    by: str = "tag",
    keep_names: bool = False,
) -> Imported:
    """Make or extend a data set.

    What is there already is kept: a case is known by its series. Voxels, where they lie, and masks go into the data
    set, and nothing else of the DICOM; who is who is written into the key.

    Args:
        sources: a folder or archive for each patient; or one folder of these.
        out: the data set's folder.
        channels: their names.
        labels: names of the masks' values from 1 on, or of segments; none for those that the data set has, else
            thrombus.
        series: for each channel, a series' number or part of its description; none where there is one volume.
        segmentation: of several segmentation objects, the number of its series or part of its description.
        masks: a table with the columns ``folder`` and ``mask``.
        key: who is who; none for ``NAME_import_key.csv`` beside the data set.
        by: of ``BY``.
        keep_names: call cases like their folders.

    Raises:
        DvtError: if the folder holds another data set, or nothing can be written. A fault of one input does not end
            the import.
    """
    key = key or out.with_name(f"{out.name}_import_key.csv")
    rows = read_key(key)
    named = _labels(out, key, tuple(channels), labels)
    if series is not None and len(series) != len(channels):
        raise DvtError(
            f"--series names {len(series)}, --channels {len(channels)}. Name a series for each channel, in their order."
        )
    wanted = _Wanted(
        channels=tuple(channels),
        labels=named,
        series=None if series is None else tuple(series),
        segmentation=segmentation,
        masks={} if masks is None else read_table(masks),
        table=masks,
        by=by,
        keep_names=keep_names,
    )
    added: list[str] = []
    kept: list[str] = []
    faults: list[str] = []
    inputs = patients(sources)
    with _writing(out):
        for source in console.progress(inputs, "Import"):
            try:
                case_id, is_new = _import_one(source, out, key, rows, wanted)
            except DvtError as error:
                faults.append(_of(source, str(error)))
                continue
            (added if is_new else kept).append(case_id)
    _warn_if_one_patient(rows, wanted.by)
    there = [*added, *kept]
    return Imported(
        folder=out,
        key=key,
        added=tuple(added),
        kept=tuple(kept),
        unmasked=tuple(sorted(c for c in there if not _label(out, c).exists())),
        faults=tuple(faults),
    )


def patients(sources: Sequence[Path]) -> list[Path]:
    """The inputs one by one: of one folder its sub-folders and archives, where these are of several patients or
    studies.

    Raises:
        DvtError: if one is not there, or given twice.
    """
    for source in sources:
        if not source.exists():
            raise DvtError(f"{source}: not found. Name a folder or ZIP archive of DICOM for each patient as -i.")
    real = [source.resolve() for source in sources]
    if len(set(real)) < len(real):
        raise DvtError(f"{shorten_list([str(s) for s in sources])}: one of them is given twice. Name each once.")
    if len(sources) > 1 or not sources[0].is_dir():
        return list(sources)
    folders = [part for part in sorted(sources[0].iterdir()) if part.is_dir() or part.suffix.lower() == ".zip"]
    parts = [part for part in folders if reader.is_dicom(part)]
    if len({study_of(part) for part in parts}) < 2:
        return list(sources)
    for part in folders:
        if part not in parts:
            console.info(f"Left out: {part}: holds no DICOM.")
    return parts


# --- one patient ----------------------------------------------------------------------------------


def _import_one(source: Path, out: Path, key: Path, rows: list[KeyRow], wanted: _Wanted) -> tuple[str, bool]:
    """Bring one input into the data set; its case, and whether anything was written."""
    patient = _look(source, wanted)
    known = next((row for row in rows if row.series == patient.series), None)
    if known is not None and _is_whole(out, known.case_id, len(wanted.channels), patient.mask is not None):
        return known.case_id, False
    # Everything is read and checked before anything is written.
    images, grid = _images(patient)
    mask = _mask(patient, grid, wanted.labels)
    row = known or _new_key(patient, out, rows, wanted)
    if known is None or patient.mask is not None:
        row = KeyRow(**{**asdict(row), "mask": patient.mask_name})
    # The row comes first: after a fall between two files, the next import completes this case.
    rows[:] = [*(other for other in rows if other.case_id != row.case_id), row]
    write_key(key, rows)
    folder, other = (
        (TRAINING, WITHOUT) if mask is not None or _label(out, row.case_id).exists() else (WITHOUT, TRAINING)
    )
    files = {out / folder / f"{row.case_id}_{k:04d}{ENDING}": image for k, image in enumerate(images)}
    _describe(out, wanted)
    for path, image in files.items():
        volume_io.write_image(path, image, grid)
    if mask is not None:
        volume_io.write_mask(_label(out, row.case_id), mask, grid, names=wanted.labels)
    for path in files:
        (out / other / path.name).unlink(missing_ok=True)
    if folder == TRAINING:
        _add_to_table(out / "cases.csv", row)
    _describe(out, wanted)
    return row.case_id, True


def _look(source: Path, wanted: _Wanted) -> _Patient:
    """Find the series and the mask of an input."""
    found = find(source)
    chosen = tuple(choose(found, name) for name in (wanted.series or [None] * len(wanted.channels)))
    if len({v.name for v in chosen}) < len(chosen):
        listed = "; ".join(f"{v.name}: {v.title}" for v in found.volumes)
        raise DvtError(
            f"{source}: takes series {chosen[0].name} for several channels. Name each by --series: {listed}."
        )
    if len({v.patient_id for v in chosen}) > 1:
        raise DvtError(f"{source}: its channels are of several patients. Give a folder each.")
    return _Patient(source=source, found=found, chosen=chosen, mask=_mask_of(source, found, chosen, wanted))


def _mask_of(
    source: Path, found: StudyContents, chosen: Sequence[Volume], wanted: _Wanted
) -> Path | Segmentation | None:
    """Where the mask of a scan is: as the table says; else the one object or file that is with the scan."""
    uids = {volume.series_uid for volume in chosen}
    objects = [one for one in found.segmentations if uids & set(one.series_uids)]
    listed = "; ".join(one.title for one in objects)
    told = next((wanted.masks[k] for k in (str(source), source.name, stem(source)) if k in wanted.masks), None)
    if told is not None and wanted.table is not None:
        path = wanted.table.parent / told
        numbered = [one for one in objects if one.number == told]
        if len(numbered) == 1 and not path.exists():
            return numbered[0]
        if not path.is_file():
            raise DvtError(f"{path}: not found, which {wanted.table} names for {source.name}. Mend the table.")
        return path
    if wanted.segmentation is not None:
        said = wanted.segmentation.lower()
        objects = [one for one in objects if said == one.number or said in one.title.lower()]
        if len(objects) != 1:
            what = "several segmentation objects" if objects else "no segmentation object"
            raise DvtError(
                f"{source}: {what} that {wanted.segmentation} may mean belong to series {chosen[0].name}. There is: "
                f"{listed or 'none'}."
            )
        return objects[0]
    files = _files_beside(source)
    if len(objects) + len(files) > 1:
        names = "; ".join([*(one.title for one in objects), *(str(path) for path in files)])
        raise DvtError(
            f"{source}: several masks may belong to series {chosen[0].name}: {names}. Choose a segmentation object by "
            "--segmentation, or name the file in the table of --masks."
        )
    return (objects or files or [None])[0]


def _files_beside(source: Path) -> list[Path]:
    """Volume files in a folder, or beside it under its name."""
    within = [path for path in sorted(source.rglob("*")) if _is_volume(path)] if source.is_dir() else []
    name = stem(source.absolute())
    return within + [p for e in ENDINGS if (p := source.absolute().with_name(name + e)).is_file()]


def _is_volume(path: Path) -> bool:
    return path.name.endswith(ENDINGS) and path.is_file() and not path.name.startswith(".")


def _images(patient: _Patient) -> tuple[list[np.ndarray], Grid]:
    """The channels, on the grid of the first."""
    grid = patient.chosen[0].grid
    images = []
    for volume in patient.chosen:
        array, where = read_volume(patient.found, volume)
        turn = turned_onto(where, grid, ROUNDING_MM)
        path = Path(f"{patient.source}: series {volume.name}")
        faults = [*volume_checks.image_faults(path, array)]
        if turn is None:
            faults = [
                f"{path}: {'x'.join(map(str, where.shape))} voxels that are not those of series "
                f"{patient.chosen[0].name}, {'x'.join(map(str, grid.shape))}{_apart(where, grid)}. Channels lie on one "
                "grid: export them so, or choose other series."
            ]
        if faults or turn is None:
            raise DvtError("\n".join(faults))
        images.append(np.ascontiguousarray(turn.apply(array)))
    return images, grid


def _mask(patient: _Patient, grid: Grid, labels: dict[str, int]) -> np.ndarray | None:
    """The mask on the grid of the images; none where there is none."""
    if patient.mask is None:
        return None
    if isinstance(patient.mask, Segmentation):
        if patient.mask.made_by:
            console.warn(
                f"{patient.mask_name}: was drawn by {patient.mask.made_by} alone, by no person. Check that it is "
                "meant as the truth."
            )
        return read_segmentation(patient.found, patient.mask, grid, labels)
    array, where = volume_io.read(patient.mask)
    turn = turned_onto(where, grid, ROUNDING_MM)
    if turn is None:
        raise DvtError(
            f"{patient.mask}: {'x'.join(map(str, where.shape))} voxels that are not those of series "
            f"{patient.chosen[0].name}, {'x'.join(map(str, grid.shape))}{_apart(where, grid)}. Nothing is resampled "
            "here: draw or export the mask on the series' own grid."
        )
    unknown = [*volume_checks.label_faults(patient.mask, array, labels)]
    if unknown:
        raise DvtError(unknown[0])
    return np.ascontiguousarray(turn.apply(array).astype(np.uint8))


def _apart(a: Grid, b: Grid) -> str:
    apart_mm = distance_mm(a, b)
    return f", up to {apart_mm:.3g} mm away (tolerance {ROUNDING_MM:g} mm)" if np.isfinite(apart_mm) else ""


def _new_key(patient: _Patient, out: Path, rows: Sequence[KeyRow], wanted: _Wanted) -> KeyRow:
    """Names for a case that is new."""
    taken = {row.case_id for row in rows} | {
        re.sub(rf"(_\d{{4}})?{re.escape(ENDING)}$", "", path.name)
        for folder in (TRAINING, WITHOUT, LABELS)
        for path in (out / folder).glob(f"*{ENDING}")
    }
    case_id = next_number("case", taken)
    if wanted.keep_names:
        case_id = re.sub(r"[^\w.-]+", "_", stem(patient.source.absolute()))
        if case_id in taken:
            raise DvtError(f"{patient.source}: a case {case_id} is there already. Rename the folder.")
    tag = patient.chosen[0].patient_id if wanted.by == "tag" else ""
    same = [row.patient_id for row in rows if row.dicom_patient_id == tag != ""]
    return KeyRow(
        case_id=case_id,
        patient_id=same[0] if same else next_number("patient", {row.patient_id for row in rows}),
        dicom_patient_id=tag,
        series=patient.series,
        source=str(patient.source),
        mask="",
    )


def _warn_if_one_patient(rows: Sequence[KeyRow], by: str) -> None:
    """Say it where one tag makes one patient of all: anonymizers give all of them the same."""
    ids = {row.dicom_patient_id for row in rows}
    if by == "tag" and len(rows) > 1 and len(ids) == 1 and ids != {""}:
        console.warn(
            f"all {len(rows)} cases have one patient id in their DICOM, so they share a fold. Where they are several "
            "patients, import anew with --patients folder."
        )


# --- files ----------------------------------------------------------------------------------------


def _label(out: Path, case_id: str) -> Path:
    return out / LABELS / f"{case_id}{ENDING}"


def _is_whole(out: Path, case_id: str, channels: int, masked: bool) -> bool:
    """Whether all files of a case are there, and its mask where one has been found."""
    labelled = _label(out, case_id).exists()
    folder = out / (TRAINING if labelled else WITHOUT)
    images = all((folder / f"{case_id}_{k:04d}{ENDING}").exists() for k in range(channels))
    table = out / "cases.csv"
    listed = not labelled or (table.exists() and case_id in cases_table.read_cases_table(table))
    return images and listed and (labelled or not masked)


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Be alone in a data set, and leave no empty one."""
    was_there = out.exists()
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive_lock(out))
        for folder in (TRAINING, WITHOUT, LABELS):  # to sweep what a process that was killed left there
            if (out / folder).is_dir():
                stack.enter_context(exclusive_lock(out / folder))
        yield
    if not was_there:
        with contextlib.suppress(OSError):
            out.rmdir()


def _labels(out: Path, key: Path, channels: tuple[str, ...], given: Sequence[str]) -> dict[str, int]:
    """The labels of the data set as it is, or as it is to be.

    Raises:
        DvtError: if it has other channels or labels, or was not made by an import.
    """
    labels = {name: value for value, name in enumerate(given or ("thrombus",), start=1)}
    path = out / "dataset.json"
    if len(labels) < len(given) or len(set(channels)) < len(channels) or not channels:
        raise DvtError("--channels and --labels name each channel and label once, and one channel at least.")
    if not path.exists():
        if out.exists() and any(not p.name.startswith(".") for p in out.iterdir()):
            raise DvtError(f"{out}: is a folder without dataset.json, expected a data set or nothing. Name another -o.")
        return labels
    described, problems = dataset.describe(path)
    if described is None:
        raise DvtError("\n".join(problems))
    names, there, ending, _ = described
    if not key.exists():
        raise DvtError(
            f"{out}: is a data set whose key {key} is not found, so nobody knows who is in it. Name its --key, or "
            "another -o."
        )
    if names != channels or (given and there != labels) or ending != ENDING:
        raise DvtError(
            f"{path}: has the channels {', '.join(names)}, the labels {', '.join(there)} and files {ending}, asked for "
            f"were {', '.join(channels)}, {', '.join(labels)} and {ENDING}. Import into another -o."
        )
    return there


def _describe(out: Path, wanted: _Wanted) -> None:
    """Write ``dataset.json``; what somebody added there stays."""
    path = out / "dataset.json"
    body: dict[str, Any] = {"description": DESCRIPTION}
    if path.exists():
        body = json.loads(path.read_text(encoding="utf-8"))
    body |= {
        "channel_names": {str(k): name for k, name in enumerate(wanted.channels)},
        "labels": {"background": 0, **wanted.labels},
        "numTraining": len(list((out / LABELS).glob(f"[!.]*{ENDING}"))),
        "file_ending": ENDING,
    }
    write_text(path, json.dumps(body, indent=1) + "\n")


def _add_to_table(path: Path, row: KeyRow) -> None:
    """Add a case to ``cases.csv``, whose other rows and columns stay."""
    columns = list(cases_table.CASES_COLUMNS)
    text = ",".join(columns) + "\n"
    if path.exists():
        if row.case_id in cases_table.read_cases_table(path):
            return
        text = path.read_text(encoding="utf-8-sig")
        columns = [name.strip() for name in next(csv.reader(io.StringIO(text)))]
        text += "" if text.endswith("\n") else "\n"
    values = {"case_id": row.case_id, "patient_id": row.patient_id}
    write_text(path, text + write_rows([[values.get(name, "") for name in columns]]))


def _of(source: Path, message: str) -> str:
    """A message in one line, which names its input."""
    line = " ".join(message.split("\n"))
    return line if str(source) in line else f"{source}: {line}"
