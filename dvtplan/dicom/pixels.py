"""Read the pixels of DICOM files, and check them against their header."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dvtplan.core.errors import DamagedScan, DvtError
from dvtplan.core.text import plural
from dvtplan.dicom.reader import Opener, pydicom, reason_of

END_OF_IMAGE = b"\xff\xd9"
"""Last marker of a JPEG, JPEG-LS or JPEG 2000 frame."""
FIRST_MARKERS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")
"""First bytes of a frame: JPEG or JPEG-LS, JPEG 2000."""
SIZE_MARKERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
"""Markers of the segment of a JPEG or JPEG-LS frame that states its size."""
RLE = "1.2.840.10008.1.2.5"
"""Transfer syntax whose compression keeps every bit where it was."""
OVERLAYS = range(0x6000, 0x6020, 2)
"""Groups of overlays. An overlay may lie in bits of the pixels that the image does not use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """How compressed frames store a value."""

    bits: int
    signed: bool | None
    """None if the compression stores no sign."""


def read_pixels(name: str, opener: Opener) -> np.ndarray:
    """Read the stored values of a file.

    Returns:
        (rows, columns) or (frames, rows, columns), in the order of bytes of this computer. Bits that belong to
        overlays are removed. Float pixels are returned as they are.

    Raises:
        DvtError: if the file is damaged, its pixels contradict its header, its compression is not supported, or a
            decoder is not installed.
    """
    try:
        with opener() as file:
            header = pydicom.dcmread(file, force=True)
        _complete_transfer_syntax(name, header)
        frames = int(header.get("NumberOfFrames") or 1)
        samples: set[_Sample] = set()
        if header.file_meta.TransferSyntaxUID.is_encapsulated:
            samples = _check_compressed(name, header, frames)
        else:
            _check_length(name, header, frames)
        header.pixel_array_options(correct_unused_bits=False)
        pixels = np.asarray(header.pixel_array)
        found = 1 if pixels.ndim == 2 else len(pixels)
        if found != frames:
            raise DamagedScan(f"{name}: holds {plural(found, 'frame')}, expected {frames}. Export it again.")
        for sample in samples:
            _require_clear_sign(name, pixels, header, sample)
        if "PixelData" in header and int(header.BitsAllocated) > 1:
            pixels = _sample_values(name, pixels, header)
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    except DvtError:
        raise
    except MemoryError:
        raise
    except NotImplementedError as error:
        raise DvtError(
            f"{name}: its compression is not supported ({reason_of(error)}). Export it uncompressed."
        ) from error
    except Exception as error:  # decoders fail in their own ways
        raise _cannot_decode(name, error) from error


def _cannot_decode(name: str, error: Exception) -> DvtError:
    """Return the error for pixels that cannot be decoded: a missing decoder, or damage."""
    first, _, details = str(error).strip().partition("\n")
    missing = re.search(r"pylibjpeg - requires (.+)", details)
    if missing is not None:
        return DvtError(
            f"{name}: {first.partition(' because')[0].strip()}, which requires {missing[1].strip()}. "
            "Run pip install 'dvtplan[dicom]', or export it uncompressed."
        )
    return DamagedScan(f"{name}: its pixels cannot be read ({reason_of(error)}). Copy or export it again.")


def _complete_transfer_syntax(name: str, header: Any) -> None:
    """Add the transfer syntax that a data set without preamble was found to have.

    Raises:
        DamagedScan: if its pixels are compressed, in a way that nothing states.
    """
    if "TransferSyntaxUID" in header.file_meta:
        return
    if header["PixelData"].is_undefined_length:
        raise DamagedScan(f"{name}: does not name the compression of its pixels. Export it uncompressed.")
    implicit, little = header.original_encoding
    plain = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.TransferSyntaxUID = plain if little else pydicom.uid.ExplicitVRBigEndian


# --- as many as the header says -------------------------------------------------------------------


def _check_length(name: str, header: Any, frames: int) -> None:
    """Raise a DamagedScan if uncompressed pixels are longer or shorter than the header says.

    Zeros behind the pixels that are shorter than a frame are padding, and so is one byte that makes the length even:
    highdicom 0.28 writes the digit 0 there.
    """
    keyword = next(word for word in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if word in header)
    data = header[keyword].value or b""
    bits = {"PixelData": int(header.BitsAllocated), "FloatPixelData": 32, "DoubleFloatPixelData": 64}[keyword]
    frame = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1) * bits / 8
    expected = int(np.ceil(frame * frames))
    is_padding = 0 < len(data) - expected < max(frame, 2) and not any(data[expected:])
    if len(data) not in (expected, expected + expected % 2) and not is_padding:
        raise DamagedScan(
            f"{name}: its pixels cannot be read ({len(data)} bytes, expected {expected} for {plural(frames, 'frame')} "
            f"of {header.Rows}x{header.Columns}). Copy or export it again."
        )


