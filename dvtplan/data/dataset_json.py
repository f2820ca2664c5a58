"""dataset.json of nnU-Net's layout: channels, labels, file ending and description."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvtplan.anatomy.levels import UNASSIGNED
from dvtplan.core.errors import DvtError
from dvtplan.core.files import write_text
from dvtplan.data.json_text import read_json
from dvtplan.data.names import LONGEST_NAME, label_faults, normalized, shown

FILE_NAME = "dataset.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetJson:
    """The entries of a dataset.json that describe a data set."""

    channels: tuple[str, ...]
    labels: dict[str, int]
    """Foreground label -> value, sorted by value."""
    file_ending: str
    description: str = ""
    num_training: int | None = None
    """Number of training cases, if listed."""
    listed: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """Training cases in nnU-Net's entry ``dataset``: images, then label."""


def read(path: Path) -> tuple[DatasetJson | None, list[str]]:
    """Read a dataset.json that describes a whole data set.

    Returns:
        The description and no problems, or None and every problem, one line each.
    """
    try:
        body = read_json(path)
    except FileNotFoundError:
        return None, [f"{path}: not found. Add it; datasets_raw/README.md has an example."]
    except (OSError, ValueError) as error:
        return None, [f"{path}: is not readable JSON ({error}). Fix it."]
    if not isinstance(body, dict):
        return None, [f"{path}: expected an object with channel_names and labels. Fix it."]
    problems: list[str] = []
    channels = _channels(path, body.get("channel_names", body.get("modality")), problems)
    ending = body.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        problems.append(f'{path}: file_ending must be an ending such as ".nii.gz", found {ending!r}. Fix it.')
    labels, faults = _labels(body.get("labels"), whole=True)
    problems.extend(f"{path}: {fault}" for fault in faults)
    listed = _listed(path, body.get("dataset"), problems)
    if problems:
        return None, problems
    description, number = body.get("description"), body.get("numTraining")
    return DatasetJson(
        channels=channels,
        labels=labels,
        file_ending=str(ending),
        description=description if isinstance(description, str) else "",
        num_training=number if isinstance(number, int) else None,
        listed=listed,
    ), []


def read_labels(path: Path) -> dict[str, int]:
    """Read the foreground labels of a dataset.json that need not describe a whole data set.

    Raises:
        DvtError: if the labels are missing or not usable.
    """
    try:
        body = read_json(path)
    except (OSError, ValueError) as error:
        raise DvtError(f'{path}: expected "labels", but it is not readable JSON ({error}). Fix it.') from error
    labels, faults = _labels(body.get("labels") if isinstance(body, dict) else None, whole=False)
    if faults:
        raise DvtError("\n".join(f"{path}: {fault}" for fault in faults))
    return labels


def read_description(path: Path) -> str | None:
    """Read the description in a dataset.json: empty if there is none, None if the file cannot be read."""
    try:
        body = read_json(path)
    except (OSError, ValueError):
        return None
    description = body.get("description", "") if isinstance(body, dict) else ""
    return description if isinstance(description, str) else None


def write(path: Path, labels: dict[str, int], file_ending: str) -> None:
    """Write a dataset.json that explains the values of masks."""
    _save(path, {"labels": {"background": 0, **labels}, "file_ending": file_ending})


def update(path: Path, content: DatasetJson) -> None:
    """Write a dataset.json that describes a data set, and keep the entries that a user added.

    The description is written only with a new file.
    """
    body: dict[str, Any] = {"description": content.description}
    if path.exists():
        body = read_json(path)
    body |= {
        "channel_names": _numbered(content.channels),
        "labels": {"background": 0, **content.labels},
        "numTraining": content.num_training,
        "file_ending": content.file_ending,
    }
    _save(path, body)


def _save(path: Path, body: dict[str, Any]) -> None:
    write_text(path, json.dumps(body, indent=1) + "\n")


def _numbered(channels: Sequence[str]) -> dict[str, str]:
    return {str(k): name for k, name in enumerate(channels)}


def _channels(path: Path, channels: Any, problems: list[str]) -> tuple[str, ...]:
    if not isinstance(channels, dict) or not channels or set(channels) != {str(i) for i in range(len(channels))}:
        problems.append(f'{path}: channel_names must number the channels from "0", found {channels!r}. Fix it.')
        return ()
    names = [channels[str(i)] for i in range(len(channels))]
    for name in names:
        if not isinstance(name, str) or not name or not name.isprintable() or len(name) > LONGEST_NAME:
            problems.append(
                f"{path}: a channel's name must be a text of 1 to {LONGEST_NAME} characters that can be seen, found "
                f"{shown(str(name))}. Rename it."
            )
    return tuple(map(str, names))


def _listed(path: Path, cases: Any, problems: list[str]) -> dict[str, tuple[Path, ...]]:
    """Return nnU-Net's entry ``dataset``: case -> its images, then its label."""
    if cases is None:
        return {}
    try:
        named = {
            str(case_id): (*_texts(entry["images"]), *_texts([entry["label"]])) for case_id, entry in cases.items()
        }
    except (AttributeError, KeyError, TypeError):
        problems.append(f'{path}: its entry dataset must give each case "images" and a "label". Fix or remove it.')
        return {}
    return {
        normalized(case_id): tuple((path.parent / os.path.expandvars(name)).resolve() for name in names)
        for case_id, names in named.items()
    }


def _texts(names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) and "\0" not in name for name in names):
        raise TypeError("not a list of file names")
    return names


def _labels(labels: Any, *, whole: bool) -> tuple[dict[str, int], list[str]]:
    """Return the foreground labels by value, and what is wrong with them, each with what to do.

    Those of a ``whole`` data set need "background": 0.
    """
    if not isinstance(labels, dict) or not labels:
        return {}, [
            f'expected "labels" that map each name to one whole number from 0 to 254, found {labels!r}. Fix it.'
        ]
    if all(name.isascii() and name.isdecimal() and isinstance(value, str) for name, value in labels.items()):
        swapped = ", ".join(f'"{name}": {int(value)}' for value, name in labels.items())
        return {}, [f"labels map values to names, as in nnU-Net's version 1. Write them as {{{swapped}}}."]
    joined = [name for name, value in labels.items() if isinstance(value, (list, tuple))]
    if joined:
        return {}, [
            f"the label {shown(joined[0])} is a region that joins the values {labels[joined[0]]}, which is not "
            "supported. Give each label one value, without regions_class_order."
        ]
    if not all(type(value) is int and 0 <= value < UNASSIGNED for value in labels.values()):
        return {}, [f"labels must map each name to one whole number from 0 to 254, found {labels!r}. Fix it."]
    foreground = {normalized(str(name)): value for name, value in labels.items() if value != 0}
    zeros = [name for name, value in labels.items() if value == 0]
    faults = []
    if not foreground or (whole and [name.casefold() for name in zeros] != ["background"]):
        faults.append(f'labels need "background": 0 and at least one other, found {labels!r}. Fix it.')
    if len(set(foreground.values())) != len(foreground) or len(foreground) + len(zeros) != len(labels):
        faults.append(f"two labels share a value or a name: {labels!r}. Give each label its own value.")
    if not faults:
        faults = [f"{fault}. Fix it." for fault in label_faults(foreground)]
    # The classes of the network are numbered in this order, whatever the order in the file.
    return dict(sorted(foreground.items(), key=lambda item: item[1])), faults
