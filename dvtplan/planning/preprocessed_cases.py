"""Preprocessed cases on disk: memory-mapped images (S, C, H, W) and labels (S, H, W)."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.core import files, json_records
from dvtplan.core.errors import DvtError, cannot_write
from dvtplan.imaging.array_ops import unique_values
from dvtplan.planning.plan import Plan, preprocessing_digest

STAGE = "`plan_and_preprocess`"
"""The stage that writes what this subpackage stores, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedCase:
    """``case.json`` of a preprocessed case."""

    id: str
    slices: int
    classes: tuple[tuple[int, ...], ...]
    """For each slice, the foreground classes that it contains."""
    preprocessing_digest: str
    source_digest: str


def save(folder: Path, image: np.ndarray, label: np.ndarray, case_id: str, plan: Plan, source_digest: str) -> None:
    """Write a preprocessed case atomically.

    Args:
        folder: of the case; an existing one is replaced.
        image: float16 (S, C, H, W).
        label: uint8 class numbers (S, H, W).
        case_id: id of the case.
        plan: by which it was preprocessed.
        source_digest: of its raw files.

    Raises:
        DvtError: if the disk is full or the folder cannot be written.
    """
    about = PreprocessedCase(
        id=case_id,
        slices=len(label),
        classes=tuple(_classes(label_HW) for label_HW in label),
        preprocessing_digest=preprocessing_digest(plan),
        source_digest=source_digest,
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{files.TEMP_PREFIX}{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DvtError(cannot_write(folder, error)) from error
    try:
        _write_array(draft / "image.npy", image)
        _write_array(draft / "label.npy", label)
        json_records.save(about, draft / "case.json")
        draft.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    except OSError as error:
        raise DvtError(cannot_write(folder, error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _classes(label_HW: np.ndarray) -> tuple[int, ...]:
    return tuple(int(number) for number in unique_values(label_HW) if number)


def _write_array(path: Path, array: np.ndarray) -> None:
    """Write as ``np.save``, which reports no error if only the last few kilobytes do not fit on the disk."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def describe(folder: Path) -> PreprocessedCase:
    """Read ``case.json`` of a preprocessed case.

    Raises:
        DvtError: if it is missing or damaged.
    """
    return json_records.load(PreprocessedCase, folder / "case.json", STAGE)


def is_current(folder: Path, plan: Plan, source_digest: str) -> bool:
    """Return whether a preprocessed case is complete and follows from this plan and these raw files."""
    try:
        about = describe(folder)
        image, label = arrays(folder)
    except DvtError:
        return False
    return (
        about.preprocessing_digest == preprocessing_digest(plan)
        and about.source_digest == source_digest
        and image.shape == (about.slices, len(plan.channels), *plan.target_shape)
        and label.shape == (about.slices, *plan.target_shape)
    )


def require_current(folder: Path, plan: Plan, plan_path: Path, source_digest: str) -> None:
    """Refuse a preprocessed case that does not follow from the present plan and raw files.

    Raises:
        DvtError: naming the case and the plan.
    """
    describe(folder)
    if not is_current(folder, plan, source_digest):
        raise DvtError(
            f"{folder}: was preprocessed by another plan than {plan_path}, or from other raw files. Run {STAGE} again."
        )


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Open the memory-mapped float16 image (S, C, H, W) and uint8 label (S, H, W) of one case.

    Raises:
        DvtError: if a file is missing or damaged.
    """
    try:
        return np.load(folder / "image.npy", mmap_mode="r"), np.load(folder / "label.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DvtError(f"{folder}: the preprocessed slices cannot be read ({error}). Run {STAGE} again.") from error
