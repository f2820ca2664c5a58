"""Volumes written and read again: grids, number types, and files that the system refuses."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.datasets import SHARED
from helpers.grids import AXIAL, OBLIQUE, Rows, all_orientations, in_source_order
from helpers.processes import python
from helpers.volumes import nifti_bytes, refused, write_volume
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import SLICE_ORDER, Grid, distance_mm, orientation_code, same_grid, to_slice_order

BOX = Grid(shape=(2, 3, 4), spacing_mm=(5.0, 2.0, 1.0), origin_mm=(10.0, 20.0, 30.0), direction=AXIAL)
MASK = (np.arange(24).reshape(BOX.shape) % 3).astype(np.uint8)
PSR: Rows = ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("direction", [AXIAL, PSR, *all_orientations()[5:48:14]], ids=str)
def test_a_mask_comes_back_with_its_grid(tmp_path: Path, direction: Rows, ending: str) -> None:
    grid = Grid(shape=BOX.shape, spacing_mm=BOX.spacing_mm, origin_mm=(-7.25, 1000.5, -0.1), direction=direction)
    path = tmp_path / f"mask{ending}"
    volume_io.write_mask(path, MASK, grid)
    back, there = volume_io.read(path)
    assert np.array_equal(back, MASK)
    assert back.dtype == np.uint8
    assert orientation_code(there) == orientation_code(grid)
    assert distance_mm(grid, there) < float32_error(grid)
    assert same_grid(volume_io.read_grid(path), there)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_names_of_values_are_in_the_header(tmp_path: Path) -> None:
    """In descrip of nifti1.h: 80 bytes from byte 148, of which the last is 0; the voxels are the same."""
    for names, words in (
        ({"proximal": 1, "distal": 2}, b"1 proximal; 2 distal"),
        ({"Venenstück": 1}, b"1 Venenst?ck"),
        ({"x" * 90: 1}, b"1 " + b"x" * 77),
    ):
        volume_io.write_mask(tmp_path / "mask.nii.gz", MASK, BOX, names=names)
        assert gzip.decompress((tmp_path / "mask.nii.gz").read_bytes())[148:228] == words.ljust(80, b"\0")
        assert np.array_equal(volume_io.read(tmp_path / "mask.nii.gz")[0], MASK)


MILLIMETRES = st.floats(-2000, 2000)


@settings(max_examples=25, deadline=None)
@given(OBLIQUE, st.tuples(*[st.floats(0.1, 10)] * 3), st.tuples(*[MILLIMETRES] * 3))
def test_oblique_grids_come_back_to_float32_precision(
    tmp_path_factory: pytest.TempPathFactory,
    direction: Rows,
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
) -> None:
    grid = Grid(shape=BOX.shape, spacing_mm=spacing, origin_mm=origin, direction=direction)
    path = tmp_path_factory.getbasetemp() / "oblique.nii.gz"
    volume_io.write_mask(path, MASK, grid)
    assert distance_mm(grid, volume_io.read(path)[1]) < float32_error(grid)


def float32_error(grid: Grid) -> float:
    """NIfTI stores each of origin, steps and directions in 24 bits: an error of 2**-24 of the largest
    coordinate, a few times over."""
    extent = float(np.abs([grid.origin_mm, *grid.corners_mm()]).max())
    return 8 * 2**-24 * (extent + 1)


def test_probabilities_come_back_as_float32(tmp_path: Path) -> None:
    chance = np.linspace(0, 1, 24).reshape(BOX.shape)
    volume_io.write_probabilities(tmp_path / "p.nii.gz", chance, BOX)
    back, _ = volume_io.read(tmp_path / "p.nii.gz")
    assert back.dtype == np.float32
    assert np.array_equal(back, chance.astype(np.float32))


def test_a_slice_order_mask_is_written_in_the_images_own_order(tmp_path: Path) -> None:
    grid = Grid(shape=BOX.shape, spacing_mm=BOX.spacing_mm, origin_mm=BOX.origin_mm, direction=PSR)
    order = to_slice_order(grid, "SI")
    volume_io.write_mask(tmp_path / "mask.nii.gz", in_source_order(order, order.apply(MASK), MASK.shape), grid)
    back, there = volume_io.read(tmp_path / "mask.nii.gz")
    assert np.array_equal(back, MASK)
    assert same_grid(there, grid)


def test_itk_gives_each_voxel_the_same_position(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "i.nii.gz", MASK, (1, 2, 5), (10, 20, 30), (0, 0, 1, 1, 0, 0, 0, 1, 0))
    image, (array, grid) = sitk.ReadImage(str(path)), volume_io.read(path)
    for index in np.ndindex(*array.shape):
        x_first = tuple(int(i) for i in reversed(index))
        assert image[x_first] == array[index]
        found = grid.position_mm(np.array(index))
        np.testing.assert_allclose(found, image.TransformIndexToPhysicalPoint(x_first), atol=1e-4)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_the_files_own_number_type_is_kept(tmp_path: Path, kind: str) -> None:
    path = write_volume(tmp_path / "i.nrrd", MASK.astype(kind))
    array, _ = volume_io.read(path)
    assert array.dtype == np.dtype(kind)
    assert np.array_equal(array, MASK)


@pytest.mark.parametrize("name", ["a.nii.nii.gz", "a.img.nii.gz", "a.HDR.nii", "a.img.gz.nii.gz", "a.nrrd.mha"])
def test_a_name_with_the_ending_of_another_format_is_written(tmp_path: Path, name: str) -> None:
    grid = Grid(shape=MASK.shape, spacing_mm=BOX.spacing_mm, origin_mm=BOX.origin_mm, direction=PSR)
    volume_io.write_mask(tmp_path / name, MASK, grid)
    back, there = volume_io.read(tmp_path / name)
    assert np.array_equal(back, MASK) and same_grid(there, grid)


# --- no access ------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [1.0, 2.0])
@pytest.mark.parametrize(
    "name", ["a.Nii", "a.nii.GZ", "a.NII.gz", "A.Nii.Gz", "A.NII.GZ", "a.nii.nii.gz", "a.img.nii.gz", "a.HDR.nii"]
)
def test_endings_may_mix_upper_and_lower_case(tmp_path: Path, name: str, slope: float) -> None:
    whole = bytearray(nifti_bytes((4, 3, 2), spacing=(1, 2, 3)))
    struct.pack_into("<f", whole, 112, slope)
    (tmp_path / name).write_bytes(gzip.compress(whole) if name.lower().endswith("gz") else bytes(whole))
    array, grid = volume_io.read(tmp_path / name)
    assert np.array_equal(array, slope * np.arange(24).reshape(2, 3, 4)) and grid.spacing_mm == (3.0, 2.0, 1.0)
    assert volume_io.read_grid(tmp_path / name) == grid and volume_io.read_metadata(tmp_path / name)


def test_a_folder_is_refused_as_a_volume(tmp_path: Path) -> None:
    (tmp_path / "i.nii.gz").mkdir()
    assert refused(tmp_path / "i.nii.gz") == "expected a volume file, found a folder. Give the file."


def test_a_missing_file_and_a_link_to_nothing_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    for name in ("gone.nii.gz", "link.nii.gz"):
        assert refused(tmp_path / name) == "not found. Check the path."


@pytest.mark.parametrize("method", ["open", "stat"])
@pytest.mark.parametrize("name", ["i.nii.gz", "i.nrrd"])
def test_a_file_without_permission_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    # Root may read anything, so the system's answer is played.
    path = write_volume(tmp_path / name, MASK)

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, method, refuse)
    assert refused(path) == "no permission to read. Change its permissions, for example with chmod +r."


def test_a_failing_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_volume(tmp_path / "i.nii.gz", MASK)

    def fail(self: Path, *_: object, **__: object) -> None:
        raise OSError(5, "Input/output error", str(self))

    monkeypatch.setattr(Path, "open", fail)
    assert refused(path) == "cannot be read (Input/output error). Check the disk."


# --- writing that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_full_disk_is_one_clear_line_and_keeps_the_old_mask(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mask{ending}"
    volume_io.write_mask(path, MASK, BOX)
    code = (
        "import sys, numpy as np; from pathlib import Path; from dvtplan.core import errors\n"
        "from dvtplan.imaging import geometry, volume_io\n"
        "grid = geometry.Grid(shape=(40, 40, 40), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), "
        "direction=((0, 0, 1), (0, 1, 0), (1, 0, 0)))\n"
        "noise = np.random.default_rng(0).integers(0, 256, grid.shape)\n"
        "try: volume_io.write_mask(Path(sys.argv[1]), noise, grid)\n"
        "except errors.DvtError as error: sys.exit(str(error))"
    )
    ran = python(["-c", code, path], file_limit=30_000)
    said = [line for line in ran.stderr.splitlines() if line.startswith(f"{path}: ")]
    assert ran.returncode == 1
    assert len(said) == 1
    assert said[0].endswith("Free space or fix the permissions, then run again.")
    assert "Traceback" not in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(volume_io.read(path)[0], MASK)


def test_a_writer_that_silently_loses_voxels_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = sitk.WriteImage

    def lossy(image: sitk.Image, name: str, **how: bool) -> None:
        write(image * 0, name, **how)

    monkeypatch.setattr(sitk, "WriteImage", lossy)
    with pytest.raises(DvtError, match=r"mask.nii.gz: cannot be written .it differs"):
        volume_io.write_mask(tmp_path / "mask.nii.gz", MASK, BOX)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_another_shape_than_its_grid_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit its grid"):
        volume_io.write_mask(tmp_path / "mask.nii.gz", MASK[:1], BOX)


# --- real files -----------------------------------------------------------------------------------


ODD = SHARED / "odd"
real = pytest.mark.skipif(not ODD.is_dir(), reason="the shared images are not next to this checkout")


@real
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("5D_small.nii", "is 5-D (1x2x3x1x3), expected 3-D."),
        ("not-nifti.nii", "is not a NIfTI file"),
        ("avg152T1_LR_nifti2.nii.gz", "is NIfTI-2, which is not supported."),
        ("4d_float64.nii.gz", "is 4-D ("),
    ],
)
def test_odd_files_get_one_clear_line(name: str, message: str) -> None:
    assert message in refused(ODD / name)


@real
def test_a_real_big_endian_file_reads_as_its_bytes_say() -> None:
    raw = gzip.decompress((ODD / "big.nii.gz").read_bytes())
    assert struct.unpack(">i", raw[:4]) == (348,)
    x, y, z = struct.unpack(">3h", raw[42:48])
    kind = {2: "u1", 4: ">i2", 8: ">i4", 16: ">f4", 64: ">f8"}[struct.unpack(">h", raw[70:72])[0]]
    (offset,) = struct.unpack(">f", raw[108:112])
    truth = np.frombuffer(raw, kind, x * y * z, int(offset)).reshape(z, y, x)
    array, grid = volume_io.read(ODD / "big.nii.gz")
    assert np.array_equal(array, truth)
    assert grid.spacing_mm == pytest.approx(struct.unpack(">3f", raw[80:92])[::-1])


@real
def test_a_real_psr_file_and_its_mask_lie_on_one_grid_in_slice_order() -> None:
    _, image = volume_io.read(ODD / "psr_t2.nii.gz")
    mask, grid = volume_io.read(ODD / "psr_t2_seg.nii.gz")
    assert orientation_code(image) == "PSR"
    assert same_grid(image, grid)
    order = to_slice_order(grid, "SI")
    assert orientation_code(order.grid(grid)) == "LPI"
    assert SLICE_ORDER["SI"][0] == ("SI", -1)
    assert order.apply(mask).sum() == mask.sum() > 0


@real
def test_real_grids_that_differ_by_rounding_are_the_same() -> None:
    image, mask = volume_io.read_grid(ODD / "mt0.nii.gz"), volume_io.read_grid(ODD / "mt0_seg.nii.gz")
    assert image != mask
    assert 0 < distance_mm(image, mask) < 1e-3
