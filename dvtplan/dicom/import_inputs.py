"""List the folders and archives of an import: one for each patient or study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.dicom import reader
from dvtplan.dicom.mask_search import mask_stem
from dvtplan.dicom.series import read_study_ids
from dvtplan.imaging.volume_names import is_hidden, stem


def list_sources(sources: Sequence[str | Path]) -> list[Path]:
    """List the inputs to import: of a single folder its sub-folders and archives, if these are of several patients or
    studies.

    Raises:
        DvtError: if one does not exist, or is given twice.
    """
    paths = [Path(source) for source in sources]
    for path in paths:
        if not path.exists():
            raise DvtError(f"{path}: not found. Give a folder or ZIP archive of DICOM for each patient as `sources`.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise DvtError(f"{shorten_list([str(path) for path in paths])}: one of them is given twice. Give each once.")
    if len(paths) > 1 or not paths[0].is_dir():
        return paths
    parts = [part for part in sorted(paths[0].iterdir()) if part.is_dir() or part.suffix.lower() == ".zip"]
    studies = [part for part in parts if not is_readable(part) or reader.is_dicom(part)]
    if len({_study_ids(part) for part in studies}) < 2 and (reader.is_dicom(paths[0]) or not studies):
        return paths
    for part in parts:
        if part not in studies and not is_hidden(part.name):
            console.info(f"Skipped {part}: contains no DICOM file.")
    _warn_of_unused(paths[0], studies)
    return studies


def _warn_of_unused(folder: Path, studies: Sequence[Path]) -> None:
    """Name the DICOM files of a folder that lie in none of its studies, and the masks that are named like none."""
    names = {stem(study) for study in studies}
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path not in studies]
    unused = [path.name for path in files if mask_stem(path.name) not in (None, *names) or reader.is_dicom(path)]
    if unused:
        console.warn(
            f"{folder}: not used: {shorten_list(unused)}. Each patient needs a folder, and a mask next to it has its "
            "name."
        )


def _study_ids(part: Path) -> tuple[str, str]:
    """Return patient ID and study UID of a part; its path if it cannot be read, so that it counts as a study."""
    try:
        return read_study_ids(part) if is_readable(part) else (str(part), "")
    except Exception:  # whatever it is, it is reported when the part is imported
        return str(part), ""


def is_readable(path: Path) -> bool:
    """Return whether the permissions allow to read a file or folder."""
    return os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
