"""Read the images that a segmentation object refers to, and require the tags that it takes from them."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dvtplan.core.errors import DvtError
from dvtplan.dicom import series
from dvtplan.dicom.series import StudyContents, Volume

DEMOGRAPHY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip
"""Keywords that an object copies from its source. They may be empty, but not missing, as after anonymization."""
COMMON_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""Keywords of which all images of a series must have the same UID."""
UTF_8 = "ISO_IR 192"
"""Character set (0008,0005) of the objects. It has the letters of all others, whichever the source has."""


def source_images(study: StudyContents, volume: Volume) -> list[Any]:
    """Read the tags of a volume's images, in order, and add what an object copies from them.

    Texts are decoded, so that they can be written in another character set.

    Raises:
        DvtError: if an image lacks a UID, or UIDs contradict each other.
    """
    names = list(dict.fromkeys(frame.file for frame in volume.stack.frames))
    tags = series.read_tags(study, names)
    sources = [tags[name] for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values and letters of the source, which the user cannot fix
        _require_uids(f"{study.source}: series {volume.name}", names, sources)
        for one in sources:
            one.decode()
            _complete(one, sources[0], volume.stack.frames[0].index)
    return sources


def _complete(one: Any, first: Any, index: int) -> None:
    """Add to the tags of an image what highdicom requires.

    Args:
        one: the tags.
        first: tags of the first image of the volume.
        index: of the first frame of the volume in its file.
    """
    one.SpecificCharacterSet = UTF_8
    for keyword in DEMOGRAPHY:
        if keyword not in one:
            setattr(one, keyword, "")
    if "PerFrameFunctionalGroupsSequence" not in one:
        # Images of one volume may differ in the last digits of their directions.
        one.ImageOrientationPatient = first.ImageOrientationPatient
        return
    # highdicom needs these as shared groups. The frames of one volume have them in common.
    groups = one.PerFrameFunctionalGroupsSequence[index]
    if not one.get("SharedFunctionalGroupsSequence"):
        one.SharedFunctionalGroupsSequence = [type(groups)()]
    shared = one.SharedFunctionalGroupsSequence[0]
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if keyword not in shared and keyword in groups:
            setattr(shared, keyword, groups[keyword].value)


def _require_uids(label: str, names: Sequence[str], sources: Sequence[Any]) -> None:
    """Refuse images without the UIDs by which an archive finds them.

    Raises:
        DvtError: with the tag and the file.
    """
    for keyword in (*COMMON_UIDS, "SOPInstanceUID", "SOPClassUID"):
        uids = [str(one.get(keyword) or "") for one in sources]
        wrong = next((k for k, uid in enumerate(uids) if not re.fullmatch(r"(?=.{1,64}$)\d+(\.\d+)*", uid)), None)
        if wrong is not None:
            found = f"is {uids[wrong]}, which is not a UID" if uids[wrong] else "is empty"
            raise DvtError(
                f"{label}: {keyword} of {names[wrong]} {found}, but dicom-seg requires it. Export it again, or omit "
                "dicom-seg."
            )
        counted = Counter(uids)
        if keyword in COMMON_UIDS and len(counted) > 1:
            raise DvtError(
                f"{label}: its images have {len(counted)} values of {keyword}, but dicom-seg requires one. Export it "
                "again, or omit dicom-seg."
            )
        if keyword == "SOPInstanceUID" and len(counted) < len(uids):
            raise DvtError(
                f"{label}: {max(counted.values())} of its images have the same {keyword}, but dicom-seg refers to each "
                "by its own. Export it again, or omit dicom-seg."
            )
