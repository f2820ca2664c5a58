"""Options of an import of DICOM studies into a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core.errors import DvtError
from dvtplan.data.names import label_faults

PATIENT_BY = ("tag", "folder")
"""What identifies a patient: the PatientID (0010,0020), or the imported folder."""
DEFAULT_LABELS = ("thrombus",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How to import DICOM studies.

    Raises:
        DvtError: if the options contradict each other.
    """

    channels: Sequence[str]
    """Names of the channels."""
    label_names: Sequence[str] = ()
    """Names of the mask values 1, 2, ..., or of segments; empty for those of the data set, or ``DEFAULT_LABELS``."""
    series: Sequence[str] | None = None
    """For each channel, a series number or part of a series description; None if each study has one volume."""
    segmentation: str | None = None
    """Number of a segmentation object's series or part of its description, if a study has several."""
    masks: str | Path | None = None
    """CSV table with the columns ``folder`` and ``mask``: a path, relative to the folder of the table, or the number
    of a segmentation object."""
    key: str | Path | None = None
    """Key file of patient identities; None for ``NAME_import_key.csv`` next to the data set."""
    patient_by: str = "tag"
    """One of ``PATIENT_BY``."""
    keep_names: bool = False
    """Name the cases after their folders."""
    trust: str | None = None
    """'sform' or 'qform': read masks whose NIfTI headers contradict themselves by this form; None: refuse them."""

    def __post_init__(self) -> None:
        for option, names in (("channels", self.channels), ("label_names", self.label_names)):
            if len(set(names)) < len(names):
                raise DvtError(f"`{option}`: {', '.join(names)}: a name is repeated. Give each name once.")
        if faults := label_faults(self.label_names):
            raise DvtError(f"`label_names`: {faults[0]}. Choose another name.")
        if not self.channels:
            raise DvtError("`channels`: is empty. Name at least one channel.")
        if self.series is not None and len(self.series) != len(self.channels):
            raise DvtError(
                f"`series`: {len(self.series)} given, expected {len(self.channels)}. Give one for each of `channels`, "
                "in the same order."
            )
        if self.patient_by not in PATIENT_BY:
            raise DvtError(f"`patient_by`: {self.patient_by} is not one of {', '.join(PATIENT_BY)}.")

    @property
    def labels(self) -> dict[str, int]:
        """Return name -> value of the labels."""
        return {name: value for value, name in enumerate(self.label_names or DEFAULT_LABELS, start=1)}
