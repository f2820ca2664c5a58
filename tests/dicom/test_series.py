"""DICOM as scanners and archives write it: volumes, positions, and refused series."""

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


def read_with_gdcm(folder: Path) -> tuple[np.ndarray, Grid]:
    """Read the same series with GDCM."""
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
    """Check that values and positions agree to 1e-4 mm, for either direction of the first axis."""
    (one, grid), (other, other_grid) = a, b
    if np.abs(grid.position_mm(np.zeros(3)) - other_grid.position_mm(np.zeros(3))).max() > 1e-4:
        other = other[::-1]
        corners = other_grid.corners_mm().reshape(2, 2, 2, 3)[::-1].reshape(8, 3)
    else:
        corners = other_grid.corners_mm()
    assert np.array_equal(one, other)
    assert np.abs(grid.corners_mm() - corners).max() < 1e-4


@pytest.mark.parametrize("plane", [CORONAL, OBLIQUE, FEET_FIRST, SAGITTAL, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))])
def test_a_shuffled_series_has_the_positions_that_gdcm_reads(tmp_path: Path, plane: Any) -> None:
    array = volume()
    write_series(tmp_path, array, plane=plane)
    found, grid = read(tmp_path)
    assert np.array_equal(found, array) and found.dtype == np.uint16
    assert np.allclose(grid.origin_mm, (-100.0, -30.0, 200.0))
    assert_same_places((found, grid), read_with_gdcm(tmp_path))


def test_subfolders_and_other_files_do_not_matter(tmp_path: Path) -> None:
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


