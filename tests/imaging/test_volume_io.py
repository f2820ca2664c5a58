"""Reading and writing volumes: geometry, and one clear line for every file that cannot be used."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.datasets import SHARED
from helpers.grids import AXIAL, OBLIQUE, Rows, all_orientations, in_source_order
from helpers.processes import python
from helpers.volumes import nifti_bytes, write_volume
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core.errors import DvtError
from dvtplan.imaging import nifti, volume_io
from dvtplan.imaging.geometry import SLICE_ORDER, Grid, distance_mm, orientation_code, same_grid, to_slice_order

BOX = Grid(shape=(2, 3, 4), spacing_mm=(5.0, 2.0, 1.0), origin_mm=(10.0, 20.0, 30.0), direction=AXIAL)
MASK = (np.arange(24).reshape(BOX.shape) % 3).astype(np.uint8)
PSR: Rows = ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))


def refused(path: Path) -> str:
    """Return the error for a file without its name: one line, the same from the header and from the voxels."""
    with pytest.raises(DvtError) as caught:
        volume_io.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.endswith(".")
    return message.removeprefix(f"{path}: ")


def put(path: Path, content: bytes) -> Path:
    """Write bytes, with gzip if the name ends in .gz."""
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


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


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "i8", "u8", "c8"])
def test_voxels_are_those_that_simpleitk_reads(tmp_path: Path, kind: str, order: str, zipped: bool) -> None:
    """Of every type, in either byte order, plain, and scaled by their header."""
    codes = {value: key for key, value in nifti.KINDS.items()} | {"c8": 32, "i8": 1024, "u8": 1280}
    whole = bytearray(nifti_bytes((4, 3, 2), order=order, spacing=(1, 2, 5), corner=(-10, -20, 30)))
    numbers = np.arange(-12, 12) if kind[0] not in "u" else np.arange(24)
    struct.pack_into(f"{order}2h", whole, 70, codes[kind], 8 * np.dtype(kind).itemsize)
    whole[352:] = (numbers * (3.5 if kind[0] == "f" else 1)).astype(f"{order}{kind}").tobytes()
    for scale in ((0, 0), (1, 0), (0.5, 0), (1, 3)):
        struct.pack_into(f"{order}2f", whole, 112, *scale)
        path = put(tmp_path / f"i.nii{'.gz' if zipped else ''}", bytes(whole))
        if kind == "c8":
            assert "complex" in refused(path)
            continue
        array, grid = volume_io.read(path)
        image = sitk.ReadImage(str(path))
        expected = sitk.GetArrayFromImage(image)
        assert np.array_equal(array, expected) and array.flags.writeable and array.dtype.isnative
        assert array.dtype == (expected.dtype if expected.dtype in volume_io._KEEP else np.float64)
        assert grid.origin_mm == image.GetOrigin() and grid.spacing_mm == image.GetSpacing()[::-1]


@pytest.fixture(params=["as installed", "zlib"])
def any_unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either library that unpacks gzip."""
    if request.param == "zlib":
        monkeypatch.setattr(nifti, "unpacker", lambda: (gzip.open, zlib.error))


