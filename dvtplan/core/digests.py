"""SHA-256 of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def file_digest(paths: tuple[Path, ...]) -> str:
    """SHA-256 over the SHA-256 of each of several files, in order."""
    return digest_of_digests([sha256(path) for path in paths])


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as sha256sum tells it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 of a file; of several that are one volume, that of theirs."""
    return sha256(paths[0]) if len(paths) == 1 else file_digest(tuple(paths))


def digest_of_digests(digests: Sequence[str]) -> str:
    """What ``file_digest`` gives for the files that have these."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
