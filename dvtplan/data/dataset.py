"""List the cases of a raw data set in nnU-Net's layout, and report all problems at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DatasetProblems, DvtError, cannot_read
from dvtplan.core.text import plural, shorten_list
from dvtplan.data import cases_table, dataset_json
from dvtplan.data.cases_table import CaseDetails, survey_cases_table
from dvtplan.data.dataset_json import DatasetJson
from dvtplan.data.mask_files import PROBABILITY
from dvtplan.data.names import LONGEST_FILE, LONGEST_NAME, TEMPORARY, normalized
from dvtplan.data.phantom import is_phantom
from dvtplan.imaging.volume_names import NOT_IMAGES, WRITTEN, is_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan: an image file per channel and, if available, the label file."""

    id: str
    patient: str
    """Cases of one patient are in the same fold."""
    images: tuple[Path, ...]
    label: Path | None = None
    levels: Levels | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set in nnU-Net's raw layout."""

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: dict[str, int]
    """Foreground label -> value in the files. Background is always 0 and not listed."""
    cases: tuple[Case, ...]
    description: str = ""
    """Description in ``dataset.json``."""

    @property
    def patient_of(self) -> dict[str, str]:
        """Case -> patient."""
        return {case.id: case.patient for case in self.cases}

    @property
    def is_phantom(self) -> bool:
        """Whether its description begins with 'synthetic'."""
        return bool(is_phantom(self.name, description=self.description))

    @property
    def subject(self) -> str:
        """The name for captions; it says if the data set holds phantoms."""
        return display_name(self.name, self.is_phantom)


def display_name(dataset: str, phantom: bool | None) -> str:
    """Return the name to show for a data set, with the word phantom if it holds phantoms."""
    return f"{dataset} (phantom)" if phantom else dataset


TABLES = (cases_table.FILE_NAME, "splits.json")
"""Optional files of a data set."""
PHANTOM_WARNING = "Phantom scores rank methods and find bugs. They are not evidence of clinical accuracy."
"""Shown next to every score of a phantom."""
PHANTOM_NOTE = f"Phantom data: images and truth were computed. {PHANTOM_WARNING}"
"""Shown below every table of phantoms."""


def discover(folder: str | Path) -> Dataset:
    """List the training cases of a raw data set from file names, ``dataset.json`` and ``cases.csv``.

    Volumes are not opened.

    Raises:
        DatasetProblems: with every missing, extra or unclear file.
    """
    dataset, problems = survey(folder)
    if dataset is None or problems:
        raise DatasetProblems(problems)
    return dataset


def survey(folder: str | Path) -> tuple[Dataset | None, list[str]]:
    """List the cases as ``discover``, but return the problems instead of raising them.

    Returns:
        The data set, None if ``dataset.json`` or a folder cannot be used; and the problems.
    """
    folder = Path(folder)
    content, problems = dataset_json.read(folder / dataset_json.FILE_NAME)
    if content is None:
        return None, problems
    ending = content.file_ending
    if not ending.lower().endswith(WRITTEN):
        problems.append(
            f"{folder / dataset_json.FILE_NAME}: file_ending {ending} is not a supported volume format. Use one of "
            f"{', '.join(WRITTEN)}, and convert the files."
        )
        return None, problems
    images = _files(folder / "imagesTr", ending, problems)
    truths = _files(folder / "labelsTr", ending, problems)
    if images is None or truths is None:
        return None, problems
    found = _group(folder / "imagesTr", images, len(content.channels), ending, problems)
    for case_id in sorted(set(found) - set(truths)):
        problems.append(f"{folder / 'labelsTr' / (case_id + ending)}: not found. Add this case's label file.")
    for case_id in sorted(set(truths) - set(found)):
        problems.append(f"{truths[case_id]}: a label without an image. Add {case_id}_0000{ending} or remove it.")
    if not found and not problems:
        problems.append(f"{folder / 'imagesTr'}: contains no case. Add files named ID_0000{ending}.")
    problems.extend(_faults_of_names(folder, found, content))
    files = {case_id: (*found[case_id], *(truths[c] for c in [case_id] if c in truths)) for case_id in found}
    problems.extend(_faults_of_listed(folder, content.listed, files))
    details = _details(folder / cases_table.FILE_NAME, found, problems)
    cases = []
    for case_id in sorted(set(found) & set(truths)):
        known = details.get(case_id, CaseDetails(case_id, None))
        cases.append(
            Case(
                id=case_id,
                patient=known.patient,
                images=found[case_id],
                label=truths[case_id],
                levels=known.levels,
            )
        )
    dataset = Dataset(
        name=folder.name,
        folder=folder,
        channels=content.channels,
        labels=content.labels,
        cases=tuple(cases),
        description=content.description,
    )
    return dataset, problems


def _details(table: Path, found: Mapping[str, object], problems: list[str]) -> dict[str, CaseDetails]:
    """Read the rows of ``cases.csv``, if there is one; its faults are problems."""
    if not cases_table.is_there(table):
        return {}
    try:
        read = survey_cases_table(table)
    except DvtError as error:
        problems.extend(str(error).splitlines())
        return {}
    problems.extend(read.faults)
    for case_id in sorted(set(read.cases) - set(found)):
        problems.append(f"{table}: lists the case {case_id}, which has no image. Remove the row or add the files.")
    return read.cases


