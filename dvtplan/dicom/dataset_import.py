"""Import DICOM studies into a data set in nnU-Net's layout: pseudonymous cases, nothing resampled."""

from __future__ import annotations

import contextlib
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.files import exclusive_lock, write_text
from dvtplan.core.text import shorten_list
from dvtplan.data import cases_table, dataset_json
from dvtplan.data.dataset_json import DatasetJson
from dvtplan.dicom.import_inputs import is_readable, list_sources
from dvtplan.dicom.import_key import (
    KeyRow,
    csv_text,
    folder_name,
    next_number,
    read_key,
    read_mask_table,
    require_same_patient,
    require_same_way,
    write_key,
)
from dvtplan.dicom.import_options import ImportOptions
from dvtplan.dicom.import_source import (
    ImportSource,
    modality_warnings,
    open_source,
    read_images,
    read_mask,
    require_same_scan,
)
from dvtplan.dicom.mask_search import mask_table_keys, unused_line
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.nifti_forms import trusting
from dvtplan.imaging.volume_names import is_hidden

ENDING = ".nii.gz"
TRAINING, WITHOUT_MASK, LABELS = "imagesTr", "imagesTs", "labelsTr"
"""Folders of images with a mask, of images without, and of masks."""
UNEXPECTED = "cannot be imported, for a reason that dvtplan does not know"
DESCRIPTION = "Imported from DICOM by dvtplan"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """Outcome of an import."""

    folder: Path
    key: Path
    added: tuple[str, ...]
    """Cases that are new, or that now have a mask."""
    kept: tuple[str, ...]
    """Cases that were imported before."""
    without_mask: tuple[str, ...]
    """Cases in imagesTs, among all of these."""
    faults: tuple[str, ...]
    """One line for each input that was not imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Import:
    """An import in progress."""

    folder: Path
    key: Path
    rows: list[KeyRow]
    """Of the key, as written so far."""
    labels: dict[str, int]
    mask_table: Mapping[str, str]
    options: ImportOptions
    modalities: list[tuple[Path, tuple[str, ...]]] = field(default_factory=list)
    """Path and modality of each channel, for the scans imported so far."""

    def mask_path(self, case_id: str) -> Path:
        return self.folder / LABELS / f"{case_id}{ENDING}"


def import_dicom(sources: Sequence[str | Path], output: str | Path, options: ImportOptions) -> ImportResult:
    """Make or extend a data set from DICOM studies.

    Existing cases are kept: a case is identified by its series. The data set receives voxels, grids and masks, and no
    tag of the DICOM files. The key file links cases to patients.

    Args:
        sources: a folder or ZIP archive for each patient or study, or one folder of these.
        output: folder of the data set.
        options: how to import.

    Raises:
        DvtError: if the folder is another data set, or cannot be written. A fault of one input does not stop the
            import.
    """
    output = Path(output)
    _require_outside(output, options)
    key = output.with_name(f"{output.name}_import_key.csv") if options.key is None else Path(options.key)
    work = _Import(
        folder=output,
        key=key,
        rows=read_key(key),
        labels=_resolve_labels(output, key, options),
        mask_table={} if options.masks is None else read_mask_table(options.masks),
        options=options,
    )
    require_same_way(work.rows, output, options)
    inputs = list_sources(sources)
    with _locked(output), trusting(options.trust):
        added, kept, faults = _import_all(inputs, work)
    _warn_if_one_patient(work)
    _warn_of_unused_masks(work, inputs)
    return ImportResult(
        folder=output,
        key=key,
        added=tuple(added),
        kept=tuple(kept),
        without_mask=tuple(sorted(c for c in [*added, *kept] if not work.mask_path(c).exists())),
        faults=tuple(faults),
    )


def unexpected(source: Path, error: Exception) -> str:
    """Return the message for an error that no check has foreseen, with its place for the one who reports it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}dvtplan{os.sep}" in frame.filename] or frames
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    reason = f"{type(error).__name__}{place}: {str(error).strip() or 'no message'}"
    return f"{source}: {UNEXPECTED} ({reason}). Export it again; if that does not help, report this line."


def _require_outside(output: Path, options: ImportOptions) -> None:
    """Refuse a key inside the data set, which is meant to be shared."""
    if options.key is not None and output.resolve() in Path(options.key).resolve().parents:
        raise DvtError(
            f"{options.key}: lies inside the data set {output}, but it names the patients. Choose a `key` outside."
        )


