"""The raw folder: nnU-Net's layout in, a list of cases out; everything that is wrong is named at once."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvtplan import fingerprint, nifti, volumes, voxels
from dvtplan.artifacts import file_digest
from dvtplan.errors import DatasetProblems, DvtError
from dvtplan.geometry import GRID_TOLERANCE_MM, Grid, distance_mm
from dvtplan.records import Case, CaseFingerprint, Dataset, Levels
from dvtplan.regions import ALL

LEVEL_COLUMNS = ("level_left_mm", "level_right_mm")
CASES_COLUMNS = ("case_id", "patient_id", *LEVEL_COLUMNS, "midline_mm")


def discover(folder: Path) -> Dataset:
    """List the training cases of a raw data set from its file names, ``dataset.json`` and ``cases.csv``.

    No volume is opened.

    Raises:
        DatasetProblems: every missing, extra or unclear file, at once.
    """
    dataset, problems = survey(folder)
    if dataset is None or problems:
        raise DatasetProblems(problems)
    return dataset


def survey(folder: Path) -> tuple[Dataset | None, list[str]]:
    """As ``discover``, but hand back what can be listed along with the problems.

    The data set is none where ``dataset.json`` itself cannot be used.
    """
    description, problems = describe(folder / "dataset.json")
    if description is None:
        return None, problems
    channels, labels, ending, words = description
    images = _files(folder / "imagesTr", ending, problems)
    truths = _files(folder / "labelsTr", ending, problems)
    if not (folder / "labelsTr").is_dir():
        problems.append(f"{folder / 'labelsTr'}: no such folder. Put one label file per case there.")
    found = _group(folder / "imagesTr", images, len(channels), ending, problems)
    for case_id in sorted(set(found) - set(truths)):
        problems.append(f"{folder / 'labelsTr' / (case_id + ending)}: not found. Add this case's label file.")
    for case_id in sorted(set(truths) - set(found)):
        problems.append(f"{truths[case_id]}: a label without an image. Add {case_id}_0000{ending} or remove it.")
    if not found and not problems:
        problems.append(f"{folder / 'imagesTr'}: holds no case. Put ID_0000{ending} files there.")
    table = folder / "cases.csv"
    details: dict[str, tuple[str, Levels | None]] = {}
    if table.exists():
        try:
            details = read_cases_table(table)
        except DvtError as error:
            problems.extend(str(error).splitlines())
        for case_id in sorted(set(details) - set(found)):
            problems.append(f"{table}: names the case {case_id}, which has no image. Remove the row or add its files.")
    cases = []
    for case_id in sorted(set(found) & set(truths)):
        patient, levels = details.get(case_id, (case_id, None))
        cases.append(Case(id=case_id, patient=patient, images=found[case_id], label=truths[case_id], levels=levels))
    dataset = Dataset(
        name=folder.name, folder=folder, channels=channels, labels=labels, cases=tuple(cases), description=words
    )
    return dataset, problems


def oddities(dataset: Dataset) -> list[str]:
    """What is legal in a data set that was discovered, and probably not meant, a line each."""
    found: list[str] = []
    promised = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8")).get("numTraining")
    if isinstance(promised, int) and promised != len(dataset.cases):
        found.append(
            f"{dataset.folder / 'dataset.json'}: numTraining is {promised}, but {len(dataset.cases)} cases are there. "
            "Mend the number, or look for cases that are missing."
        )
    table = dataset.folder / "cases.csv"
    if table.exists():
        header = table.read_text(encoding="utf-8-sig").partition("\n")[0]
        unknown = [name.strip() for name in header.split(",") if name.strip() not in (*CASES_COLUMNS, "")]
        if unknown:
            found.append(
                f"{table}: the columns {', '.join(unknown)} are not used; known are {', '.join(CASES_COLUMNS)}."
            )
    return found


def read_cases_table(path: Path) -> dict[str, tuple[str, Levels | None]]:
    """Read ``cases.csv``: case id -> patient and levels.

    Columns: case_id, and optionally patient_id, level_left_mm, level_right_mm, midline_mm (LPS
    coordinates in mm). An empty patient is the case itself; without any level there are none.
    Further columns and empty lines are left alone.

    Raises:
        DvtError: every fault of the file, a line each.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="", skipinitialspace=True, strict=True)
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            header = [name for name in table.fieldnames if name in CASES_COLUMNS]
            rows = [(table.line_num, row) for row in table]
    except FileNotFoundError as error:
        raise DvtError(f"{path}: not found. Name a table with the columns {', '.join(CASES_COLUMNS)}.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DvtError(f"{path}: is no readable table ({error}). Save it as comma-separated text in UTF-8.") from error
    if "case_id" not in header or len(set(header)) < len(header):
        raise DvtError(
            f"{path}: expected the columns {', '.join(CASES_COLUMNS)}, each once and case_id at least; "
            f"found {', '.join(table.fieldnames) or 'none'}. Mend its first line."
        )
    faults: list[str] = []
    cases: dict[str, tuple[str, Levels | None]] = {}
    for line, row in rows:
        # A value beyond the header would silently belong to another column than it seems to.
        beyond = [value for value in row.pop(None, []) if value.strip()]
        if beyond:
            faults.append(
                f"{path}, line {line}: holds {beyond[0]!r} beyond the last column. Write decimals with a point, "
                "or name the column."
            )
            continue
        values = {name: value.strip() for name, value in row.items()}
        if not any(values.values()):
            continue
        case_id = values["case_id"]
        if not case_id or case_id in cases:
            what = f"{case_id} stands twice" if case_id else "case_id is empty"
            faults.append(f"{path}, line {line}: {what}. Keep one row per case.")
            continue
        try:
            cases[case_id] = (values.get("patient_id") or case_id, _levels(values))
        except ValueError as error:
            faults.append(f"{path}, line {line}: {error}. Give millimetres, or leave it empty.")
    if faults:
        raise DvtError("\n".join(faults))
    return cases


def _levels(row: Mapping[str, str]) -> Levels | None:
    left, right, midline = (_millimetres(row, name) for name in (*LEVEL_COLUMNS, "midline_mm"))
    if left is None and right is None:
        return None
    return Levels(left_mm=left, right_mm=right, midline_mm=midline)


def _millimetres(row: Mapping[str, str], name: str) -> float | None:
    text = row.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{name} is {text!r}, expected a number")
    return value


def describe(path: Path) -> tuple[tuple[tuple[str, ...], dict[str, int], str, str] | None, list[str]]:
    """Channels, foreground labels, file ending and description of ``dataset.json``, or what is wrong with it."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, [f"{path}: not found. Add it; datasets_raw/README.md shows one."]
    except (OSError, ValueError) as error:
        return None, [f"{path}: no readable JSON ({error}). Mend it."]
    if not isinstance(body, dict):
        return None, [f"{path}: expected an object with channel_names and labels. Mend it."]
    problems: list[str] = []
    channels = _channels(path, body.get("channel_names", body.get("modality")), problems)
    ending = body.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        problems.append(f'{path}: file_ending must be an ending such as ".nii.gz", found {ending!r}. Mend it.')
    labels = _labels(path, body.get("labels"), problems)
    if problems:
        return None, problems
    words = body.get("description")
    return (channels, labels, str(ending), words if isinstance(words, str) else ""), []


def _channels(path: Path, channels: Any, problems: list[str]) -> tuple[str, ...]:
    if isinstance(channels, dict) and channels and set(channels) == {str(i) for i in range(len(channels))}:
        return tuple(str(channels[str(i)]) for i in range(len(channels)))
    problems.append(f'{path}: channel_names must number the channels from "0", found {channels!r}. Mend it.')
    return ()


def _labels(path: Path, labels: Any, problems: list[str]) -> dict[str, int]:
    if not isinstance(labels, dict) or not all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 254 for v in labels.values()
    ):
        problems.append(
            f"{path}: labels must map each name to one whole number from 0 to 254, found {labels!r}. Mend it; "
            "regions that join several values are not supported."
        )
        return {}
    foreground = {str(name): value for name, value in labels.items() if value != 0}
    if labels.get("background") != 0 or len(foreground) != len(labels) - 1 or not foreground:
        problems.append(f'{path}: labels need "background": 0 and at least one other, found {labels!r}. Mend it.')
    if "ignore" in foreground:
        problems.append(
            f"{path}: the label ignore would be trained like any other. Give its voxels a true label, and remove it."
        )
    if len(set(foreground.values())) != len(foreground):
        problems.append(f"{path}: two labels share a value: {labels!r}. Give each its own.")
    if ALL in foreground:
        problems.append(f'{path}: "{ALL}" names the union of the labels in every table. Rename that label.')
    # The network's classes are numbered in this order, whatever the order in the file.
    return dict(sorted(foreground.items(), key=lambda item: item[1]))


def _files(folder: Path, ending: str, problems: list[str]) -> dict[str, Path]:
    """Stem -> path of a folder's files; files of another ending are problems, hidden ones are passed over."""
    try:
        if not folder.is_dir():
            return {}
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        problems.append(f"{folder}: cannot be read ({error.strerror or error}). Mend the permissions.")
        return {}
    found: dict[str, Path] = {}
    for path in paths:
        if not path.name.isprintable():
            problems.append(f"{folder}: the file name {path.name!a} holds what cannot be printed. Rename that file.")
        elif not path.name.endswith(ending):
            problems.append(f"{path}: does not end in {ending} as dataset.json says. Convert, rename or remove it.")
        elif path.is_dir():
            problems.append(f"{path}: expected a file, found a folder. Put its volume there as one file.")
        else:
            found[path.name.removesuffix(ending)] = path
    return found


def _group(
    folder: Path, files: dict[str, Path], channels: int, ending: str, problems: list[str]
) -> dict[str, tuple[Path, ...]]:
    """Case id -> its channel files, complete and in order."""
    if not folder.is_dir():
        problems.append(f"{folder}: no such folder. Put one image file per case and channel there.")
    by_case: dict[str, dict[int, Path]] = {}
    for stem, path in files.items():
        case_id, _, number = stem.rpartition("_")
        if not case_id or len(number) != 4 or not (number.isascii() and number.isdecimal()):
            problems.append(f"{path}: expected a name like ID_0000{ending}. Rename it; the number is the channel.")
        elif int(number) >= channels:
            problems.append(
                f"{path}: channel {int(number)}, but dataset.json names {channels}. Remove it or add the channel."
            )
        else:
            by_case.setdefault(case_id, {})[int(number)] = path
    for case_id, numbered in by_case.items():
        for channel in sorted(set(range(channels)) - set(numbered)):
            problems.append(f"{folder / f'{case_id}_{channel:04d}{ending}'}: not found. Add this channel.")
    return {c: tuple(by_case[c][i] for i in sorted(by_case[c])) for c in by_case}


# --- what the volumes hold ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a look at every voxel of a case found."""

    case_id: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: CaseFingerprint | None
    """None where there are problems."""


def examine(case: Case, labels: dict[str, int]) -> Examination:
    """Read a case whole, check it, and measure it if it is sound. Never raises for a bad file."""
    problems: list[str] = []
    images = {path: image for path in case.images if (image := _try_read(path, problems)) is not None}
    truth = _try_read(case.label, problems) if case.label is not None else None
    for path, (array, _) in images.items():
        problems.extend(image_faults(path, array))
    if truth is not None:
        problems.extend(label_faults(case.label, truth[0], labels))
    if images:
        first, *others = images
        grid = images[first][1]
        for path in others:
            problems.extend(grid_faults(path, images[path][1], first, grid))
        if truth is not None:
            problems.extend(grid_faults(case.label, truth[1], first, grid))
    if problems or not images or truth is None:
        return Examination(case_id=case.id, problems=tuple(problems), warnings=(), fingerprint=None)
    measured = fingerprint.measure(
        case.id,
        case.patient,
        [array for array, _ in images.values()],
        truth[0],
        grid,
        labels,
        file_digest((*case.images, case.label)) if case.label is not None else "",
    )
    warnings = tuple(_remarks(case, truth[0], grid))
    return Examination(case_id=case.id, problems=(), warnings=warnings, fingerprint=measured)


def _try_read(path: Path, problems: list[str]) -> tuple[np.ndarray, Grid] | None:
    try:
        return volumes.read(path)
    except DvtError as error:
        problems.append(str(error))
        return None


def image_faults(path: Path, array: np.ndarray) -> Iterable[str]:
    """What is wrong with the voxels of an image, a line each."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        yield nifti.not_finite(path, bad, array.size)
    elif array.min() == array.max():
        yield f"{path}: every voxel is {array.flat[0]:g}; expected an image. Export it again."


def grid_faults(path: Path | None, grid: Grid, image_path: Path, image_grid: Grid) -> Iterable[str]:
    """Whether a file lies elsewhere than the image it belongs to, a line each."""
    if grid.shape != image_grid.shape:
        yield (
            f"{path}: shape {grid.shape[::-1]} differs from that of {image_path.name}, {image_grid.shape[::-1]}. "
            "Export it on the image's grid."
        )
    elif (apart := distance_mm(grid, image_grid)) > GRID_TOLERANCE_MM:
        yield (
            f"{path}: lies up to {apart:.3g} mm away from {image_path.name} (tolerance {GRID_TOLERANCE_MM:g} mm); "
            f"spacing {_show(grid.spacing_mm)} against {_show(image_grid.spacing_mm)} mm, origin "
            f"{_show(grid.origin_mm)} against {_show(image_grid.origin_mm)} mm. Export it on the image's grid."
        )


def _show(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in values) + ")"


def label_faults(path: Path | None, array: np.ndarray, labels: dict[str, int]) -> Iterable[str]:
    """Which values of a mask the data set does not know, in one line."""
    present = voxels.present(array)
    unknown = [v for v in present.tolist() if v not in (0, *labels.values())]
    if unknown:
        shown = ", ".join(f"{v:.9g}" for v in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        known = ", ".join(f"{value} {name}" for name, value in labels.items())
        yield f"{path}: holds the values {shown}; dataset.json knows 0 background, {known}. Mend the label or the list."


def _remarks(case: Case, label: np.ndarray, grid: Grid) -> Iterable[str]:
    if not label.any():
        yield f"{case.label}: holds no foreground. Legal for a patient without thrombus; check that it is meant."
    heights = grid.corners_mm()[:, 2]
    for limb, level in (
        ("left", case.levels and case.levels.left_mm),
        ("right", case.levels and case.levels.right_mm),
    ):
        if level is not None and not heights.min() <= level <= heights.max():
            yield (
                f"cases.csv: {case.id}: level_{limb}_mm {level:g} lies outside the volume "
                f"({heights.min():.0f} to {heights.max():.0f} mm). Check its sign and origin."
            )
