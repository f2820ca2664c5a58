"""Weights as .npy members of a model archive, and their digests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.verified_archive import DOWNLOAD_AGAIN, ArchiveReader
from dvtplan.models.model_store import FLOATS

DTYPES = {"float32": "<f4", "float16": "<f2", "int64": "<i8"}
"""Number type of weights -> its name in a .npy file."""

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> dtype (a key of ``DTYPES``) and shape."""


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file (NumPy's format 1.0, C order).

    It is written here, so that bytes do not depend on NumPy's version. On reading it is compared, not parsed.
    """
    words = f"{{'descr': '{DTYPES[dtype]}', 'fortran_order': False, 'shape': {shape!r}, }}"
    padding = -(10 + len(words) + 1) % 64
    text = f"{words}{' ' * padding}\n".encode("ascii")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npy(array: np.ndarray) -> bytes:
    """Return an array as a .npy file, which ``numpy.load`` reads without unpickling."""
    return npy_header(str(array.dtype), array.shape) + np.ascontiguousarray(array, DTYPES[str(array.dtype)]).tobytes()


def to_float32(array: np.ndarray) -> np.ndarray:
    """Convert stored weights to the type in which the network uses them: float16 to float32, others stay."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def weights_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the digest of the names, shapes and values of a network's weights; float16 counts as float32."""
    return json_records.digest(
        {name: hashlib.sha256(npy(to_float32(array))).hexdigest() for name, array in arrays.items()}
    )


def weights_name(fold: int, tensor: str) -> str:
    """Return the name of a tensor's member in an archive."""
    return f"fold_{fold}/weights/{tensor}.npy"


def archived_weights(archive: ArchiveReader, fold: int, expected: Shapes) -> dict[str, np.ndarray]:
    """Read the weights of a fold in the types of its network, after a check of all names and sizes.

    Args:
        archive: contains the weights.
        fold: number of the fold.
        expected: every tensor of the network.

    Raises:
        DvtError: if a tensor is missing or unknown, has another dtype or shape, or is not finite, or if float types
            are mixed.
    """
    floats = float_type(archive)
    stored = {name: (floats if dtype == "float32" else dtype, shape) for name, (dtype, shape) in expected.items()}
    home = f"fold_{fold}/weights/"
    sizes = {name: member.bytes for name, member in archive.manifest.members.items() if name.startswith(home)}
    needed = {
        weights_name(fold, name): len(npy_header(*kind)) + math.prod(kind[1]) * np.dtype(DTYPES[kind[0]]).itemsize
        for name, kind in stored.items()
    }
    for name in (*needed, *sizes):
        if needed.get(name) != sizes.get(name):
            wants, has = (f"{of[name]} bytes" if name in of else "no such tensor" for of in (needed, sizes))
            raise DvtError(
                f"{archive.path}: {name}: as {floats} the network has {wants}, the archive {has}. {DOWNLOAD_AGAIN}"
            )
    return {name: to_float32(_array(archive, weights_name(fold, name), *kind)) for name, kind in stored.items()}


def float_type(archive: ArchiveReader) -> str:
    """Return the type of the first float weights in an archive. All others must have the same."""
    names = (name for name in archive.manifest.members if "/weights/" in name)
    return next((dtype for name in names if (dtype := _type_of(archive.read(name))) in FLOATS), FLOATS[0])


def _type_of(content: bytes) -> str:
    """Return the number type of a .npy file whose header is that of ``npy_header``; empty if it is not."""
    starts = {(header := npy_header(dtype, ()))[:8] + header[10:25]: dtype for dtype in DTYPES}
    return starts.get(content[:8] + content[10:25], "")  # bytes 8 and 9 are the header's length


def _array(archive: ArchiveReader, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    content, header = archive.read(name), npy_header(dtype, shape)
    if not content.startswith(header):
        raise DvtError(f"{archive.path}: {name} is not an array of {dtype} and shape {shape}. {DOWNLOAD_AGAIN}")
    return _numbers(archive, name, content, dtype, len(header)).reshape(shape)


def _numbers(archive: ArchiveReader, name: str, content: bytes, dtype: str, start: int) -> np.ndarray:
    """Return the values of a .npy file after its header, and check that they are finite."""
    array = np.frombuffer(content, DTYPES[dtype], offset=start).astype(dtype)
    if not np.isfinite(array).all():
        raise DvtError(f"{archive.path}: {name} holds weights that are not finite. {DOWNLOAD_AGAIN}")
    return array
