"""Options of a prediction: inputs only, never changed by it."""

from __future__ import annotations

from dataclasses import dataclass

from dvtplan.core.errors import DvtError

DICOM_SEG, LABELS = "dicom-seg", "itksnap"
EXTRA_FORMATS = {DICOM_SEG: "a DICOM segmentation object", LABELS: "label names for ITK-SNAP"}
"""Additional format -> what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What to predict of an input, and which files to write."""

    overwrite: bool = False
    """Predict again where a mask exists, also where it was edited."""
    save_probabilities: bool = False
    """Also write a float32 probability volume per class."""
    part: tuple[int, int] | None = None
    """(i, n): only the i-th of n shares of the cases, from 1, so that n processes do them all."""
    series: tuple[str, ...] | None = None
    """DICOM series, one per channel of the model; None if the input has a single volume."""
    stations: tuple[str, ...] | None = None
    """DICOM series, or file names in the input folder, that overlap and are stitched into one scan."""
    extra_formats: tuple[str, ...] = ()
    """Additional formats of each mask: keys of ``EXTRA_FORMATS``."""
    mirror: bool | None = None
    """Whether to predict also mirrored slices (``Recipe.mirror``); None: as the model's recipe says. Decided
    when the model is loaded."""
    trust: str | None = None
    """'sform' or 'qform': read NIfTI headers that contradict themselves by this form; None: refuse them."""

    def __post_init__(self) -> None:
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise DvtError(f"`part`: {self.part[0]} of {self.part[1]} is not a part. Use for example 1 of 4.")
        unknown = [name for name in self.extra_formats if name not in EXTRA_FORMATS]
        if unknown:
            raise DvtError(f"`extra_formats`: {unknown[0]} is not a format. Use {' or '.join(EXTRA_FORMATS)}.")

    def recorded(self) -> dict[str, str]:
        """Return the options that differ from their default, as text for the record of the masks."""
        values = {
            "overwrite": self.overwrite,
            "save_probabilities": self.save_probabilities,
            "part": self.part and f"{self.part[0]}/{self.part[1]}",
            "series": self.series and " ".join(self.series),
            "stations": self.stations and " ".join(self.stations),
            "extra_formats": " ".join(self.extra_formats),
            "mirror": None if self.mirror is None else str(self.mirror),
            "trust": self.trust,
        }
        return {name: str(value) for name, value in values.items() if value}
