"""Names of the files beside a mask."""

from __future__ import annotations

from pathlib import Path

from dvtplan.imaging.volume_io import stem


def dicom_seg_path(mask: Path) -> Path:
    """Where a mask lies as a DICOM segmentation object."""
    return mask.with_name(f"{stem(mask)}_seg.dcm")


def probability_path(mask: Path, name: str) -> Path:
    """Where the probabilities of a class lie, beside a mask."""
    return mask.with_name(f"{stem(mask)}_probability_{name}.nii.gz")


def levels_path(mask: Path) -> Path:
    """Where what was found of a scan's knees lies, beside its mask."""
    return mask.with_name(f"{stem(mask)}_levels.json")


def findings_path(mask: Path) -> Path:
    """Where it is told what was found, beside a mask."""
    return mask.with_name(f"{stem(mask)}_findings.json")


def summary_paths(mask: Path) -> tuple[Path, Path, Path]:
    """Where the summary of a scan lies, beside its mask: HTML, PDF, PNG."""
    html, pdf, png = (mask.with_name(f"{stem(mask)}_summary.{ending}") for ending in ("html", "pdf", "png"))
    return html, pdf, png
