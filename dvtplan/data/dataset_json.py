"""dataset.json of nnU-Net's layout: channels, labels, file ending and description."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvtplan.anatomy.levels import ALL, UNASSIGNED
from dvtplan.core.errors import DvtError
from dvtplan.core.files import write_text

FILE_NAME = "dataset.json"
RESERVED_LABELS = ("background", "ignore", ALL)
"""Names that no foreground label may have."""


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


def read(path: Path) -> tuple[DatasetJson | None, list[str]]:
    """Read a dataset.json that describes a whole data set.

    Returns:
        The description and no problems, or None and every problem, one line each.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, [f"{path}: not found. Add it; datasets_raw/README.md has an example."]
    except (OSError, ValueError, RecursionError) as error:
        return None, [f"{path}: is not readable JSON ({error}). Fix it."]
    if not isinstance(body, dict):
        return None, [f"{path}: expected an object with channel_names and labels. Fix it."]
    problems: list[str] = []
    channels = _channels(path, body.get("channel_names", body.get("modality")), problems)
    ending = body.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        problems.append(f'{path}: file_ending must be an ending such as ".nii.gz", found {ending!r}. Fix it.')
    labels = _labels(path, body.get("labels"), problems)
    if problems:
        return None, problems
    description, number = body.get("description"), body.get("numTraining")
    return DatasetJson(
        channels=channels,
        labels=labels,
        file_ending=str(ending),
        description=description if isinstance(description, str) else "",
        num_training=number if isinstance(number, int) else None,
    ), []


def read_labels(path: Path) -> dict[str, int]:
    """Read the foreground labels of a dataset.json that need not describe a whole data set.

    Raises:
        DvtError: if the labels are missing or not usable.
    """
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        foreground = {name: value for name, value in labels.items() if value != 0}
        usable = all(type(value) is int and 0 < value < UNASSIGNED for value in foreground.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        usable, foreground = False, {}
    if not usable or not foreground or len(set(foreground.values())) != len(foreground) or ALL in foreground:
        raise DvtError(
            f'{path}: expected "labels" that give each name except "{ALL}" its own number, as in '
            '{"background": 0, "lesion": 1}. Fix it.'
        )
    return foreground


def read_description(path: Path) -> str | None:
    """Read the description in a dataset.json: empty if there is none, None if the file cannot be read."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
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
        body = json.loads(path.read_text(encoding="utf-8"))
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
    if isinstance(channels, dict) and channels and set(channels) == {str(i) for i in range(len(channels))}:
        return tuple(str(channels[str(i)]) for i in range(len(channels)))
    problems.append(f'{path}: channel_names must number the channels from "0", found {channels!r}. Fix it.')
    return ()


def _labels(path: Path, labels: Any, problems: list[str]) -> dict[str, int]:
    if not isinstance(labels, dict) or not all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 254 for v in labels.values()
    ):
        problems.append(
            f"{path}: labels must map each name to one whole number from 0 to 254, found {labels!r}. Fix it; "
            "regions that join several values are not supported."
        )
        return {}
    foreground = {str(name): value for name, value in labels.items() if value != 0}
    if labels.get("background") != 0 or len(foreground) != len(labels) - 1 or not foreground:
        problems.append(f'{path}: labels need "background": 0 and at least one other, found {labels!r}. Fix it.')
    if "ignore" in foreground:
        problems.append(
            f"{path}: the label ignore would be trained like any other. Give its voxels a true label, and remove it."
        )
    if len(set(foreground.values())) != len(foreground):
        problems.append(f"{path}: two labels share a value: {labels!r}. Give each label its own value.")
    if ALL in foreground:
        problems.append(f'{path}: "{ALL}" is the name of the union of all labels. Rename this label.')
    # The classes of the network are numbered in this order, whatever the order in the file.
    return dict(sorted(foreground.items(), key=lambda item: item[1]))