@pytest.mark.usefixtures("any_unpacker")
def test_either_unpacker_reads_and_refuses_alike(tmp_path: Path) -> None:
    whole = gzip.compress(nifti_bytes((40, 30, 20)))
    path = tmp_path / "i.nii.gz"
    path.write_bytes(whole)
    assert np.array_equal(volume_io.read(path)[0], np.arange(24000).reshape(20, 30, 40))
    wrong_sum, middle = bytearray(whole), bytearray(whole)
    wrong_sum[-6] ^= 1
    middle[len(whole) // 2] ^= 255
    for damaged in (wrong_sum, middle, whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(damaged)
        assert refused(path) == "gzip data are damaged or truncated. Copy or export it again."


def test_plain_voxels_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((4, 3, 2)))
    monkeypatch.setattr(sitk, "ReadImage", lambda name: pytest.fail(f"{name} was read a second time"))
    assert np.array_equal(volume_io.read(path)[0], np.arange(24).reshape(2, 3, 4))


def test_a_header_with_an_impossible_size_takes_no_memory(tmp_path: Path) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((30000, 30000, 30000), data=np.zeros(10)))
    assert "is truncated: expected 108000000000352 bytes, found 392" in refused(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(tmp_path: Path, order: str) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((4, 3, 2), order=order, spacing=(1, 2, 5), corner=(-10, -20, 30)))
    array, grid = volume_io.read(path)
    assert np.array_equal(array, np.arange(24).reshape(2, 3, 4))
    # NIfTI counts right and anterior as negative, so the file's x and y run against LPS.
    assert grid.origin_mm == (10, 20, 30)
    assert grid.spacing_mm == (5, 2, 1)
    assert orientation_code(grid) == "RAS"


def test_a_fourth_axis_of_length_1_is_ignored(tmp_path: Path) -> None:
    path = put(tmp_path / "i.nii.gz", nifti_bytes((4, 3, 2, 1)))
    array, grid = volume_io.read(path)
    assert array.shape == grid.shape == (2, 3, 4)
    assert volume_io.read_grid(path) == grid


def test_a_reversed_axis_has_the_same_positions_by_header_and_by_voxels(tmp_path: Path) -> None:
    head = bytearray(nifti_bytes((4, 3, 2), spacing=(-1, 2, 5)))
    struct.pack_into("<2h", head, 252, 0, 0)  # neither qform nor sform: the spacing alone counts
    path = put(tmp_path / "i.nii", bytes(head))
    array, grid = volume_io.read(path)
    assert grid.spacing_mm == (5, 2, 1)
    assert distance_mm(volume_io.read_grid(path), grid) == 0
    assert np.array_equal(array, np.arange(24).reshape(2, 3, 4))


def test_a_volume_in_two_files_is_read_by_either_name(tmp_path: Path) -> None:
    whole = bytearray(nifti_bytes((4, 3, 2), offset=0))
    whole[344:348] = b"ni1\0"
    (tmp_path / "i.hdr").write_bytes(whole[:348])
    (tmp_path / "i.img").write_bytes(whole[352:])
    for name in ("i.hdr", "i.img"):
        assert np.array_equal(volume_io.read(tmp_path / name)[0], np.arange(24).reshape(2, 3, 4))
    (tmp_path / "i.img").write_bytes(whole[352:-1])
    with pytest.raises(DvtError, match=r"i.img: is truncated: expected 96 bytes, found 95"):
        volume_io.read(tmp_path / "i.hdr")
    (tmp_path / "i.img").unlink()
    assert "its other half i.img was not found" in refused(tmp_path / "i.hdr")


# --- refused --------------------------------------------------------------------------------------

GOOD = nifti_bytes((4, 3, 2))


def zipped_tail(change: Callable[[bytearray], object]) -> bytes:
    """Gzip data whose last eight bytes, checksum and length, are tampered with."""
    data = bytearray(gzip.compress(GOOD))
    change(data)
    return bytes(data)