def _faults_of_names(folder: Path, case_ids: Collection[str], content: DatasetJson) -> Iterator[str]:
    """Refuse cases whose predictions would have names that are too long for a file."""
    label = max(content.labels, key=lambda name: len(name.encode()))
    longest = len(label.encode())
    both = LONGEST_FILE - TEMPORARY - len(f"{PROBABILITY}.nii.gz")
    most = both - max(longest, len("lesion"))
    if longest > LONGEST_NAME and any(most < len(case_id.encode()) <= both - LONGEST_NAME for case_id in case_ids):
        yield (
            f"{folder / dataset_json.FILE_NAME}: the label {label} has a name of {longest} bytes, too long for "
            f"the names of results. Shorten it to {LONGEST_NAME} bytes."
        )
        return
    for case_id in case_ids:
        if len(case_id.encode()) > most:
            yield (
                f"{folder / 'imagesTr'}: the case {case_id[:40]}... has a name of {len(case_id.encode())} bytes, too "
                f"long for the names of its results. Shorten it to {most} bytes."
            )


def _faults_of_listed(
    folder: Path, listed: Mapping[str, tuple[Path, ...]], files: Mapping[str, tuple[Path, ...]]
) -> Iterator[str]:
    """Refuse a list of cases in ``dataset.json`` that gives a case other files than those that are read."""
    if not listed:
        return
    read = {case_id: tuple(path.resolve() for path in paths) for case_id, paths in files.items()}
    if other := sorted(case_id for case_id in {*listed, *read} if listed.get(case_id) != read.get(case_id)):
        yield (
            f"{folder / dataset_json.FILE_NAME}: its entry dataset gives {shorten_list(other)} other files than "
            "imagesTr and labelsTr hold. Only these folders are read: put or link the files there and remove the entry."
        )


def consistency_warnings(dataset: Dataset) -> list[str]:
    """Return what is allowed in a data set but probably a mistake, one line each."""
    found: list[str] = []
    path = dataset.folder / dataset_json.FILE_NAME
    content, _ = dataset_json.read(path)
    listed = None if content is None else content.num_training
    if listed is not None and listed != len(dataset.cases):
        found.append(
            f"{path}: numTraining is {listed}, but the data set has {len(dataset.cases)} cases. "
            "Fix the number, or add the missing cases."
        )
    table = dataset.folder / cases_table.FILE_NAME
    if cases_table.is_there(table):
        read = survey_cases_table(table)
        found.extend((*read.warnings, *read.without_row([case.id for case in dataset.cases])))
    found.extend(
        f"{file}: is not read. Name it {' or '.join(TABLES)}, or remove it."
        for file in sorted(dataset.folder.iterdir())
        if file.name not in TABLES and file.name.lower().split(".")[0] in ("cases", "splits", "splits_final")
    )
    return found


def _files(folder: Path, ending: str, problems: list[str]) -> dict[str, Path] | None:
    """Return stem -> path of a folder's files; None if the folder cannot be used, which is a problem.

    A file of another ending is a problem. Hidden files, and those that hold no volume, are ignored.
    """
    try:
        if not folder.is_dir():
            fault = "is a file, expected a folder" if folder.exists() else "no such folder"
            problems.append(f"{folder}: {fault}. Add a folder with the volumes of every case.")
            return None
        paths = sorted(path for path in folder.iterdir() if not is_hidden(path.name) and not _is_note(path))
    except OSError as error:
        problems.append(cannot_read(folder, error))
        return None
    found: dict[str, Path] = {}
    for path in paths:
        if not path.name.isprintable():
            problems.append(
                f"{folder}: the file name {path.name!a} contains characters that cannot be printed. Rename the file."
            )
        elif not path.name.endswith(ending):
            problems.append(
                f"{path}: does not end in {ending}, the file_ending in dataset.json. Convert, rename or remove it."
            )
        elif path.is_dir():
            problems.append(f"{path}: expected a file, found a folder. Replace it by one volume file.")
        else:
            name = normalized(path.name.removesuffix(ending))
            if name in found or name != name.strip():
                problems.append(f"{path}: its name has spaces at an end, or equals another as it is shown. Rename it.")
            found[name] = path
    return found


def _is_note(path: Path) -> bool:
    """Return whether a file certainly holds no volume, such as the .json that a converter writes next to it."""
    return path.is_file() and path.name.isprintable() and path.name.lower().endswith(NOT_IMAGES)


def _group(
    folder: Path, files: dict[str, Path], channels: int, ending: str, problems: list[str]
) -> dict[str, tuple[Path, ...]]:
    """Return case -> its channel files in order; an incomplete case is a problem."""
    by_case: dict[str, dict[int, Path]] = {}
    for stem, path in files.items():
        case_id, _, number = stem.rpartition("_")
        if not case_id or len(number) != 4 or not (number.isascii() and number.isdecimal()):
            problems.append(f"{path}: expected a name like ID_0000{ending}. Rename it; the number is the channel.")
        elif int(number) >= channels:
            problems.append(
                f"{path}: is of channel {number}, but dataset.json lists {plural(channels, 'channel')}, counted from "
                "0000. Remove the file, add the channel, or correct the number."
            )
        else:
            by_case.setdefault(case_id, {})[int(number)] = path
    for case_id, numbered in by_case.items():
        for channel in sorted(set(range(channels)) - set(numbered)):
            problems.append(f"{folder / f'{case_id}_{channel:04d}{ending}'}: not found. Add this channel.")
    return {c: tuple(by_case[c][i] for i in sorted(by_case[c])) for c in by_case}
