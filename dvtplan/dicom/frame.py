"""One image of a DICOM series, with the properties that decide which volume it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One image of a series, with the properties that decide which volume it belongs to. Positions are LPS in mm."""

    file: str
    """Name within the folder or archive."""
    index: int = 0
    """Frame within the file, from 0."""
    frames_in_file: int = 1
    """Images in its file, each with a position."""
    uid: str = ""
    """SOP instance UID; copies of a file share it."""
    shape: tuple[int, int]
    """Rows, columns."""
    position_mm: tuple[float, float, float]
    """Centre of the first pixel."""
    along_row: tuple[float, float, float]
    """Unit vector from one column to the next."""
    along_column: tuple[float, float, float]
    """Unit vector from one row to the next."""
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    slope: float = 1.0
    intercept: float = 0.0
    image_type: str = ""
    """ImageType (0008,0008), such as magnitude or phase, original or derived."""
    stack: str = ""
    echo_ms: float | None = None
    b_value: float | None = None
    inversion_ms: float | None = None
    flip_degrees: float | None = None
    repetition_ms: float | None = None
    time_point: str = ""
    acquisition: str = ""
    trigger_ms: float | None = None
    acquisition_time: str = ""
    number: int | None = None
    """InstanceNumber (0020,0013): the image's number within its series."""
    declared_images: int | None = None
    """ImagesInAcquisition (0020,1002): images that the acquisition had at the scanner."""
    declared_slices: int | None = None
    """NumberOfSlices (0054,0081): slices that the volume had at the scanner."""

    @property
    def normal(self) -> np.ndarray:
        """Return the unit vector ``along_row`` x ``along_column``."""
        (a, b, c), (d, e, f) = self.along_row, self.along_column
        across = np.array([b * f - c * e, c * d - a * f, a * e - b * d])
        return across / np.sqrt(across @ across)

    @property
    def along_normal_mm(self) -> float:
        """Return the position along the normal."""
        return float(self.normal @ self.position_mm)

    @property
    def name(self) -> str:
        """Return the name for messages."""
        return f"{self.file}, frame {self.index + 1}" if self.frames_in_file > 1 else self.file

    @property
    def plane(self) -> str:
        """Return the nearest anatomical plane."""
        return ("sagittal", "coronal", "axial")[int(np.abs(self.normal).argmax())]

    @property
    def matrix(self) -> str:
        """Return rows and columns as text."""
        return f"{self.shape[0]}x{self.shape[1]}"

    def corners_mm(self) -> np.ndarray:
        """Return the LPS positions of its corner pixels, (4, 3): first and last row, first and last column of each."""
        down, across = (
            (count - 1) * mm * np.asarray(axis)
            for count, mm, axis in zip(self.shape, self.spacing_mm, (self.along_column, self.along_row), strict=True)
        )
        return np.asarray(self.position_mm) + np.array([0 * down, across, down, down + across])
