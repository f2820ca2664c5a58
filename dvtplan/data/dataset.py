"""The raw folder: nnU-Net's layout in, a list of cases out; everything that is wrong is named at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvtplan.anatomy.levels import ALL, Levels
from dvtplan.core.errors import DatasetProblems, DvtError
from dvtplan.data.cases_table import CASES_COLUMNS, read_cases_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan: an image file per channel and, where it is known, the truth."""

    id: str
    patient: str
    """Cases of one patient share a fold."""
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
    """Foreground label name -> value in the files; background is always 0 and not listed."""
    cases: tuple[Case, ...]
    description: str = ""
    """What ``dataset.json`` says of it."""

    @property
    def is_phantom(self) -> bool:
        """Whether it says of itself that it is synthetic."""
        return is_synthetic(self.description)

    @property
    def subject(self) -> str:
        """Its name for captions, never without the word where its patients are phantoms."""
        return display_name(self.name, self.is_phantom)


def is_synthetic(description: str) -> bool:
    """Whether a data set of that description says of itself that its images were computed."""
    return description.lower().startswith("synthetic")


def display_name(dataset: str, phantom: bool | None) -> str:
    """What a data set is called where its phantoms must not pass for patients."""
    return f"{dataset} (phantom)" if phantom else dataset


PHANTOM_WARNING = "Phantom scores rank methods and catch bugs; they are no evidence of clinical accuracy."
"""Stands beside every score of a phantom."""
PHANTOM_NOTE = f"Phantom data: images and truth were computed. {PHANTOM_WARNING}"
"""Stands below every table of them."""


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
