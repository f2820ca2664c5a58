"""DICOM as scanners and archives write it: what is there, where it lies, and what is refused."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from helpers.datasets import SHARED
from helpers.dicom_files import (
    CORONAL,
    FEET_FIRST,
    OBLIQUE,
    SAGITTAL,
    header,
    read,
    save,
    volume,
    write_enhanced,
    write_series,
)
from helpers.processes import python
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HEVCMP51,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from dvtplan.core.errors import DvtError
from dvtplan.dicom import reader as reader_module
from dvtplan.dicom import series
from dvtplan.dicom.reader import is_dicom
from dvtplan.imaging.geometry import Grid


def by_another_reader(folder: Path) -> tuple[np.ndarray, Grid]:
    """The same series by GDCM."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    rows = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    grid = Grid(
        shape=image.GetSize()[::-1],
        spacing_mm=image.GetSpacing()[::-1],
        origin_mm=image.GetOrigin(),
        direction=tuple(tuple(float(v) for v in row) for row in rows),  # type: ignore[misc]
    )
    return sitk.GetArrayFromImage(image), grid


def assert_same_places(a: tuple[np.ndarray, Grid], b: tuple[np.ndarray, Grid]) -> None:
    """Equal values at equal places, to 1e-4 mm, whichever way an axis runs."""
    (one, grid), (other, other_grid) = a, b
    if np.abs(grid.position_mm(np.zeros(3)) - other_grid.position_mm(np.zeros(3))).max() > 1e-4:
        other = other[::-1]
        corners = other_grid.corners_mm().reshape(2, 2, 2, 3)[::-1].reshape(8, 3)
    else:
        corners = other_grid.corners_mm()
    assert np.array_equal(one, other)
    assert np.abs(grid.corners_mm() - corners).max() < 1e-4


@pytest.mark.parametrize("plane", [CORONAL, OBLIQUE, FEET_FIRST, SAGITTAL, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))])
def test_a_shuffled_series_lies_where_another_reader_puts_it(tmp_path: Path, plane: Any) -> None:
    array = volume()
    write_series(tmp_path, array, plane=plane)
    found, grid = read(tmp_path)
    assert np.array_equal(found, array) and found.dtype == np.uint16
    assert np.allclose(grid.origin_mm, (-100.0, -30.0, 200.0))
    assert_same_places((found, grid), by_another_reader(tmp_path))


def test_files_in_other_folders_and_other_files_do_not_matter(tmp_path: Path) -> None:
    array = volume()
    write_series(tmp_path, array, name=lambda k: f"DICOM/{k % 2}/{9 - k}")
    (tmp_path / "README.txt").write_text("made by a scanner")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"broken")
    assert is_dicom(tmp_path) and np.array_equal(read(tmp_path)[0], array)


