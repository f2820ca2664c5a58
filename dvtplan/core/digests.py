"""SHA-256 digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as sha256sum prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(paths: Sequence[Path]) -> str:
    """Return the digest of files in order: the SHA-256 over their SHA-256s, also for a single file."""
    return combine_digests([sha256(path) for path in paths])


def combine_digests(digests: Sequence[str]) -> str:
    """Return the ``files_digest`` of the files that have these SHA-256s."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def volume_digest(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of a volume's file; if it has several files, their ``files_digest``."""
    return sha256(paths[0]) if len(paths) == 1 else files_digest(paths)
