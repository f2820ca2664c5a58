"""File names of volumes: their endings, and the name without one. Does not load SimpleITK."""

from __future__ import annotations

from pathlib import Path

WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha")
"""File endings of volumes that are written: one file each."""
ENDINGS = (*WRITTEN, ".mhd")
"""File endings of volumes that are read, in upper or lower case."""
GIPL = (".gipl", ".gipl.gz")
"""File endings of a format that stores no direction."""
MASK_ENDINGS = (*ENDINGS, ".hdr", ".nhdr", *GIPL)
"""File endings of masks that other programs wrote, which are only read."""
NOT_IMAGES = (".csv", ".json", ".txt", ".md", ".log", ".tsv", ".xml", ".yaml", ".yml", ".pdf", ".htm", ".html", ".bval",
              ".bvec", ".raw", ".zraw", ".docx", ".xls", ".xlsx", ".ini", ".inf", ".db")  # fmt: skip
"""File endings that hold no scan, or only the voxels of another file. They are passed over without a word."""

SYSTEM_NAMES = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "autorun.inf", "icon\r", "__macosx", "@eadir", "#recycle",
    "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder", "temporary items",
})  # fmt: skip
"""Files and folders that operating systems and storage devices make by themselves, in lower case."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or was made by the system. Its name tells; it is always ignored."""
    return name.startswith((".", "~$")) or name.lower() in SYSTEM_NAMES


def has_ending(path: Path, endings: tuple[str, ...] = ENDINGS) -> bool:
    """Return whether a file has the name of a volume, in upper or lower case."""
    return path.name.lower().endswith(endings)


def stem(path: Path) -> str:
    """Return a file or folder name without the ending of a volume, an archive or a DICOM file."""
    found = next((e for e in (*ENDINGS, ".zip", ".dcm") if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(found)]
