"""Check the length of compressed voxels in NRRD and MetaImage files.

SimpleITK 2.5.7 fills what is missing with bytes of other memory, and leaves out what is too much, without a message.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from dvtplan.core.errors import DvtError

BLOCK = 1 << 20
"""Bytes to read or unpack at a time."""
EITHER = zlib.MAX_WBITS | 32
"""Lets zlib recognize its own format and gzip."""
GZIP = b"\x1f\x8b"


def require_length(path: Path, start: int, size: int | None, needed: int) -> None:
    """Refuse compressed voxels that are fewer or more than a header describes.

    Args:
        path: file of the voxels.
        start: byte where they begin.
        size: compressed bytes; None for all that follow.
        needed: bytes that they must have unpacked.

    Raises:
        DvtError: also if they are damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            found = _unpacked_length(file, path.stat().st_size - start if size is None else size, needed)
    except zlib.error as error:
        raise DvtError(f"{path}: its compressed voxels are damaged ({error}). Copy or export it again.") from error
    if found != needed:
        count = f"more than {needed}" if found > needed else str(found)
        raise DvtError(
            f"{path}: its voxels have {count} bytes when unpacked, expected {needed}. Copy or export it again."
        )


def _unpacked_length(file: BinaryIO, left: int, most: int) -> int:
    """Return the number of unpacked bytes; counting ends beyond ``most``. A gzip file may have several members."""
    count, packed, unpacker = 0, b"", zlib.decompressobj(EITHER)
    while count <= most:
        if not packed:
            packed = file.read(min(BLOCK, left))
            left -= len(packed)
        if not packed:
            return count + len(unpacker.flush())
        count += len(unpacker.decompress(packed, BLOCK))
        packed = unpacker.unconsumed_tail
        if unpacker.eof:
            packed = unpacker.unused_data or file.read(min(BLOCK, left))
            if not packed.startswith(GZIP):
                return count
            unpacker = zlib.decompressobj(EITHER)
    return count