def _import_all(inputs: Sequence[Path], work: _Import) -> tuple[list[str], list[str], list[str]]:
    """Import all inputs; return the added cases, the kept cases, and a line for each input that was not imported."""
    added: list[str] = []
    kept: list[str] = []
    faults: list[str] = []
    for source in console.progress(inputs, "Import"):
        try:
            case_id, is_new = _import_one(source, work)
        except DvtError as error:
            faults.append(_one_line(source, str(error)))
        except Exception as error:  # one scan never stops the others, whatever its tags contain
            console.debug("".join(traceback.format_exception(error)))
            faults.append(_one_line(source, unexpected(source, error)))
        else:
            (added if is_new else kept).append(case_id)
    for line in modality_warnings(work.options.channels, work.modalities):
        console.warn(line)
    return added, kept, faults


# --- one case -------------------------------------------------------------------------------------


def _import_one(path: Path, work: _Import) -> tuple[str, bool]:
    """Import one input; return its case, and whether anything was written."""
    if not is_readable(path):
        raise DvtError(f"{path}: no permission to read it. Fix the permissions.")
    source = open_source(path, work.options, work.mask_table)
    known = next((row for row in work.rows if row.series == source.series), None)
    require_same_patient(path, _tag(source, work), known, work.rows)
    if known is not None:
        require_same_scan(source, known.case_id, known.source, _images_of(known.case_id, work))
    if source.unused:
        (console.info if source.mask is not None else console.warn)(unused_line(path, source.unused))
    if known is not None and _is_complete(known.case_id, work, has_mask=source.mask is not None):
        work.modalities.append(source.modalities)
        return known.case_id, False
    # Read and check everything before anything is written.
    images, grid = read_images(source)
    mask = read_mask(source, grid, work.labels)
    row = known or _new_row(source, work)
    if known is None or source.mask is not None:
        row = KeyRow(**{**asdict(row), "mask": source.mask_name})
    # Write the key first: if the import is interrupted between two files, the next import completes this case.
    work.rows[:] = [*(other for other in work.rows if other.case_id != row.case_id), row]
    write_key(work.key, work.rows)
    _write_case(row, images, mask, grid, work)
    work.modalities.append(source.modalities)
    return row.case_id, True


def _write_case(row: KeyRow, images: Sequence[np.ndarray], mask: np.ndarray | None, grid: Grid, work: _Import) -> None:
    """Write the files of a case, and remove its images from the folder where they no longer belong."""
    label = work.mask_path(row.case_id)
    folder, other = (TRAINING, WITHOUT_MASK) if mask is not None or label.exists() else (WITHOUT_MASK, TRAINING)
    files = {work.folder / folder / f"{row.case_id}_{k:04d}{ENDING}": image for k, image in enumerate(images)}
    _write_description(work)
    for path, image in files.items():
        volume_io.write_image(path, image, grid)
    if mask is not None:
        volume_io.write_mask(label, mask, grid, names=work.labels)
    for path in files:
        (work.folder / other / path.name).unlink(missing_ok=True)
    if folder == TRAINING:
        _add_to_table(work.folder / cases_table.FILE_NAME, row)
    _write_description(work)


def _new_row(source: ImportSource, work: _Import) -> KeyRow:
    """Return the pseudonyms of a new case."""
    taken = {row.case_id for row in work.rows} | {
        re.sub(rf"(_\d{{4}})?{re.escape(ENDING)}$", "", path.name)
        for folder in (TRAINING, WITHOUT_MASK, LABELS)
        for path in (work.folder / folder).glob(f"*{ENDING}")
    }
    case_id = next_number("case", taken)
    if work.options.keep_names:
        case_id = folder_name(source.path)
        if case_id in taken:
            raise DvtError(f"{source.path}: the data set already has a case {case_id}. Rename the folder.")
    tag = _tag(source, work)
    same_patient = [row.patient_id for row in work.rows if row.dicom_patient_id == tag != ""]
    return KeyRow(
        case_id=case_id,
        patient_id=same_patient[0] if same_patient else next_number("patient", {row.patient_id for row in work.rows}),
        dicom_patient_id=tag,
        series=source.series,
        source=str(source.path),
        mask="",
    )


def _tag(source: ImportSource, work: _Import) -> str:
    """Return the PatientID of a scan; empty if its folder identifies the patient."""
    return source.patient_id if work.options.patient_by == "tag" else ""


def _warn_if_one_patient(work: _Import) -> None:
    """Warn if all cases share one PatientID, as some anonymizers write it."""
    ids = {row.dicom_patient_id for row in work.rows}
    if work.options.patient_by == "tag" and len(work.rows) > 1 and len(ids) == 1 and ids != {""}:
        console.warn(
            f"all {len(work.rows)} cases have the same PatientID, so they count as one patient, in one fold. If they "
            "are different patients, import them again with `patient_by='folder'` into a new data set."
        )