def _check_compressed(name: str, header: Any, frames: int) -> set[_Sample]:
    """Return how the compressed frames store their values, where they state it.

    Raises:
        DamagedScan: if frames are cut off, too many or too few, or of another size.
    """
    data = header.PixelData
    fragments = list(pydicom.encaps.generate_fragments(data[_end_of_offsets(data) :]))
    starts = sum(one.startswith(FIRST_MARKERS) for one in fragments)
    found = list(pydicom.encaps.generate_frames(data, number_of_frames=frames)) if len(fragments) >= frames else []
    if len(found) != frames or starts > frames:
        count = max(starts, len(found) or len(fragments))
        raise DamagedScan(f"{name}: holds {plural(count, 'frame')}, expected {frames}. Export it again.")
    samples = set()
    for k, frame in enumerate(found):
        if not frame.startswith(FIRST_MARKERS):
            continue
        if END_OF_IMAGE not in frame.rstrip(b"\0")[-16:]:
            raise DamagedScan(f"{name}: its pixels are cut off in frame {k + 1}. Copy or export it again.")
        size, sample = _size_of(frame)
        expected = (int(header.Rows), int(header.Columns))
        if size not in (None, expected):
            raise DamagedScan(f"{name}: frame {k + 1} has {size} pixels, expected {expected}. Export it again.")
        samples |= set() if sample is None else {sample}
    return samples


def _end_of_offsets(data: bytes) -> int:
    """Return where the first frame begins: behind the table of offsets."""
    return 8 + int(struct.unpack_from("<I", data, 4)[0])


def _size_of(frame: bytes) -> tuple[tuple[int, int] | None, _Sample | None]:
    """Return rows and columns of a compressed frame, and its bits and sign, as it states them; None if it does not."""
    if frame.startswith(FIRST_MARKERS[1]):
        columns, rows, left, top = struct.unpack_from(">4I", frame, 8)
        return (rows - top, columns - left), _Sample(bits=(frame[42] & 0x7F) + 1, signed=frame[42] >= 0x80)
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        if frame[place + 1] in SIZE_MARKERS:
            bits, rows, columns = struct.unpack_from(">BHH", frame, place + 4)
            return ((rows, columns) if rows and columns else None), _Sample(bits=bits, signed=None)
        place += 2 + int(struct.unpack_from(">H", frame, place + 2)[0])
    return None, None


# --- bits -----------------------------------------------------------------------------------------


def _require_clear_sign(name: str, pixels: np.ndarray, header: Any, sample: _Sample) -> None:
    """Raise a DamagedScan if compressed frames contradict their header on which values are negative.

    Programs then read different values, but only where the highest bit of a value is set.
    """
    is_signed = int(header.PixelRepresentation) == 1
    agree = sample.signed == is_signed
    if sample.signed is None:  # the sign is the highest bit, but of which number of bits?
        agree = not is_signed or sample.bits >= int(header.BitsStored)
    if agree or not (pixels >> (sample.bits - 1) & 1).any():
        return
    found = f"{sample.bits} bits{'' if sample.signed is None else ', signed' if sample.signed else ', unsigned'}"
    raise DamagedScan(
        f"{name}: its compressed pixels have {found}, but its tags state PixelRepresentation {int(is_signed)} and "
        f"BitsStored {header.BitsStored}, so it is unclear which values are negative. Export it uncompressed."
    )


def _sample_values(name: str, pixels: np.ndarray, header: Any) -> np.ndarray:
    """Return the values of integer pixels without the bits that are not part of them.

    Args:
        name: of the file.
        pixels: as decoded, in cells of BitsAllocated bits.
        header: states which bits are values (BitsStored, HighBit), their sign, and where overlays lie.

    Raises:
        DamagedScan: if other bits are set and no overlay explains them. BitsStored may then be wrong.
    """
    allocated, stored = int(header.BitsAllocated), int(header.BitsStored)
    shift = int(header.get("HighBit", stored - 1)) + 1 - stored
    if shift and header.file_meta.TransferSyntaxUID.is_encapsulated and header.file_meta.TransferSyntaxUID != RLE:
        raise DamagedScan(
            f"{name}: HighBit is {header.HighBit}, expected {stored - 1} in compressed pixels. Export it uncompressed."
        )
    if shift < 0 or shift + stored > allocated:
        raise DamagedScan(f"{name}: HighBit is {header.HighBit}, expected {stored - 1}. Export it again.")
    if stored == allocated:
        return pixels
    is_signed = int(header.PixelRepresentation) == 1
    smallest, bound = (-(1 << (stored - 1)), 1 << (stored - 1)) if is_signed else (0, 1 << stored)
    if shift == 0 and smallest <= pixels.min() and pixels.max() < bound:
        return pixels
    cells = pixels.astype(np.dtype(f"u{pixels.dtype.itemsize}"), copy=False)
    bits = (cells >> shift) & ((1 << stored) - 1)
    values = bits.astype(pixels.dtype.newbyteorder("="))
    if is_signed:
        sign = values.dtype.type(1 << (stored - 1))
        values = (values ^ sign) - sign
    used = ~sum(1 << bit for bit in _overlay_bits(header) if not shift <= bit < shift + stored) & ((1 << allocated) - 1)
    plain = (cells & used) == bits << shift
    if is_signed and shift == 0:  # the sign may fill the other bits
        plain |= (cells & used) == (values.astype(cells.dtype) & used)
    if not plain.all():
        raise DamagedScan(
            f"{name}: {plural(int(np.count_nonzero(~plain)), 'pixel')} with bits outside BitsStored {stored}, and no "
            "overlay is there. The values or BitsStored are wrong. Export it again."
        )
    return values


def _overlay_bits(header: Any) -> Sequence[int]:
    """Return the bits of the pixels in which overlays lie."""
    bits = (header.get((group, 0x0102)) for group in OVERLAYS if (group, 0x3000) not in header)
    return [int(element.value) for element in bits if element is not None and element.value]