BAD_BYTES: dict[str, tuple[str, bytes, str]] = {
    "zero bytes": ("i.nii.gz", b"", "is empty (0 bytes). Copy or export it again."),
    "cut-off gzip": ("i.nii.gz", gzip.compress(GOOD)[:-20], "gzip data are damaged or truncated."),
    "gzip without its end": ("i.nii.gz", gzip.compress(GOOD)[:-8], "gzip data are damaged or truncated."),
    "wrong checksum": (
        "i.nii.gz",
        zipped_tail(lambda d: d.__setitem__(-8, d[-8] ^ 1)),
        "gzip data are damaged or truncated.",
    ),
    "flipped bits": (
        "i.nii.gz",
        zipped_tail(lambda d: d.__setitem__(slice(30, 50), bytes(b ^ 255 for b in d[30:50]))),
        "gzip data are damaged or truncated.",
    ),
    "cut-off volume": ("i.nii", GOOD[:-4], "is truncated: expected 448 bytes, found 444."),
    "cut-off volume, zipped": ("i.nii.gz", gzip.compress(GOOD[:-4]), "expected 448 bytes, found 444."),
    "cut-off header": ("i.nii", GOOD[:340], "is not a NIfTI file (shorter than its header)."),
    "text": ("i.nii", b"no volume " * 100, "is not a NIfTI file (its header does not begin with 348)."),
    "text in gzip": ("i.nii.gz", gzip.compress(b"no volume " * 100), "is not a NIfTI file"),
    "not gzip": ("i.nii.gz", GOOD, "is not gzip, but its name ends in .gz. Rename it"),
    "gzip in disguise": ("i.nii", gzip.compress(GOOD), "is gzip, but its name does not end in .gz. Rename it"),
    "NIfTI-2": ("i.nii", struct.pack("<i", 540) + bytes(600), "is NIfTI-2, which is not supported. Save it as"),
    "NIfTI-2, big-endian": ("i.nii", struct.pack(">i", 540) + bytes(600), "is NIfTI-2"),
    "2-D": ("i.nii", nifti_bytes((4, 3)), "is 2-D (4x3), expected 3-D. Save all slices as one volume."),
    "4-D": ("i.nii", nifti_bytes((4, 3, 2, 2)), "is 4-D (4x3x2x2), expected 3-D. Save each time point"),
    "5-D": ("i.nii", nifti_bytes((1, 2, 3, 1, 3)), "is 5-D (1x2x3x1x3), expected 3-D. Save each time point"),
    "5-D of ones": ("i.nii", nifti_bytes((4, 3, 2, 1, 1)), "is 5-D (4x3x2x1x1)"),
    "5-D, big-endian": ("i.nii", nifti_bytes((1, 2, 3, 1, 3), order=">"), "is 5-D (1x2x3x1x3)"),
    "7-D": ("i.nii", nifti_bytes((1, 2, 1, 1, 1, 1, 2)), "is 7-D (1x2x1x1x1x1x2)"),
    "99-D": ("i.nii", GOOD[:40] + struct.pack("<h", 99) + GOOD[42:], "its NIfTI header lists 99 dimensions."),
    "an axis of nothing": ("i.nii", nifti_bytes((4, 0, 2)), "lists 4x0x2 voxels"),
    "an axis of less": ("i.nii", nifti_bytes((4, -3, 2)), "lists 4x-3x2 voxels"),
    "no spacing": ("i.nii", nifti_bytes((4, 3, 2), spacing=(1, 0, 1)), "4x3x2 voxels of 1 x 0 x 1 mm. Fix the header"),
    "no number for spacing": ("i.nii", nifti_bytes((4, 3, 2), spacing=(np.nan, 1, 1)), "of nan x 1 x 1 mm"),
    "voxels nowhere": ("i.nii", nifti_bytes((4, 3, 2), offset=np.nan), "places the voxels at byte nan."),
    "voxels at infinity": ("i.nii", nifti_bytes((4, 3, 2), offset=np.inf), "places the voxels at byte inf."),
    "origin nowhere": ("i.nii", nifti_bytes((4, 3, 2), corner=(0, np.nan, 0)), "and the origin -0 x nan x 0 mm."),
    "another 5-D format": (
        "i.mha",
        b"ObjectType = Image\nNDims = 5\nDimSize = 2 2 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        + bytes(32),
        "is 5-D (2x2x2x2x2)",
    ),
    "cut-off nrrd": (
        "i.nrrd",
        b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n" + bytes(7),
        "cannot be read (",
    ),
    "cut-off mha": (
        "i.mha",
        b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        + bytes(7),
        "cannot be read (",
    ),
    "no volume format": ("i.txt", b"hello", "cannot be read (Unable to determine ImageIO reader"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_BYTES.values(), ids=BAD_BYTES)
def test_a_file_that_cannot_be_used_gets_one_clear_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert message in refused(path)


@pytest.mark.parametrize("name", ["i.nii", "i.nii.gz", "I.NII", "i.Nii.GZ", "i.nia", "i.hdr", "i.img"])
def test_a_5d_file_never_reaches_simpleitk_which_would_kill_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def never(*_: object) -> None:
        pytest.fail("SimpleITK has seen it")

    monkeypatch.setattr(sitk, "ReadImage", never)
    monkeypatch.setattr(sitk, "ImageFileReader", never)
    content = nifti_bytes((1, 2, 3, 1, 3))
    for half in ("i.hdr", "i.img") if name in ("i.hdr", "i.img") else (name,):
        (tmp_path / half).write_bytes(gzip.compress(content) if half.lower().endswith(".gz") else content)
    for read in (volume_io.read, volume_io.read_grid):
        with pytest.raises(DvtError, match=r"is 5-D \(1x2x3x1x3\)"):
            read(tmp_path / name)


def test_a_file_truncated_anywhere_is_noticed(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD)
    for length in range(len(packed)):
        (tmp_path / "i.nii.gz").write_bytes(packed[:length])
        refused(tmp_path / "i.nii.gz")
    for length in range(0, len(GOOD), 5):
        (tmp_path / "i.nii").write_bytes(GOOD[:length])
        refused(tmp_path / "i.nii")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", [0, 1048575, 1048576, 1099999])
def test_one_voxel_that_is_nan_is_found_anywhere(tmp_path: Path, place: int, order: str) -> None:
    data = np.zeros(1_100_000, np.float32)  # more than the 4 MiB that are read at a time
    data[place] = np.nan
    content = nifti_bytes((110, 100, 100), order=order, data=data) + b"what stands behind the voxels"
    assert refused(put(tmp_path / "i.nii", content)).startswith("1 of 1100000 voxels are not finite.")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_a_header_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value
    path = put(tmp_path_factory.getbasetemp() / "damaged.nii", bytes(content))
    for read in (volume_io.read, volume_io.read_grid):
        try:
            read(path)
        except DvtError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [nifti_bytes((4, 3, 2, 5)), nifti_bytes((1, 2, 3, 1, 3)), b"", b"text" * 99])
