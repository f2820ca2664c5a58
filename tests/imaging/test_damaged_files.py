"""Damaged files of every kind in one data set, through the command: one clear line each."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.datasets import TINY_SHAPE, tiny_dataset, tiny_image, tiny_label
from helpers.processes import command, python
from helpers.volumes import nifti_bytes, write_volume

SPACING = (2, 5, 2)
CASES = (
    "sound", "cut", "checksum", "short", "empty", "text", "zip", "nifti2", "four", "five", "colours",
    "complex", "constant", "nan", "forbidden", "folder", "link", "slice", "shifted", "values", "missing",
    "extra", "alone", "twice",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with one intact case, and cases that are damaged as their names say."""
    root = tmp_path_factory.mktemp("damaged")
    raw = tiny_dataset(root / "datasets_raw" / "DVT", CASES, table="case_id\nsound\ntwice\ntwice\nnobody\n")

    def image(case: str, channel: int = 0, ending: str = ".nii.gz") -> Path:
        return raw / "imagesTr" / f"{case}_{channel:04d}{ending}"

    def label(case: str) -> Path:
        return raw / "labelsTr" / f"{case}.nii.gz"

    packed = image("sound").read_bytes()
    image("cut").write_bytes(packed[: len(packed) // 2])
    image("checksum").write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    image("short").write_bytes(gzip.compress(gzip.decompress(packed)[:-100]))
    image("empty").write_bytes(b"")
    image("text").write_bytes(gzip.compress(b"Lorem ipsum dolor sit amet. " * 100))
    image("zip").write_bytes(gzip.decompress(packed))
    image("nifti2").write_bytes(gzip.compress(struct.pack("<i", 540) + bytes(1000)))
    image("four").write_bytes(gzip.compress(nifti_bytes((18, 3, 20, 2))))
    image("five").write_bytes(gzip.compress(nifti_bytes((1, 2, 3, 1, 3))))
    colours = sitk.GetImageFromArray(np.zeros((*TINY_SHAPE, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(image("colours")))
    write_volume(image("complex"), tiny_image(0).astype(np.complex64), SPACING)
    write_volume(image("constant"), np.full(TINY_SHAPE, 3, np.int16), SPACING)
    holed = tiny_image(0)
    holed[0, 0, 0] = np.nan
    write_volume(image("nan"), holed, SPACING)
    image("forbidden").chmod(0)
    image("folder").unlink()
    image("folder").mkdir()
    image("link").unlink()
    image("link").symlink_to(raw / "nowhere.nii.gz")
    write_volume(label("slice"), tiny_label([1])[1:], SPACING)
    write_volume(label("shifted"), tiny_label([1]), SPACING, (0, 0, 0.002))
    write_volume(label("values"), tiny_label([5]), SPACING)
    label("missing").unlink()
    write_volume(image("extra", 1), tiny_image(0), SPACING)
    image("alone").unlink()
    image("twice", ending=".nii").write_bytes(gzip.decompress(packed))
    return root


EXPECTED = {
    "imagesTr/cut_0000.nii.gz": "gzip data are damaged or truncated.",
    "imagesTr/checksum_0000.nii.gz": "gzip data are damaged or truncated.",
    "imagesTr/short_0000.nii.gz": "is truncated: expected 4672 bytes, found 4572.",
    "imagesTr/empty_0000.nii.gz": "is empty (0 bytes).",
    "imagesTr/text_0000.nii.gz": "is not a NIfTI file",
    "imagesTr/zip_0000.nii.gz": "is not gzip, but its name ends in .gz.",
    "imagesTr/nifti2_0000.nii.gz": "is NIfTI-2, which is not supported.",
    "imagesTr/four_0000.nii.gz": "is 4-D (18x3x20x2), expected 3-D.",
    "imagesTr/five_0000.nii.gz": "is 5-D (1x2x3x1x3), expected 3-D.",
    "imagesTr/colours_0000.nii.gz": "is 5-D (18x3x20x1x3), expected 3-D.",
    "imagesTr/complex_0000.nii.gz": "contains complex numbers, expected real numbers.",
    "imagesTr/constant_0000.nii.gz": "every voxel is 3; expected an image.",
    "imagesTr/nan_0000.nii.gz": "1 of 1080 voxels are not finite.",
    "imagesTr/forbidden_0000.nii.gz": "no permission to read.",
    "imagesTr/folder_0000.nii.gz": "expected a file, found a folder.",
    "imagesTr/link_0000.nii.gz": "not found.",
    "labelsTr/slice.nii.gz": "shape (18, 3, 19) differs from that of slice_0000.nii.gz, (18, 3, 20).",
    "labelsTr/shifted.nii.gz": "lies up to 0.002 mm away from shifted_0000.nii.gz",
    "labelsTr/values.nii.gz": "contains the values 5; dataset.json lists 0 background, 1 thrombus.",
    "labelsTr/missing.nii.gz": "not found. Add this case's label file.",
    "imagesTr/extra_0001.nii.gz": "channel 0001, but dataset.json lists 1 channel, counted from 0000.",
    "labelsTr/alone.nii.gz": "a label without an image.",
    "labelsTr/folder.nii.gz": "a label without an image.",
    "imagesTr/twice_0000.nii": "does not end in .nii.gz, the file_ending in dataset.json.",
    "cases.csv, line 4": "twice occurs twice. Keep one row per case.",
    "cases.csv": "lists the case nobody, which has no image.",
}


def can_be_forbidden(path: Path) -> bool:
    """Return whether a process of root can drop its right to read forbidden files on this system."""
    return python(["-c", "open(__import__('sys').argv[1])", path], powerless=True).returncode != 0


def test_one_run_names_every_damaged_file_in_one_line_each_and_writes_nothing(root: Path) -> None:
    raw = root / "datasets_raw" / "DVT"
    before = sorted(root.rglob("*"))
    ran = command("plan_and_preprocess", "--root", root, "--jobs", "2", powerless=True)
    lines = ran.stderr.splitlines()
    said = [line.removeprefix(f"{raw}/") for line in lines if line.startswith(str(raw))]
    found = {name: [line for line in said if line.startswith(f"{name}: ")] for name in EXPECTED}
    if not can_be_forbidden(raw / "imagesTr" / "forbidden_0000.nii.gz"):
        found["imagesTr/forbidden_0000.nii.gz"].append(
            f"imagesTr/forbidden_0000.nii.gz: {EXPECTED['imagesTr/forbidden_0000.nii.gz']}"
        )
    assert {name: len(entries) for name, entries in found.items()} == dict.fromkeys(EXPECTED, 1)
    for name, words in EXPECTED.items():
        assert words in found[name][0]
        assert found[name][0].endswith(".")
    assert sum(map(len, found.values())) == len(EXPECTED)
    assert set(said) <= {line for entries in found.values() for line in entries}
    assert any(line.endswith(f"{len(said)} problems found; nothing was written.") for line in lines)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert "sound" not in "".join(said)
    assert sorted(root.rglob("*")) == before
