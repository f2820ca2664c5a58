"""Write the summary of one patient as HTML, PDF and PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dvtplan.core import files
from dvtplan.findings.patient_html import document
from dvtplan.findings.patient_images import ScanPictures
from dvtplan.findings.patient_sheet import draw
from dvtplan.findings.record import Findings
from dvtplan.imaging.geometry import Grid
from dvtplan.rendering import output


def write_page(
    found: Findings, image_SHW: np.ndarray, mask_SHW: np.ndarray, grid: Grid, paths: tuple[Path, Path, Path]
) -> None:
    """Write the summary of a scan that was analysed.

    Args:
        found: its findings.
        image_SHW: its first channel, in slice order.
        mask_SHW: every value except 0 is thrombus.
        grid: of the slices.
        paths: of the HTML page, the PDF and the PNG.

    Raises:
        DvtError: if a file cannot be written.
    """
    shown = ScanPictures.of(found, image_SHW, mask_SHW != 0, grid)
    sheet = draw(found, shown)
    html, *drawn = paths
    for path in drawn:
        output.save(sheet.figure, path)
    files.write_text(html, document(found, shown))