def test_an_archive_is_read_without_unpacking_it_to_disk(tmp_path: Path) -> None:
    """A path in the archive that points outside has no effect, because nothing is written."""
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
    """Return a function that compresses a slice with a transfer syntax."""

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
    """Return a slice as lossless JPEG, written by GDCM."""
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
"""JPEG 2000 needs tiles of at least 32 x 32."""
SYNTAXES = [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("archived", [False, True])
def test_lossless_compression_is_read(tmp_path: Path, syntax: UID, archived: bool) -> None:
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
found = series.read_study(Path(sys.argv[1]))
try:
    series.read_volume(found, found.volumes[0])
except DvtError as error:
    print(error)
"""
"""Read a series without any package that decodes pixels for pydicom."""


@pytest.mark.parametrize(
    ("syntax", "package"),
    [(JPEG2000Lossless, "pylibjpeg-openjpeg"), (JPEGLosslessSV1, "pylibjpeg-libjpeg"), (JPEGLSLossless, "pylibjpeg")],
    ids=lambda value: getattr(value, "keyword", ""),
)
def test_a_missing_decoder_is_named(tmp_path: Path, syntax: UID, package: str) -> None:
    write_series(tmp_path, LARGE[:3], change=compressed(syntax))
    (message,) = python(["-c", ALONE, tmp_path]).stdout.splitlines()
    assert f"Unable to decompress '{syntax.name}' pixel data, which requires pylibjpeg>=2.0 and {package}" in message
    assert "Run pip install 'dvtplan[dicom]', or export it uncompressed." in message


def test_an_unsupported_compression_is_reported(tmp_path: Path) -> None:
    def video(ds: Dataset, k: int) -> None:
        ds.PixelData = encapsulate([bytes(64)])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = HEVCMP51

    write_series(tmp_path, volume(), change=video)
    message = refusal(tmp_path)
    assert "\n" not in message and "Export it uncompressed" in message


# --- several --------------------------------------------------------------------------------------


def test_several_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "a", volume(), number=5, words="thigh")
    write_series(tmp_path / "b", volume(seed=1), number=12, words="calf")
    write_series(tmp_path / "c", volume((1, 12, 8)), number=1, words="localizer")
    found = series.read_study(tmp_path)
    assert [v.name for v in found.volumes] == ["5", "12"] and found.faults == ()
    assert found.skipped == ("series 1 (localizer): 1 image, not a volume",)
    with pytest.raises(DvtError) as caught:
        series.choose_volume(found, None)
    assert str(caught.value) == (
        f"{tmp_path}: contains several volumes. Choose with `series`: 5 (thigh: coronal, 5x12x8, 1.25x1.45x1.3 mm); "
        "12 (calf: coronal, 5x12x8, 1.25x1.45x1.3 mm)."
    )
    assert np.array_equal(read(tmp_path, "12")[0], volume(seed=1))
    with pytest.raises(DvtError, match="contains no volume 3"):
        series.choose_volume(found, "3")


def test_a_series_is_chosen_by_part_of_its_description(tmp_path: Path) -> None:
    for number, words in ((5, "cor_fl3d_Vein"), (6, "cor_fl3d_art"), (7, "cor [late]")):
        write_series(tmp_path / words, volume(seed=number), number=number, words=words)
    assert np.array_equal(read(tmp_path, "VEIN")[0], volume(seed=5))
    assert np.array_equal(read(tmp_path, "fl3d*art")[0], volume(seed=6))
    assert np.array_equal(read(tmp_path, "[late]")[0], volume(seed=7))
    message = refusal(tmp_path, "fl3d")
    assert "several volumes that match fl3d" in message and "5 (cor_fl3d_Vein" in message
    assert "6 (cor_fl3d_art" in message and "7 (" not in message
    assert "contains no volume 3. Choose one of" in refusal(tmp_path, "3")  # a number is a name, not part of fl3d


def test_two_series_with_one_number_have_different_names(tmp_path: Path) -> None:
    for k in (0, 1):
        write_series(tmp_path / str(k), volume(seed=k), number=5)
    found = series.read_study(tmp_path)
    assert [v.name for v in found.volumes] == ["5-1", "5-2"]
    message = refusal(tmp_path, "5")
    assert "several volumes that match 5" in message and "file 0/" in message and "file 1/" in message
    pixels = {read(tmp_path, name)[0].tobytes() for name in ("5-1", "5-2")}
    assert pixels == {volume(seed=k).tobytes() for k in (0, 1)}


def test_volumes_of_different_patients_do_not_make_one_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, patient in enumerate(("p1", "p2", "p2")):
        write_series(
            tmp_path / str(k),
            volume(seed=k),
            number=k + 5,
            change=lambda ds, _, who=patient: setattr(ds, "PatientID", who),
        )
    found = series.read_study(tmp_path)
    with pytest.raises(DvtError, match=r"several volumes of 2 patients.*file 0/"):
        series.choose_volume(found, None)
    assert [v.name for v in series.choose_volumes(found, ["6", "7"])] == ["6", "7"]
    warning = capsys.readouterr().err
    assert "volumes of 2 patients" in warning and "file 1/" in warning and "p2" not in warning
    with pytest.raises(DvtError, match="different patients"):
        series.choose_volumes(found, ["5", "6"])
    with pytest.raises(DvtError, match="6 is used several times"):
        series.choose_volumes(found, ["6", "6"])


def test_echoes_of_one_series_are_separate_volumes(tmp_path: Path) -> None:
    uid = generate_uid()
    for echo in (1, 2):
        write_series(
            tmp_path / str(echo),
            volume(seed=echo),
            uid=uid,
            change=lambda ds, k, echo=echo: setattr(ds, "EchoTime", 2.5 * echo),  # type: ignore[misc]
        )
    found = series.read_study(tmp_path)
    assert [v.name for v in found.volumes] == ["5a", "5b"]
    assert "echo time 5.0" in found.volumes[1].title
    assert np.array_equal(read(tmp_path, "5b")[0], volume(seed=2))


# --- refused --------------------------------------------------------------------------------------


def refusal(source: Path, wanted: str | None = None) -> str:
    with pytest.raises(DvtError) as caught:
        read(source, wanted)
    return str(caught.value)


def test_a_missing_slice_is_reported(tmp_path: Path) -> None:
    paths = write_series(tmp_path, volume())
    paths[2].unlink()
    assert "series 5 (cor_fl3d_vein): a gap of 2.5 mm" in refusal(tmp_path)


def test_a_faulty_series_is_reported_and_can_be_ignored(tmp_path: Path) -> None:
    write_series(tmp_path / "a", volume(), number=2, words="good")
    write_series(tmp_path / "b", volume(), number=3, words="bad")[2].unlink()
    message = refusal(tmp_path)
    assert "series 3 (bad): a gap" in message and "2 (good" in message
    assert np.array_equal(read(tmp_path, "2")[0], volume())


def test_a_mosaic_a_colour_image_and_an_image_without_position_are_refused(tmp_path: Path) -> None:
    def mosaic(ds: Dataset, k: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]

    def colour(ds: Dataset, k: int) -> None:
        ds.SamplesPerPixel = 3

    def nowhere(ds: Dataset, k: int) -> None:
        del ds.ImageOrientationPatient

    for name, change, words in (
        ("mosaic", mosaic, "is a mosaic"),
        ("colour", colour, "is a colour image"),
        ("nowhere", nowhere, "IM0000: has no ImageOrientationPatient"),
    ):
        write_series(tmp_path / name, volume(), change=change)
        assert words in refusal(tmp_path / name)


def test_a_secondary_capture_is_not_a_scan(tmp_path: Path) -> None:
    ds = header(generate_uid(), 1, "photo", 4, 4, SOPClassUID=SecondaryCaptureImageStorage)
    ds.PixelData = bytes(32)
    save(ds, tmp_path / "photo")
    assert "(photo): 1 image without ImagePositionPatient" in refusal(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_dicom(empty)


def test_truncated_pixels_are_reported(tmp_path: Path) -> None:
    path = write_series(tmp_path, volume())[1]
    path.write_bytes(path.read_bytes()[:-50])
    assert f"{path.name}: its pixels cannot be read" in refusal(tmp_path)


def test_a_damaged_and_an_encrypted_archive_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.zip"
    path.write_bytes(b"PK no more")
    assert "cannot be read" in refusal(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x" * 100)
    locked = bytearray(buffer.getvalue())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the flag of the directory
    path.write_bytes(locked)
    assert "is protected by a password" in refusal(path)
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(reader_module, "LARGEST_MEMBER", 99)
    assert "Unpack the archive" in refusal(path)


def test_the_message_names_the_extra_if_pydicom_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path, volume())
    monkeypatch.setattr(reader_module, "pydicom", None)
    assert refusal(tmp_path) == "Reading DICOM needs pydicom. Run pip install 'dvtplan[dicom]'."


# --- real -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="real images are not here")
@pytest.mark.parametrize("name", ["ct_17_slices", "head_mr_35_slices"])
def test_real_series_have_the_positions_that_gdcm_reads(name: str) -> None:
    folder = SHARED / "dicom" / name
    assert_same_places(read(folder), read_with_gdcm(folder))
