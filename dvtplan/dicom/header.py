"""The tags that are read from every DICOM file before a series is chosen."""

from __future__ import annotations

from typing import Any

HEADER_KEYWORDS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType",
    "PatientID", "StudyInstanceUID", "ProtocolName",
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PresentationLUTShape", "PixelPresentation",
    "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "ModalityLUTSequence", "RealWorldValueMappingSequence",
    "InversionTime", "FlipAngle", "RepetitionTime",
    "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "AcquisitionTime",
    "NumberOfSeriesRelatedInstances", "ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber",
    "StackID", "InstanceNumber", "NumberOfFrames", "ImagesInAcquisition", "NumberOfSlices",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence", "SegmentSequence",
    "FrameOfReferenceUID", "StructureSetROISequence",
]  # fmt: skip
"""Keywords of these tags."""


class Header(dict[str, Any]):
    """Values of the tags of a file by keyword. Look-ups in pydicom's data sets are slower."""

    def __getattr__(self, keyword: str) -> Any:
        """Return the value of a tag, as pydicom's data set does."""
        if keyword not in self:
            raise AttributeError(keyword)
        return self[keyword]
