"""Records that predictions leave next to their masks, and how to read them."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from dvtplan import __version__
from dvtplan.core import json_records
from dvtplan.core.errors import DvtError, require

MADE_BY = "`predict` with `overwrite=True`, which replaces edited masks, too"
"""How a damaged record is written again, for messages."""
EARLIER_NAMES = ("Predicted", "Prediction", "Composition")
"""Names that these records had in earlier versions."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionIndex:
    """Digests of the masks in a folder and of the images that they were made from: ``predictions.json``."""

    model_digest: str
    classes: dict[str, int]
    cases: dict[str, str]
    """Case -> digest of the image files that its mask was made from."""
    masks: dict[str, str] = field(default_factory=dict)
    """Case -> digest of its mask as it was written."""
    with_probabilities: tuple[str, ...] = ()
    """Cases with probability volumes next to their masks."""
    others: dict[str, str] = field(default_factory=dict)
    """Case -> digest of an earlier mask, made by another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchingRecord:
    """How table stations became one scan, and the masks of the stations: ``ID_stations.json``."""

    stations_from_head_to_foot: tuple[str, ...]
    gains: tuple[float, ...]
    """Factor by which each station was multiplied."""
    seams_lps_z_mm: tuple[float, ...]
    masks: dict[str, str]
    """File name of a station's mask -> its SHA-256 as it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionSession:
    """One run of the prediction: its options, device and software."""

    started: str
    device: str
    precision: str
    setup: str
    """Device, precision and memory layout in words."""
    options: dict[str, str]
    """Option -> value; options at their default are omitted."""
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CasePrediction:
    """How one mask was made."""

    images: dict[str, str]
    """Input file, one per channel -> SHA-256. For DICOM: series -> SHA-256 of its volume."""
    mask: str
    """File name."""
    mask_digest: str
    """SHA-256 of the file."""
    slices: int
    reading_s: float
    network_s: float
    """Includes resizing to the network's grid and back."""
    writing_s: float
    finished: str
    start: int
    """Index of the session that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRecord:
    """Model, sessions and cases behind the masks of a folder: ``run.json``.

    It is meant for readers and for citation. ``predictions.json`` is what later runs look up.
    """

    model: str
    """Path of the results folder or archive."""
    model_digest: str
    network: str
    folds: tuple[int, ...]
    classes: dict[str, int]
    """Name -> value in the masks."""
    starts: tuple[PredictionSession, ...]
    """Several where a prediction was resumed."""
    cases: dict[str, CasePrediction]

    def __post_init__(self) -> None:
        require(
            all(0 <= case.start < len(self.starts) for case in self.cases.values()),
            f"start must be below {len(self.starts)}, the number of sessions in the file",
        )


def read_record(kind: type[R], path: Path) -> R:
    """Read one of these records.

    Raises:
        DvtError: if the file is missing, damaged, of another kind, or of an earlier version.
    """
    if is_earlier_version(path):
        raise DvtError(f"{path}: was written by an earlier version of dvtplan. Choose another `output`.")
    return json_records.load(kind, path, MADE_BY)


def is_earlier_version(path: Path) -> bool:
    """Whether a file holds a prediction's record under the name of an earlier version."""
    try:
        head = path.read_text(encoding="utf-8")[:200]
    except (OSError, ValueError):
        return False
    return any(f'"record": "{name}"' in head for name in EARLIER_NAMES)


def require_prediction_record(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace another file of that name, such as the ``run.json`` of a training.

    Args:
        path: where a ``PredictionRecord`` is to be written; it may be missing.
        overwrite: accept a file that is not JSON, or of an earlier version.

    Raises:
        DvtError: if another file is there.
    """
    if not path.exists():
        return
    try:
        read_record(PredictionRecord, path)
    except DvtError as error:
        if overwrite and (is_earlier_version(path) or not json_records.is_json(path)):
            return
        if is_earlier_version(path) or not json_records.is_json(path):
            raise
        raise DvtError(f"{path}: is not the record of a prediction. Move it, or choose another `output`.") from error


PACKAGES = ("torch", "SimpleITK", "numpy")
"""Packages that decide a mask's voxels, besides this one and Python."""


def software_versions() -> dict[str, str]:
    """Return the versions of this package, Python and ``PACKAGES``; 'unknown' for one that is not installed."""
    versions = {"dvtplan": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions
