"""Names of the files next to a mask."""

from __future__ import annotations

import glob
from pathlib import Path

from dvtplan.imaging.volume_names import stem

PROBABILITY, STATION = "_probability_", "_station_"
"""In the names of volumes that a prediction writes next to the mask ID.nii.gz: ID_probability_thrombus.nii.gz."""


def mask_name(case_id: str) -> str:
    """Return the file name of a case's mask."""
    return f"{case_id}.nii.gz"


def mask_path(folder: Path, case_id: str) -> Path:
    """Return the path of a case's mask in a folder of masks."""
    return folder / mask_name(case_id)


def dicom_seg_path(mask: Path) -> Path:
    """Return the path of a mask's DICOM segmentation object."""
    return mask.with_name(f"{stem(mask)}_seg.dcm")


def labels_path(mask: Path) -> Path:
    """Return the path of the label names for ITK-SNAP."""
    return mask.with_name(f"{stem(mask)}_labels.txt")


def probability_path(mask: Path, name: str) -> Path:
    """Return the path of the probabilities of one class."""
    return mask.with_name(f"{stem(mask)}{PROBABILITY}{name}.nii.gz")


def levels_path(mask: Path) -> Path:
    """Return the path of the knees that were found in a scan."""
    return mask.with_name(f"{stem(mask)}_levels.json")


def findings_path(mask: Path) -> Path:
    """Return the path of a scan's findings."""
    return mask.with_name(f"{stem(mask)}_findings.json")


def single_record_path(mask: Path) -> Path:
    """Return the path of the record of a mask that has a name of its own."""
    return mask.with_name(f"{stem(mask)}_run.json")


def stations_path(mask: Path) -> Path:
    """Return the path of the record of a stitched scan."""
    return mask.with_name(f"{stem(mask)}_stations.json")


def station_mask_path(mask: Path, station: str) -> Path:
    """Return the path of the mask of one station; ``station`` is a series or a file name."""
    return mask.with_name(f"{stem(mask)}{STATION}{stem(Path(station))}.nii.gz")


def existing_station_masks(mask: Path) -> list[Path]:
    """Return the masks of stations that lie next to the mask of a stitched scan."""
    return sorted(mask.parent.glob(f"{glob.escape(stem(mask))}{STATION}*.nii.gz"))


def summary_paths(mask: Path) -> tuple[Path, Path, Path]:
    """Return the paths of a scan's summary: HTML, PDF, PNG."""
    html, pdf, png = (mask.with_name(f"{stem(mask)}_summary.{ending}") for ending in ("html", "pdf", "png"))
    return html, pdf, png
