"""Check and measure every voxel of a case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.data.cases_table import level_warnings
from dvtplan.data.dataset import Case
from dvtplan.data.raw_files import SeenFile, see, source_digest
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.value_names import name_faults
from dvtplan.imaging.volume_checks import grid_faults, image_faults, label_faults
from dvtplan.planning.fingerprint import CaseFingerprint
from dvtplan.planning.measurement import measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Result of checking every voxel of a case."""

    case_id: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: CaseFingerprint | None
    """None if there are problems."""
    files: dict[Path, SeenFile] = field(default_factory=dict)
    """The files of the case; empty if there are problems."""


def examine(case: Case, labels: dict[str, int]) -> Examination:
    """Read and check a case, and measure it if it has no problem. A faulty file is reported, not raised."""
    problems: list[str] = []
    images = {path: image for path in case.images if (image := _try_read(path, problems)) is not None}
    truth = _try_read(case.label, problems) if case.label is not None else None
    for path, (array, _) in images.items():
        problems.extend(image_faults(path, array, may_be_mask=path != case.images[0]))
    if truth is not None:
        problems.extend(label_faults(case.label, truth[0], labels))
        problems.extend(_try_names(case.label, truth[0], labels))
    if images:
        first, *others = images
        grid = images[first][1]
        for path in others:
            problems.extend(grid_faults(path, images[path][1], first, grid))
        if truth is not None:
            problems.extend(grid_faults(case.label, truth[1], first, grid))
    if problems or not images or truth is None:
        return Examination(case_id=case.id, problems=tuple(problems), warnings=(), fingerprint=None)
    files = see(case)
    measured = measure(
        case.id,
        case.patient,
        [array for array, _ in images.values()],
        truth[0],
        grid,
        labels,
        source_digest(files.values()),
    )
    warnings = tuple(_warnings(case, truth[0], grid))
    return Examination(case_id=case.id, problems=(), warnings=warnings, fingerprint=measured, files=files)


def _try_names(path: Path | None, array: np.ndarray, labels: dict[str, int]) -> list[str]:
    try:
        return [] if path is None else [*name_faults(path, array, labels)]
    except DvtError as error:
        return [str(error)]


def _try_read(path: Path, problems: list[str]) -> tuple[np.ndarray, Grid] | None:
    try:
        return volume_io.read(path)
    except DvtError as error:
        problems.append(str(error))
        return None


def _warnings(case: Case, label: np.ndarray, grid: Grid) -> Iterable[str]:
    if not label.any():
        yield f"{case.label}: contains no foreground. Check that this patient has no thrombus."
    yield from level_warnings(case.id, case.levels, grid)