def test_rescaling_is_applied_slice_by_slice(tmp_path: Path) -> None:
    array = volume()

    def rescale(ds: Dataset, k: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = 1.0 + k, -10.0 * k

    write_series(tmp_path, array, change=rescale)
    slopes = np.arange(5)[:, None, None]
    found, _ = read(tmp_path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, array * (1.0 + slopes) - 10.0 * slopes)


@pytest.mark.parametrize("plane", [CORONAL, OBLIQUE, FEET_FIRST])
def test_a_multi_frame_object_is_the_same_volume(tmp_path: Path, plane: Any) -> None:
    array = volume()
    write_enhanced(tmp_path / "enhanced" / "one", array, plane=plane)
    write_series(tmp_path / "classic", array, plane=plane)
    found, grid = read(tmp_path / "enhanced")
    np.testing.assert_allclose(found, array * 2.0 - 100.0)
    assert np.abs(grid.corners_mm() - read(tmp_path / "classic")[1].corners_mm()).max() < 1e-4


def test_an_archive_is_read_without_unpacking(tmp_path: Path) -> None:
    """A member's name that leads elsewhere leads nowhere: nothing is written."""
    array = volume()
    paths = write_series(tmp_path / "in", array)
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for k, path in enumerate(paths):
            archive.write(path, f"../../evil/{k}.dcm")
    before = sorted(tmp_path.rglob("*"))
    assert is_dicom(tmp_path / "scan.zip")
    assert np.array_equal(read(tmp_path / "scan.zip")[0], array)
    assert sorted(tmp_path.rglob("*")) == before and not (tmp_path.parent / "evil").exists()


def compressed(syntax: UID) -> Callable[[Dataset, int], object]:
    """What makes a slice one of a transfer syntax."""

    def compress(ds: Dataset, k: int) -> None:
        if syntax == DeflatedExplicitVRLittleEndian:
            ds.file_meta.TransferSyntaxUID = syntax
        elif syntax == JPEGLosslessSV1:
            ds.PixelData = encapsulate([as_jpeg(ds)])
            ds["PixelData"].VR = "OB"
            ds.file_meta.TransferSyntaxUID = syntax
        else:
            ds.compress(syntax, generate_instance_uid=False)

    return compress


def as_jpeg(ds: Dataset) -> bytes:
    """A slice in lossless JPEG, which GDCM writes."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.frombuffer(ds.PixelData, np.uint16).reshape(1, ds.Rows, ds.Columns)
        writer = sitk.ImageFileWriter()
        writer.SetFileName(f"{folder}/slice.dcm")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(pixels))
        made = pydicom.dcmread(f"{folder}/slice.dcm")
        assert made.file_meta.TransferSyntaxUID == JPEGLosslessSV1
        return next(generate_frames(made.PixelData, number_of_frames=1))


LARGE = volume((4, 40, 36))
"""JPEG 2000 has no smaller tiles than 32 x 32."""
SYNTAXES = [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("archived", [False, True])
def test_compression_that_loses_nothing_is_read(tmp_path: Path, syntax: UID, archived: bool) -> None:
    array = LARGE
    write_series(tmp_path / "scan", array, change=compressed(syntax))
    source = Path(
        shutil.make_archive(str(tmp_path / "scan"), "zip", tmp_path / "scan") if archived else tmp_path / "scan"
    )
    assert np.array_equal(read(source)[0], array)


ALONE = """
import sys
for name in ("pylibjpeg", "openjpeg", "libjpeg", "PIL", "jpeg_ls", "gdcm"):
    sys.modules[name] = None
from pathlib import Path
from dvtplan.core.errors import DvtError
from dvtplan.dicom import series
found = series.find(Path(sys.argv[1]))
try:
    series.read_volume(found, found.volumes[0])
except DvtError as error:
    print(error)
"""
"""Reads a series where pydicom has no other package beside it."""


@pytest.mark.parametrize(
    ("syntax", "package"),
    [(JPEG2000Lossless, "pylibjpeg-openjpeg"), (JPEGLosslessSV1, "pylibjpeg-libjpeg"), (JPEGLSLossless, "pylibjpeg")],
    ids=lambda value: getattr(value, "keyword", ""),
)
def test_a_decoder_that_is_missing_is_named(tmp_path: Path, syntax: UID, package: str) -> None:
    write_series(tmp_path, LARGE[:3], change=compressed(syntax))
    (told,) = python(["-c", ALONE, tmp_path]).stdout.splitlines()
    assert f"Unable to decompress '{syntax.name}' pixel data, which takes pylibjpeg>=2.0 and {package}" in told
    assert "Run pip install 'dvtplan[dicom]', or export it uncompressed." in told


def test_a_compression_that_nobody_knows_is_named(tmp_path: Path) -> None:
    def video(ds: Dataset, k: int) -> None:
        ds.PixelData = encapsulate([bytes(64)])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = HEVCMP51

    write_series(tmp_path, volume(), change=video)
    told = refusal(tmp_path)
    assert "\n" not in told and "Export it uncompressed" in told


# --- several --------------------------------------------------------------------------------------


def test_several_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "a", volume(), number=5, words="thigh")
    write_series(tmp_path / "b", volume(seed=1), number=12, words="calf")
    write_series(tmp_path / "c", volume((1, 12, 8)), number=1, words="localizer")
    found = series.find(tmp_path)
    assert [v.name for v in found.volumes] == ["5", "12"] and found.faults == ()
    assert found.left_out == ("series 1 (localizer): 1 image, no volume",)
    with pytest.raises(DvtError) as caught:
        series.choose(found, None)
    assert str(caught.value) == (
        f"{tmp_path}: holds several volumes. Choose one of: --series 5: thigh: coronal, 5x12x8, 1.25x1.45x1.3 mm; "
        "--series 12: calf: coronal, 5x12x8, 1.25x1.45x1.3 mm."
    )
    assert np.array_equal(read(tmp_path, "12")[0], volume(seed=1))
    with pytest.raises(DvtError, match="holds no volume 3"):
        series.choose(found, "3")


def test_a_series_is_chosen_by_part_of_its_description(tmp_path: Path) -> None:
    for number, words in ((5, "cor_fl3d_Vein"), (6, "cor_fl3d_art"), (7, "cor [late]")):
        write_series(tmp_path / words, volume(seed=number), number=number, words=words)
    assert np.array_equal(read(tmp_path, "VEIN")[0], volume(seed=5))
    assert np.array_equal(read(tmp_path, "fl3d*art")[0], volume(seed=6))
    assert np.array_equal(read(tmp_path, "[late]")[0], volume(seed=7))
    told = refusal(tmp_path, "fl3d")
    assert "holds several volumes that fl3d may mean. Choose one of: --series 5: cor_fl3d_Vein" in told
    assert "--series 6" in told and "--series 7" not in told
    assert "holds no volume 3. Choose one of" in refusal(tmp_path, "3")  # a number is a name, no part of fl3d


def test_two_series_of_one_number_have_two_names(tmp_path: Path) -> None:
    for k in (0, 1):
        write_series(tmp_path / str(k), volume(seed=k), number=5)
    assert [v.name for v in series.find(tmp_path).volumes] == ["5", "5'"]


def test_echoes_of_one_series_are_volumes_of_their_own(tmp_path: Path) -> None:
    uid = generate_uid()
    for echo in (1, 2):
        write_series(
            tmp_path / str(echo),
            volume(seed=echo),
            uid=uid,
            change=lambda ds, k, echo=echo: setattr(ds, "EchoTime", 2.5 * echo),  # type: ignore[misc]
        )
    found = series.find(tmp_path)
    assert [v.name for v in found.volumes] == ["5a", "5b"]
    assert "echo time 5.0" in found.volumes[1].title
    assert np.array_equal(read(tmp_path, "5b")[0], volume(seed=2))


# --- refused --------------------------------------------------------------------------------------


def refusal(source: Path, wanted: str | None = None) -> str:
    with pytest.raises(DvtError) as caught:
        read(source, wanted)
    return str(caught.value)


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, volume())
    paths[2].unlink()
    assert "series 5 (cor_fl3d_vein): a gap of 2.5 mm" in refusal(tmp_path)


def test_a_faulty_series_beside_a_good_one_is_said_and_may_be_left(tmp_path: Path) -> None:
    write_series(tmp_path / "a", volume(), number=2, words="good")
    write_series(tmp_path / "b", volume(), number=3, words="bad")[2].unlink()
    told = refusal(tmp_path)
    assert "series 3 (bad): a gap" in told and "--series 2: good" in told
    assert np.array_equal(read(tmp_path, "2")[0], volume())


def test_a_mosaic_a_picture_in_colour_and_one_without_place_are_named(tmp_path: Path) -> None:
    def mosaic(ds: Dataset, k: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]

    def colour(ds: Dataset, k: int) -> None:
        ds.SamplesPerPixel = 3

    def nowhere(ds: Dataset, k: int) -> None:
        del ds.ImageOrientationPatient

    for name, change, words in (
        ("mosaic", mosaic, "is a mosaic"),
        ("colour", colour, "is a colour picture"),
        ("nowhere", nowhere, "has no place in the patient"),
    ):
        write_series(tmp_path / name, volume(), change=change)
        assert words in refusal(tmp_path / name)


def test_what_is_no_scan_is_no_dicom_image(tmp_path: Path) -> None:
    ds = header(generate_uid(), 1, "photo", 4, 4, SOPClassUID=SecondaryCaptureImageStorage)
    ds.PixelData = bytes(32)
    save(ds, tmp_path / "photo")
    assert "holds no DICOM image" in refusal(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_dicom(empty)


def test_pixels_cut_off_are_named(tmp_path: Path) -> None:
    path = write_series(tmp_path, volume())[1]
    path.write_bytes(path.read_bytes()[:-50])
    assert f"{path.name}: its pixels cannot be read" in refusal(tmp_path)


def test_a_damaged_and_a_locked_archive_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.zip"
    path.write_bytes(b"PK no more")
    assert "cannot be read" in refusal(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x" * 100)
    locked = bytearray(buffer.getvalue())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the flag of the directory
    path.write_bytes(locked)
    assert "is locked by a password" in refusal(path)
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(reader_module, "LARGEST_MEMBER", 99)
    assert "Unpack it yourself" in refusal(path)


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path, volume())
    monkeypatch.setattr(reader_module, "pydicom", None)
    assert refusal(tmp_path) == "Reading DICOM needs pydicom. Run pip install 'dvtplan[dicom]'."


# --- real -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="real images are not here")
@pytest.mark.parametrize("name", ["ct_17_slices", "head_mr_35_slices"])
def test_real_series_lie_where_another_reader_puts_them(name: str) -> None:
    folder = SHARED / "dicom" / name
    assert_same_places(read(folder), by_another_reader(folder))
