"""Images of a series as records, without files."""

from __future__ import annotations

import numpy as np
import pytest

from dvtplan.core.errors import DvtError
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.slice_sorting import SortedSeries, Stack, sort_into_volumes

Vector = tuple[float, float, float]
Plane = tuple[Vector, Vector]
AXIAL: Plane = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL: Plane = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SAGITTAL: Plane = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def frames(
    count: int = 5, step: float = 3.0, plane: Plane = AXIAL, start: Vector = (-80.0, -60.0, 10.0)
) -> list[Frame]:
    """Return images of 4 x 6 pixels along their normal."""
    normal = np.cross(*plane)
    return [
        Frame(
            file=f"{k}.dcm",
            uid=f"1.2.{k}",
            shape=(4, 6),
            position_mm=tuple(float(v) for v in start + k * step * normal),  # type: ignore[arg-type]
            along_row=plane[0],
            along_column=plane[1],
            spacing_mm=(2.0, 1.5),
        )
        for k in range(count)
    ]


def only(made: SortedSeries) -> Stack:
    assert len(made.stacks) == 1 and made.faults == ()
    return made.stacks[0]


def order(stack: Stack) -> list[str]:
    return [frame.file for frame in stack.frames]


def refusal(given_frames: list[Frame]) -> str:
    with pytest.raises(DvtError) as caught:
        sort_into_volumes(given_frames, "series 5")
    assert "\n" not in str(caught.value)
    return str(caught.value)
