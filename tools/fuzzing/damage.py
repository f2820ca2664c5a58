"""Damage files as interrupted copies, bad disks and careless programs do."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

ODD_VALUES = (
    b"", b" ", b"0", b"-1", b"removed", b"1,5", b"1\\2", b"1\\2\\3\\4\\5\\6", b"nan", b"inf", b"1e400", b"99999999999",
    b"\x00\x00", b"\xff\xfe\xfd", b"\\", b"1.5.6", b"0.0001",
)  # fmt: skip
"""Values of tags, as anonymizers, foreign locales and faults leave them."""

PIXEL_DATA = b"\xe0\x7f\x10\x00"
"""Tag of the pixel data, little endian."""
DICOM_KINDS = ("dicom_series", "dicom_enhanced", "dicom_segmentation")
ZIP_KINDS = ("dicom_zip", "dicom_stored_zip")


def damage(kind: str, paths: list[Path], rng: np.random.Generator) -> str:
    """Damage the files of one scan in one way.

    Args:
        kind: a key of ``sound_inputs.KINDS``.
        paths: its files, as its function returned them.
        rng: decides the damage.

    Returns:
        A description of the damage.
    """
    path = paths[int(rng.integers(len(paths)))]
    if kind in DICOM_KINDS and rng.random() < 0.5:
        many = paths if rng.random() < 0.4 else [path]
        return damage_tag(many, rng)
    body = path.read_bytes()
    packed = kind == "nifti_gz" and rng.random() < 0.7
    body = gzip.decompress(body) if packed else body
    end = len(body) if kind in ZIP_KINDS else _header_length(kind, body)
    name = list(BYTES)[int(rng.integers(len(BYTES)))]
    body = BYTES[name](body, end, rng)
    path.write_bytes(gzip.compress(body, mtime=0) if packed else body)
    return f"{path.name}: {name}"


def _header_length(kind: str, body: bytes) -> int:
    """Return the bytes before the voxels, where damage can be noticed."""
    if kind in DICOM_KINDS:
        return max(body.rfind(PIXEL_DATA), 200)
    if kind.startswith("nifti"):
        return min(352, len(body))
    return min(450, len(body))


def _cut(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    return body[: int(rng.integers(len(body)))]


def _cut_in_header(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    return body[: int(rng.integers(end))]


def _change_bytes(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    changed = bytearray(body)
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(end))] = int(rng.integers(256))
    return bytes(changed)


def _overwrite(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(end)), int(rng.integers(1, 64))
    fill = (bytes(length), b"\xff" * length, rng.bytes(length))[int(rng.integers(3))]
    return (body[:start] + fill + body[start + length :])[: len(body)]


def _zero_tail(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(end))
    return body[:start] + bytes(len(body) - start)


def _delete(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(end)), int(rng.integers(1, 40))
    return body[:start] + body[start + length :]


def _insert(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(end))
    return body[:start] + rng.bytes(int(rng.integers(1, 40))) + body[start:]


def _repeat(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(end)), int(rng.integers(4, 80))
    return body[: start + length] + body[start:]


def _empty(body: bytes, end: int, rng: np.random.Generator) -> bytes:
    return b""


BYTES: dict[str, Callable[[bytes, int, np.random.Generator], bytes]] = {
    "cut": _cut,
    "cut in its header": _cut_in_header,
    "bytes changed": _change_bytes,
    "bytes overwritten": _overwrite,
    "zeros from somewhere on": _zero_tail,
    "bytes deleted": _delete,
    "bytes inserted": _insert,
    "bytes repeated": _repeat,
    "emptied": _empty,
}
"""Name -> damage of the bytes before ``end``."""


def damage_tag(paths: list[Path], rng: np.random.Generator) -> str:
    """Give a tag of some files an odd value, or remove it."""
    places = _elements(pydicom.dcmread(paths[0]))
    place = places[int(rng.integers(len(places)))]
    remove = rng.random() < 0.25
    value = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    for path in paths:
        dataset = pydicom.dcmread(path)
        owner = _owner(dataset, place)
        element = owner[place[-1]]
        if remove:
            del owner[place[-1]]
        else:
            body = value + b" " * (len(value) % 2)
            vr = str(element.VR)
            owner._dict[Tag(place[-1])] = RawDataElement(Tag(place[-1]), vr, len(body), body, 0, False, True)
        dataset.save_as(path, enforce_file_format=False)
    return f"{len(paths)} files: {element.keyword or element.tag} {'removed' if remove else f'= {value!r}'}"


Place = tuple[int, ...]


def _elements(dataset: Dataset, before: Place = ()) -> list[Place]:
    """List the places of all elements except the pixel data: tag, or sequence tag, item and so on."""
    places: list[Place] = []
    for tag in list(dataset.keys()):
        if tag == 0x7FE00010:
            continue
        places.append((*before, tag))
        if dataset[tag].VR == "SQ":
            for k, item in enumerate(dataset[tag].value):
                places += _elements(item, (*before, tag, k))
    return places


def _owner(dataset: Dataset, place: Place) -> Dataset:
    for tag, item in zip(place[:-1:2], place[1::2], strict=True):
        dataset = dataset[tag].value[item]
    return dataset
