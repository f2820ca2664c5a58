"""NRRD, MetaImage and GIPL: right or refused, by headers written as text."""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.grids import AXIAL
from helpers.processes import python
from helpers.volumes import refused, write_volume

from dvtplan.core.errors import DvtError, WriteFailed
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, distance_mm

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
TRUE = Grid(shape=(2, 3, 4), spacing_mm=(5.0, 2.0, 1.0), origin_mm=(10.0, 20.0, 30.0), direction=AXIAL)

NRRD = {
    "type": "int16",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "4 3 2",
    "space directions": "(1,0,0) (0,2,0) (0,0,5)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(10,20,30)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "10 20 30",
    "ElementSpacing": "1 2 5",
    "DimSize": "4 3 2",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def fields(base: Mapping[str, str], change: Mapping[str, str | None]) -> dict[str, str]:
    """Return a header with some fields replaced, added or, where None, left out. The last field remains the last."""
    last = list(base)[-1]
    both = {**base, **change}
    return {name: value for name, value in [*both.items(), (last, both.pop(last))] if value is not None}


def write(path: Path, change: Mapping[str, str | None] = {}) -> Path:
    """Write ``ARRAY`` as NRRD or MetaImage with these fields."""
    if path.suffix in (".nrrd", ".nhdr"):
        lines = ["NRRD0005", *(f"{name}: {value}" for name, value in fields(NRRD, change).items()), "", ""]
    else:
        ordered = {name: value for name, value in fields(META, change).items() if name != "ElementDataFile"}
        lines = [*(f"{name} = {value}" for name, value in ordered.items()), ""]
        lines[-1] = f"ElementDataFile = {change.get('ElementDataFile', 'LOCAL')}\n"
    is_local = not {"data file", "ElementDataFile"} & set(change)
    path.write_bytes("\n".join(lines).encode() + (ARRAY.tobytes() if is_local else b""))
    return path


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("i.nrrd", {}),
        ("i.NRRD", {"space": "LPS"}),
        ("i.nrrd", {"space": "RAS", "space directions": "(-1,0,0) (0,-2,0) (0,0,5)", "space origin": "(-10,-20,30)"}),
        ("i.nrrd", {"space": "left-anterior-superior", "space directions": "(1,0,0) (0,-2,0) (0,0,5)",
                    "space origin": "(10,-20,30)"}),
        ("i.nrrd", {"space units": '"mm" "mm" "mm"'}),
        ("i.mha", {}),
        ("I.MHA", {"TransformMatrix": None, "ElementSize": "9 9 9"}),
        ("i.mha", {"Offset": None, "Position": "10 20 30", "DistanceUnits": "mm"}),
        ("i.mha", {"CompressedData": "No", "BinaryData": "true", "ElementByteOrderMSB": "f"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_sound_header_gives_voxels_and_place(tmp_path: Path, name: str, change: dict[str, str | None]) -> None:
    lower = write(tmp_path / name.lower(), change)
    path = lower.rename(tmp_path / name)
    array, grid = volume_io.read(path)
    assert np.array_equal(array, ARRAY)
    assert distance_mm(grid, TRUE) < 1e-6
    assert volume_io.read_grid(path) == grid


def test_voxels_as_text_that_ends_early_are_refused_in_words(tmp_path: Path) -> None:
    path = write(tmp_path / "i.mha", {"BinaryData": "False"})
    with pytest.raises(DvtError) as caught:
        volume_io.read(path)
    assert "cannot be read" in str(caught.value) and "Success" not in str(caught.value)


BAD: dict[str, tuple[str, dict[str, str | None], str]] = {
    "nrrd, skew": ("i.nrrd", {"space directions": "(1,0,0) (0,2,0) (0,1,4.9)"}, "enclose 78.47 degrees, expected 90"),
    "nrrd, slightly skew": ("i.nrrd", {"space directions": "(1,0,0) (0,2,0) (0,0.002,5)"}, "enclose 89.98 degrees"),
    "nrrd, micrometres": ("i.nrrd", {"space units": '"um" "um" "um"'}, "in um (space units), expected mm"),
    "nrrd, one in cm": ("i.nrrd", {"space units": '"mm" "mm" "cm"'}, "in cm (space units)"),
    "nrrd, no space": ("i.nrrd", {"space": None}, "no space"),
    "nrrd, another space": ("i.nrrd", {"space": "scanner-xyz"}, "the space scanner-xyz"),
    "nrrd, no directions": ("i.nrrd", {"space directions": None, "spacings": "1 2 5"}, "no space directions"),
    "nrrd, two directions": ("i.nrrd", {"space directions": "(1,0,0) (0,2,0) none"}, "expected three vectors"),
    "nrrd, zero": ("i.nrrd", {"space directions": "(1,0,0) (0,0,0) (0,0,5)"}, "1 x 0 x 5 mm, expected three sizes"),
    "nrrd, words": ("i.nrrd", {"space directions": "(1,0,0) (0,a,0) (0,0,5)"}, "expected numbers"),
    "nrrd, many files": ("i.nhdr", {"data file": "i%03d.raw 1 2 1"}, "several files"),
    "nrrd, lacking": ("i.nhdr", {"data file": "gone.raw"}, "gone.raw was not found"),
    "nrrd, short": ("i.nrrd", {"sizes": "4 3 9"}, "is truncated"),
    "nrrd, long": ("i.nrrd", {"sizes": "4 3 1"}, "describes"),
    "nrrd, bzip2": ("i.nrrd", {"encoding": "bzip2"}, "encoded as bzip2"),
    "not nrrd": ("i.nrrd", {"type": None, "dimension": None, "sizes": None}, "sizes is"),
    "meta, two orders of bytes": ("i.mha", {"ElementByteOrderMSB": "True"}, "MSB differ"),
    "meta, skew": ("i.mha", {"TransformMatrix": "1 0 0 0 1 0 0 0.2 0.98"}, "enclose 78.4"),
    "meta, slightly skew": ("i.mha", {"TransformMatrix": "1 0 0 0 1 0 0 0.01 1"}, "enclose 89.43 degrees"),
    "meta, scaled": ("i.mha", {"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, "the lengths 2, 2, 2, expected 1"),
    "meta, singular": ("i.mha", {"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "the lengths 0, 0, 0"),
    "meta, nan": ("i.mha", {"TransformMatrix": "nan 0 0 0 1 0 0 0 1"}, "the lengths nan, 1, 1"),
    "meta, no spacing": ("i.mha", {"ElementSpacing": None}, "no ElementSpacing"),
    "meta, size only": ("i.mha", {"ElementSpacing": None, "ElementSize": "1 2 5"}, "no ElementSpacing"),
    "meta, zero": ("i.mha", {"ElementSpacing": "0 0 0"}, "ElementSpacing is 0 x 0 x 0 mm"),
    "meta, negative": ("i.mha", {"ElementSpacing": "1 -2 5"}, "ElementSpacing is 1 x -2 x 5 mm"),
    "meta, two sizes": ("i.mha", {"ElementSpacing": "1 2"}, "expected three sizes"),
    "meta, unit": ("i.mha", {"DistanceUnits": "um"}, "in um (DistanceUnits)"),
    "meta, scaling": ("i.mha", {"ElementToIntensityFunctionSlope": "2"}, "scales the voxels by 2"),
    "meta, two origins": ("i.mha", {"Position": "0 0 0"}, "Offset and Position differ"),
    "meta, no shape": ("i.mha", {"DimSize": "4 3 nan"}, "DimSize is 4 3 nan"),
    "meta, other dimensions": ("i.mha", {"NDims": "2"}, "NDims is 2"),
    "meta, list": ("i.mhd", {"ElementDataFile": "LIST"}, "several files"),
    "meta, lacking": ("i.mhd", {"ElementDataFile": "gone.raw"}, "gone.raw was not found"),
    "meta, short": ("i.mha", {"DimSize": "4 3 9"}, "is truncated"),
    "meta, long": ("i.mha", {"DimSize": "4 3 1"}, "describes"),
}


@pytest.mark.parametrize(("name", "change", "words"), BAD.values(), ids=BAD)
def test_a_header_that_does_not_tell_is_refused(
    tmp_path: Path, name: str, change: dict[str, str | None], words: str
) -> None:
    path = write(tmp_path / name, change)
    assert words in refused(path)
    with pytest.raises(DvtError):
        volume_io.read_grid(path)


@pytest.mark.parametrize("ending", [".tif", ".png", ".vtk", ".dcm", ".txt"])
def test_a_format_without_sizes_and_direction_is_refused(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"i{ending}").write_bytes(b"hello")
    assert "is not a supported volume format" in refused(tmp_path / f"i{ending}")


@pytest.mark.parametrize(("name", "zipped"), [("i.gipl", False), ("i.gipl.gz", True)])
def test_gipl_without_sizes_is_refused(tmp_path: Path, name: str, zipped: bool) -> None:
    path = write_volume(tmp_path / "i.gipl", ARRAY, (1, 2, 5))
    whole = bytearray(path.read_bytes())
    (tmp_path / name).write_bytes(gzip.compress(whole) if zipped else whole)
    assert volume_io.read(tmp_path / name)[1].spacing_mm == (5, 2, 1)
    struct.pack_into(">f", whole, 14, 0)
    (tmp_path / name).write_bytes(gzip.compress(whole) if zipped else whole)
    assert "1 x 0 x 5 mm" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["i.mhd", "i.nhdr"])
def test_the_file_of_voxels_belongs_to_the_volume_and_may_be_short(tmp_path: Path, name: str) -> None:
    key = "data file" if name == "i.nhdr" else "ElementDataFile"
    (tmp_path / "raw").mkdir()
    voxels = tmp_path / "raw" / "v.raw"
    voxels.write_bytes(ARRAY.tobytes())
    path = write(tmp_path / name, {key: "raw/v.raw"})
    assert volume_io.files_of(path) == (path, voxels)
    assert np.array_equal(volume_io.read(path)[0], ARRAY)
    voxels.write_bytes(ARRAY.tobytes()[:-1])
    with pytest.raises(DvtError, match=r"v.raw: is truncated: expected 48 bytes, found 47"):
        volume_io.read(path)
    voxels.write_bytes(ARRAY.tobytes() + b"0")
    with pytest.raises(DvtError, match=r"v.raw: has 49 bytes, but its header describes 48"):
        volume_io.read(path)


def test_both_halves_of_nifti_belong_to_the_volume(tmp_path: Path) -> None:
    for name in ("i.hdr", "i.img", "j.hdr"):
        (tmp_path / name).touch()
    assert volume_io.files_of(tmp_path / "i.hdr") == (tmp_path / "i.hdr", tmp_path / "i.img")
    assert volume_io.files_of(tmp_path / "j.hdr") == (tmp_path / "j.hdr",)
    assert volume_io.files_of(tmp_path / "i.nii.gz") == (tmp_path / "i.nii.gz",)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz"])
def test_axes_that_are_hardly_skew_are_written_at_right_angles(tmp_path: Path, ending: str) -> None:
    bent = Grid(
        shape=(2, 3, 4), spacing_mm=(5, 2, 1), origin_mm=(0, 0, 0), direction=((0, 0, 1), (0, 1, 0), (1, 0.0005, 0))
    )
    volume_io.write_image(tmp_path / f"i{ending}", ARRAY, bent)
    found = volume_io.read_grid(tmp_path / f"i{ending}")
    axes = np.array(found.direction)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-6)
    assert distance_mm(found, bent) < 0.002


def test_axes_that_are_slightly_skew_come_back_at_right_angles(tmp_path: Path) -> None:
    """So a mask in NIfTI, which is written at right angles, lies where its image does."""
    path = write(tmp_path / "i.mha", {"TransformMatrix": "1 0 0 0.0001 1 0 0 0 1"})
    _, grid = volume_io.read(path)
    axes = np.array(grid.direction)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    volume_io.write_mask(tmp_path / "m.nii.gz", ARRAY.astype(np.uint8), grid)
    assert distance_mm(volume_io.read_grid(tmp_path / "m.nii.gz"), grid) < 1e-5


def test_a_grid_that_a_format_cannot_hold_is_not_written(tmp_path: Path) -> None:
    """NIfTI would bend the axes upright: 2 mm here."""
    bent = Grid(
        shape=(2, 3, 400), spacing_mm=(5, 2, 1), origin_mm=(0, 0, 0), direction=((0, 0, 1), (0.01, 1, 0), (1, 0, 0))
    )
    with pytest.raises(WriteFailed, match=r"m.nii.gz: cannot be written in this format: .* mm away"):
        volume_io.write_mask(tmp_path / "m.nii.gz", np.zeros(bent.shape, np.uint8), bent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.mhd", "m.hdr", "m.tif", "m.foo", "m.NII.GZ", "m"])
def test_an_ending_that_is_not_written_says_so_and_not_that_the_disk_is_full(tmp_path: Path, name: str) -> None:
    with pytest.raises(WriteFailed, match=r"\.nii\.gz") as caught:
        volume_io.write_image(tmp_path / name, ARRAY, TRUE)
    assert "Free space" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_itk_reaches_the_screen(tmp_path: Path) -> None:
    """MetaIO writes to stderr by itself, NIfTI through ITK's warnings."""
    cut = sitk.GetImageFromArray(ARRAY)
    sitk.WriteImage(cut, str(tmp_path / "cut.mha"), useCompression=True)
    whole = (tmp_path / "cut.mha").read_bytes()
    (tmp_path / "cut.mha").write_bytes(whole[:-9])
    code = (
        "import sys\nfrom dvtplan.imaging import volume_io\nfrom dvtplan.core.errors import DvtError\n"
        "try: volume_io.read(sys.argv[1])\nexcept DvtError as error: print(error)\n"
        "print('after', file=sys.stderr)"
    )
    ran = python(["-c", code, tmp_path / "cut.mha"])
    assert ran.stderr == "after\n"
    assert ran.stdout.startswith(f"{tmp_path / 'cut.mha'}: ")


@pytest.mark.parametrize("name", ["f.nrrd", "f.mha", "f.mhd", "f.gipl"])
def test_any_damage_to_a_header_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    whole = write_volume(tmp_path / f"w{name[1:]}", ARRAY, (1, 2, 5)).read_bytes()
    outcomes = set()
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(400, len(content)))
            kind = chance.randrange(3)
            content[at : at + (kind > 0) * chance.randint(1, 9)] = chance.choices(b"0123456789 .-()\n=:naif", k=kind)
        (tmp_path / name).write_bytes(content)
        for read in (volume_io.read, volume_io.read_grid, volume_io.files_of):
            try:
                read(tmp_path / name)
                outcomes.add("read")
            except DvtError as error:
                outcomes.add("refused")
                assert str(error).startswith(f"{tmp_path}") and "\n" not in str(error)
    assert outcomes == {"read", "refused"}
