"""Prepared slices: memory-mapped (S, C, H, W) images and (S, H, W) labels per case."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.core import files, json_records
from dvtplan.core.errors import DvtError
from dvtplan.imaging.array_ops import unique_values
from dvtplan.planning.plan import Plan, preparation_digest

COMMAND = "dvt_plan_and_preprocess"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedCase:
    """What lies beside the arrays of one prepared case."""

    id: str
    slices: int
    classes: tuple[tuple[int, ...], ...]
    """For each slice, which classes beside the background it holds."""
    preparation_digest: str
    source_digest: str


def save(folder: Path, image: np.ndarray, label: np.ndarray, case_id: str, plan: Plan, source_digest: str) -> None:
    """Write a prepared case, whole or not at all.

    Raises:
        DvtError: if the disk is full or the folder cannot be written.
    """
    about = PreprocessedCase(
        id=case_id,
        slices=len(label),
        classes=tuple(_classes(label_HW) for label_HW in label),
        preparation_digest=preparation_digest(plan),
        source_digest=source_digest,
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{files.TEMP_PREFIX}{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DvtError(files.cannot_write(folder, error)) from error
    try:
        _write_array(draft / "image.npy", image)
        _write_array(draft / "label.npy", label)
        json_records.save(about, draft / "case.json")
        draft.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    except OSError as error:
        raise DvtError(files.cannot_write(folder, error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _classes(label_HW: np.ndarray) -> tuple[int, ...]:
    return tuple(int(number) for number in unique_values(label_HW) if number)


def _write_array(path: Path, array: np.ndarray) -> None:
    """As ``np.save``, which says nothing where the disk is full for the last few kilobytes alone."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def describe(folder: Path) -> PreprocessedCase:
    """What a prepared case holds, without opening its arrays; raises DvtError where it is not there."""
    return json_records.load(PreprocessedCase, folder / "case.json", COMMAND)


def is_current(folder: Path, plan: Plan, source_digest: str) -> bool:
    """Whether a prepared case is whole and follows from this plan and these raw files."""
    try:
        about = describe(folder)
        image, label = arrays(folder)
    except DvtError:
        return False
    return (
        about.preparation_digest == preparation_digest(plan)
        and about.source_digest == source_digest
        and image.shape == (about.slices, len(plan.channels), *plan.target_shape)
        and label.shape == (about.slices, *plan.target_shape)
    )


def require_current(folder: Path, plan: Plan, plan_path: Path, source_digest: str) -> None:
    """Refuse a prepared case that does not follow from the plan as it stands now.

    Raises:
        DvtError: naming both files and the command that mends it.
    """
    describe(folder)
    if not is_current(folder, plan, source_digest):
        raise DvtError(
            f"{folder}: was prepared by another plan or from other raw files than {plan_path} stands for now. "
            f"Run {COMMAND} again."
        )


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Memory-mapped float16 image (S, C, H, W) and uint8 label (S, H, W) of one case.

    Raises:
        DvtError: if a file is missing or damaged.
    """
    try:
        return np.load(folder / "image.npy", mmap_mode="r"), np.load(folder / "label.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DvtError(f"{folder}: prepared slices cannot be read ({error}). Run {COMMAND} again.") from error