def _warn_of_unused_masks(work: _Import, inputs: Sequence[Path]) -> None:
    """Warn of rows in the table of masks whose folder is not among the inputs: probably a misspelt name."""
    used = {name for path in inputs for name in mask_table_keys(path)}
    unused = sorted(set(work.mask_table) - used)
    if unused:
        console.warn(f"{work.options.masks}: no input is called {shorten_list(unused)}. Check the names in the table.")


# --- files ----------------------------------------------------------------------------------------


def _images_of(case_id: str, work: _Import) -> list[Path]:
    """Return the images of a case that exist, one for each channel; those of an interrupted import may be fewer."""
    names = [f"{case_id}_{k:04d}{ENDING}" for k in range(len(work.options.channels))]
    folder = next((f for f in (TRAINING, WITHOUT_MASK) if (work.folder / f / names[0]).exists()), TRAINING)
    return [path for name in names if (path := work.folder / folder / name).exists()]


def _is_complete(case_id: str, work: _Import, *, has_mask: bool) -> bool:
    """Return whether all files of a case exist, with its mask if the input has one."""
    labelled = work.mask_path(case_id).exists()
    folder = work.folder / (TRAINING if labelled else WITHOUT_MASK)
    images = all((folder / f"{case_id}_{k:04d}{ENDING}").exists() for k in range(len(work.options.channels)))
    table = work.folder / cases_table.FILE_NAME
    listed = not labelled or (table.exists() and case_id in cases_table.survey_cases_table(table).cases)
    return images and listed and (labelled or not has_mask)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a data set, and remove its folder afterwards if it is new and empty."""
    existed = folder.exists()
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive_lock(folder))
        for name in (TRAINING, WITHOUT_MASK, LABELS):  # the lock removes leftovers of a killed process
            if (folder / name).is_dir():
                stack.enter_context(exclusive_lock(folder / name))
        yield
    if not existed:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _resolve_labels(folder: Path, key: Path, options: ImportOptions) -> dict[str, int]:
    """Return the labels of the data set, or of the options if it is new.

    Raises:
        DvtError: if the data set has other channels or labels, or was not made by an import.
    """
    if folder.exists() and not folder.is_dir():
        raise DvtError(f"{folder}: is a file. Choose a folder as `output`.")
    path = folder / "dataset.json"
    if not path.exists():
        if folder.exists() and any(not is_hidden(p.name) for p in folder.iterdir()):
            raise DvtError(
                f"{folder}: is a folder without dataset.json, expected a data set or an empty folder. Choose another "
                "`output`."
            )
        return options.labels
    content, problems = dataset_json.read(path)
    if content is None:
        raise DvtError("\n".join(problems))
    channels, labels, ending = content.channels, content.labels, content.file_ending
    if not key.exists():
        raise DvtError(
            f"{folder}: its key {key} is not found, so its patients are unknown. Give the key file as `key`, or choose "
            "another `output`."
        )
    expected = options.labels if options.label_names else labels
    if channels != tuple(options.channels) or labels != expected or ending != ENDING:
        found, wanted = (shorten_list(list(names)) for names in (labels, expected))
        raise DvtError(
            f"{path}: has the channels {', '.join(channels)}, the labels {found} and {ending} files, expected "
            f"{', '.join(options.channels)}; {wanted}; {ENDING}. Choose another `output`."
        )
    return labels


def _write_description(work: _Import) -> None:
    """Write ``dataset.json``, and keep the entries that a user added."""
    content = DatasetJson(
        channels=tuple(work.options.channels),
        labels=work.labels,
        file_ending=ENDING,
        description=DESCRIPTION,
        num_training=len(list((work.folder / LABELS).glob(f"[!.]*{ENDING}"))),
    )
    dataset_json.update(work.folder / dataset_json.FILE_NAME, content)


def _add_to_table(path: Path, row: KeyRow) -> None:
    """Add a case to ``cases.csv``, and keep its other rows and columns."""
    columns = list(cases_table.CASES_COLUMNS)
    text = ",".join(columns) + "\n"
    if path.exists():
        found = cases_table.survey_cases_table(path)
        if found.faults:
            raise DvtError("\n".join(found.faults))
        if row.case_id in found.cases:
            return
        text = path.read_text(encoding="utf-8-sig")
        columns = list(found.columns)
        text += "" if text.endswith("\n") else "\n"
    values = {"case_id": row.case_id, "patient_id": row.patient_id}
    write_text(path, text + csv_text([[values.get(name, "") for name in columns]]))


def _one_line(source: Path, message: str) -> str:
    """Return a message in one line that names its input."""
    line = " ".join(message.split("\n"))
    return line if str(source) in line else f"{source}: {line}"