def test_the_header_refuses_the_same_files_as_the_voxels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "i.nii"
    path.write_bytes(content)
    with pytest.raises(DvtError) as caught:
        volume_io.read_grid(path)
    assert str(caught.value) == f"{path}: {refused(path)}"


def test_a_header_can_be_read_without_the_voxels(tmp_path: Path) -> None:
    grid = volume_io.read_grid(put(tmp_path / "i.nii", GOOD))
    (tmp_path / "i.nii").write_bytes(GOOD[:-4])
    assert volume_io.read_grid(tmp_path / "i.nii") == grid


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("i.nii.gz", "is 5-D (4x3x2x1x3), expected 3-D."),  # so NIfTI stores vectors
        ("i.nrrd", "has 3 values per voxel, expected 1. Save each component as a file of its own."),
    ],
)
def test_colours_and_vectors_are_refused(tmp_path: Path, name: str, message: str) -> None:
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.float32), isVector=True)
    sitk.WriteImage(image, str(tmp_path / name))
    assert message in refused(tmp_path / name)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "i.nii.gz", np.ones((2, 3, 4), np.complex64))
    assert refused(path) == "contains complex numbers, expected real numbers. Export the magnitude."


def test_axes_that_are_not_at_right_angles_say_what_to_do(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    struct.pack_into("<4f", content, 280, 1, 0.5, 0, 0)
    assert "Resample it onto axes at right angles." in refused(put(tmp_path / "i.nii", bytes(content)))


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
