"""Where the voxels of a NIfTI file lie: headers written byte by byte, with sform, qform and pixdim that may differ."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.volumes import nifti_bytes, put, refused, write_volume
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core import shared_settings
from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, distance_mm
from dvtplan.imaging.nifti_forms import trusting

SHAPE = (24, 8, 40)
SIZES = (2.0, 3.0, 4.0)
CORNER = (20.0, 10.0, -80.0)
UP = (0.0, 0.0, 1.0)
"""Quaternion b, c, d of a turn by 180 degrees about z: axes to the left and back, as LPS."""


def write(
    path: Path,
    *,
    sform: Sequence[Sequence[float]] | None = None,
    qform: bool = False,
    pixdim: Sequence[float] = SIZES,
    quaternion: Sequence[float] = UP,
    corner: Sequence[float] = CORNER,
    qfac: float = 1.0,
    codes: tuple[int, int] | None = None,
    unit: int = 2,
    scale: tuple[float, float] = (1.0, 0.0),
) -> Path:
    """Write a file of float32 with these forms; ``codes`` are those of qform and sform."""
    whole = bytearray(nifti_bytes(SHAPE, spacing=pixdim))
    struct.pack_into("<f", whole, 76, qfac)
    struct.pack_into("<2f", whole, 112, *scale)
    whole[123] = unit
    struct.pack_into("<2h", whole, 252, *(codes or (int(qform), int(sform is not None))))
    struct.pack_into("<6f", whole, 256, *quaternion, *corner)
    struct.pack_into("<12f", whole, 280, *np.ravel(ROWS if sform is None else sform))
    return put(path, bytes(whole))


ROWS = ((-2.0, 0.0, 0.0, 20.0), (0.0, -3.0, 0.0, 10.0), (0.0, 0.0, 4.0, -80.0))


def rows(factor: float = 1.0, **change: Sequence[float]) -> list[list[float]]:
    """Return the rows of the sform with its axes scaled, and x, y or z replaced."""
    scaled = [[*(factor * v for v in row[:3]), row[3]] for row in ROWS]
    return [list(change.get(name, row)) for name, row in zip("xyz", scaled, strict=True)]


TRUE = Grid(
    shape=(40, 8, 24), spacing_mm=(4, 3, 2), origin_mm=(-20, -10, -80), direction=((0, 0, 1), (0, 1, 0), (1, 0, 0))
)
"""LPS, slowest axis first."""


@pytest.mark.parametrize(
    "header",
    [
        {"sform": ROWS},
        {"qform": True},
        {"sform": ROWS, "qform": True},
        {"sform": ROWS, "qform": True, "codes": (2, 1)},
        {"qform": True, "qfac": 0.0},
        {"sform": ROWS, "qfac": 5.0},
        {"sform": ROWS, "unit": 0},
        {"qform": True, "sform": rows(x=[math.nan] * 4), "codes": (1, 0)},
        {"sform": rows(1.0001), "qform": True},
        {"qform": True, "pixdim": (2000, 3000, 4000), "corner": (20000, 10000, -80000), "unit": 3},
        {"qform": True, "pixdim": (0.002, 0.003, 0.004), "corner": (0.02, 0.01, -0.08), "unit": 1},
    ],
    ids=str,
)
def test_a_sound_header_gives_the_place(tmp_path: Path, header: dict[str, object]) -> None:
    path = write(tmp_path / "i.nii.gz", **header)  # type: ignore[arg-type]
    for found in (volume_io.read(path)[1], volume_io.read_grid(path)):
        assert distance_mm(found, TRUE) < 0.05
    for form in ("sform", "qform"):
        with trusting(form):
            assert volume_io.read_grid(path) == found


def test_a_header_is_read_once_but_each_faulty_file_is_named(tmp_path: Path) -> None:
    one, other = (write(tmp_path / f"{name}.nii.gz", sform=ROWS) for name in ("one", "other"))
    assert volume_io.read_stated_grid(one) is volume_io.read_stated_grid(other)
    for name in ("bad", "worse"):
        assert "pixdim (2, 3, 4)" in refused(write(tmp_path / f"{name}.nii.gz", sform=rows(2.0)))  # with this name


CONTRADICTIONS: dict[str, tuple[dict[str, object], str, str]] = {
    "sform twice as large": ({"sform": rows(2.0), "qform": True}, "(4, 6, 8), but its pixdim (2, 3, 4)", "sform qform"),
    "sform without sizes": ({"sform": rows(x=[-1, 0, 0, 20])}, "(1, 3, 4), but its pixdim (2, 3, 4)", "sform"),
    "pixdim of ones": ({"sform": ROWS, "pixdim": (1, 1, 1)}, "(2, 3, 4), but its pixdim (1, 1, 1)", "sform"),
    "a thousandth": ({"sform": ROWS, "pixdim": (2.002, 3, 4)}, "but its pixdim (2.002, 3, 4)", "sform"),
    "mirrored": ({"sform": rows(x=[2, 0, 0, 20]), "qform": True}, "are mirrored: axes RPS", "sform qform"),
    "mirrored by qfac": ({"sform": ROWS, "qform": True, "qfac": -1.0}, "are mirrored: axes LPS", "sform qform"),
    "moved": ({"sform": rows(x=[-2, 0, 0, 20.02]), "qform": True}, "0.02 mm apart", "sform qform"),
    "turned": ({"sform": rows(y=[0, -3, 0.03, 10], z=[0, 0.0225, 4, -80]), "qform": True}, "mm apart", "sform qform"),
    "negative pixdim": ({"sform": ROWS, "qform": True, "pixdim": (-2, 3, 4)}, "the pixdim (-2, 3, 4)", "sform"),
    "zero pixdim": ({"sform": ROWS, "pixdim": (2, 0, 4)}, "the pixdim (2, 0, 4)", "sform"),
    "infinite pixdim": ({"qform": True, "pixdim": (2, math.inf, 4)}, "the pixdim (2, inf, 4)", ""),
    "sform of nan": ({"sform": rows(z=[0, 0, 4, math.nan]), "qform": True}, "(0, 0, 4, nan)", "qform"),
    "skew": ({"sform": rows(y=[0, -3, 0.4, 10]), "qform": True}, "enclose 84.29 degrees", "qform"),
    "skew alone": ({"sform": rows(y=[0, -3, 0.4, 10])}, "enclose 84.29 degrees", ""),
    "quaternion": ({"sform": ROWS, "qform": True, "quaternion": (0, 0.5, 1)}, "quaternion (0, 0.5, 1)", "sform"),
    "quaternion of nan": ({"qform": True, "quaternion": (0, math.nan, 1)}, "quaternion (0, nan, 1)", ""),
    "qfac": ({"qform": True, "qfac": -3.0}, "the qfac (pixdim[0]) -3", ""),
    "neither": ({"codes": (0, 0)}, "neither sform nor qform", ""),
    "unknown codes": ({"codes": (-1, 9)}, "(sform_code 9, qform_code -1)", ""),
    "metres that are mm": ({"qform": True, "unit": 1}, "sizes in metres", ""),
    "micrometres that are mm": ({"sform": ROWS, "unit": 3}, "sizes in micrometres", ""),
}


@pytest.mark.parametrize(("header", "words", "usable"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_and_the_trusted_form_is_read(
    tmp_path: Path, header: dict[str, object], words: str, usable: str
) -> None:
    path = write(tmp_path / "i.nii.gz", **header)  # type: ignore[arg-type]
    message = refused(path)
    assert words in message
    assert [form for form in ("sform", "qform") if f"`trust={form}`" in message] == usable.split()
    with pytest.raises(DvtError) as from_header:
        volume_io.read_grid(path)
    assert str(from_header.value) == f"{path}: {message}"
    for form in ("sform", "qform"):
        with trusting(form):
            if form not in usable:
                assert words in refused(path)
                continue
            array, grid = volume_io.read(path)
        assert np.array_equal(array, np.arange(array.size).reshape(grid.shape))
        expected = qform_of(header) if form == "qform" else np.array(header["sform"])
        steps = np.diag([-1, -1, 1]) @ expected[:, :3][:, ::-1]
        np.testing.assert_allclose(grid.steps_mm, steps.T, atol=1e-5)
        np.testing.assert_allclose(grid.origin_mm, np.diag([-1, -1, 1]) @ expected[:, 3], atol=1e-5)


def qform_of(header: dict[str, object]) -> np.ndarray:
    """All usable qforms here turn by 180 degrees about z; qfac -1 mirrors z."""
    expected = np.array(ROWS)
    expected[2, 2] *= -1 if header.get("qfac") == -1 else 1
    return expected


def test_scaled_voxels_of_a_trusted_form_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "i.nii", sform=ROWS, pixdim=(-2, 3, 4), scale=(0.5, 1))
    with trusting("sform"):
        array, grid = volume_io.read(path)
    assert np.array_equal(array, np.arange(array.size).reshape(grid.shape) * 0.5 + 1)
    assert distance_mm(grid, TRUE) < 1e-5


def test_trust_ends_with_its_context_and_has_two_values() -> None:
    with trusting("sform"), trusting(None):
        assert shared_settings.value("trust") == "sform"
    assert shared_settings.value("trust") is None
    with pytest.raises(DvtError, match="sform, qform"), trusting("both"):
        pass


@pytest.mark.parametrize("scale", [(0, 3), (math.nan, 5), (math.inf, 0), (1, math.nan), (math.nan, math.nan)])
def test_a_scaling_that_programs_read_differently_is_refused(tmp_path: Path, scale: tuple[float, float]) -> None:
    """SimpleITK adds the intercept to a slope of 0, nibabel ignores it."""
    words = f"scales the voxels by {scale[0]:g} and adds {scale[1]:g}"
    assert words in refused(write(tmp_path / "i.nii", sform=ROWS, scale=scale))


def test_scaling_beyond_float32_is_refused(tmp_path: Path) -> None:
    assert "voxels are not finite" in refused(write(tmp_path / "i.nii", sform=ROWS, scale=(1e38, 0)))


def test_analyze_has_no_direction(tmp_path: Path) -> None:
    whole = bytearray(nifti_bytes(SHAPE, offset=0))
    whole[344:348] = bytes(4)
    for name in ("i.hdr", "i.img", "i.nii"):
        (tmp_path / name).write_bytes(whole)
    for name in ("i.hdr", "i.img", "i.nii"):
        assert "Analyze 7.5" in refused(tmp_path / name)


ANGLES = st.floats(-0.02, 0.02)


@settings(max_examples=60, deadline=None)
@given(st.tuples(ANGLES, ANGLES, ANGLES), st.sampled_from([(1, 1), (2, 1), (1, 2)]))
def test_rounding_of_a_quaternion_is_no_contradiction(
    tmp_path_factory: pytest.TempPathFactory, angles: tuple[float, float, float], codes: tuple[int, int]
) -> None:
    """ITK writes axes near LPS as quaternions without their component a, so a qform may be off by 0.1 degrees."""
    turn = sitk.Euler3DTransform((0, 0, 0), *(1e-3 * angle if abs(angle) < 0.01 else angle for angle in angles))
    folder = tmp_path_factory.getbasetemp()
    array = np.zeros((31, 320, 320), np.uint8)
    path = write_volume(folder / "turned.nii", array, (1.5, 1.5, 6), (-200, 300, -900), turn.GetMatrix())
    whole = bytearray(path.read_bytes())
    struct.pack_into("<2h", whole, 252, *codes)
    path.write_bytes(whole)
    rotation = np.array(turn.GetMatrix()).reshape(3, 3)
    directions = tuple(tuple(row) for row in rotation.T[::-1].tolist())
    true = Grid(shape=(31, 320, 320), spacing_mm=(6, 1.5, 1.5), origin_mm=(-200, 300, -900), direction=directions)
    assert distance_mm(volume_io.read_grid(path), true) < 1e-3
