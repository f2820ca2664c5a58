"""A buffer of slices in a temporary file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.processes import python
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.core.errors import WriteFailed
from dvtplan.imaging.slice_buffer import SliceBuffer

SLICES = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


def test_slices_are_read_whole_and_in_blocks(tmp_path: Path) -> None:
    with SliceBuffer(tmp_path / "new") as file:
        file.append(SLICES[:1])
        file.append(iter(SLICES[1:]))
        assert len(file) == 4
        assert np.array_equal(file.read(), SLICES)
        assert np.array_equal(file.read(1, 3), SLICES[1:3])
        assert np.array_equal(file.read(3, 99), SLICES[3:])
        assert file.read().dtype == np.float32


def test_reading_between_writes_does_not_disturb_them(tmp_path: Path) -> None:
    with SliceBuffer(tmp_path) as file:
        for number, one in enumerate(SLICES, start=1):
            file.append([one])
            assert np.array_equal(file.read(), SLICES[:number])
            assert np.array_equal(file.read(0, 1), SLICES[:1])


def test_reversed_views_are_written_in_their_order(tmp_path: Path) -> None:
    turned = SLICES.transpose(0, 2, 1)[:, ::-1]
    with SliceBuffer(tmp_path) as file:
        file.append(turned)
        assert np.array_equal(file.read(), turned)


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 30), st.integers(0, 30))
def test_any_block_equals_that_of_an_array(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], start: int, more: int
) -> None:
    whole = np.random.default_rng(0).integers(0, 255, (sum(counts), 2, 2)).astype(np.uint8)
    with SliceBuffer(tmp_path_factory.getbasetemp()) as file:
        for part in np.split(whole, np.cumsum(counts)[:-1]) if counts else []:
            file.append(part)
        if start < len(whole):
            assert np.array_equal(file.read(start, start + more), whole[start : start + more])


def test_the_file_never_has_a_name(tmp_path: Path) -> None:
    with SliceBuffer(tmp_path) as file:
        file.append(SLICES)
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed, match=r"file: cannot be written \("):
        SliceBuffer(tmp_path / "file")


@pytest.mark.parametrize("slices", [1, 100])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, slices: int) -> None:
    # One slice stays in the buffer until it is flushed, and is there still when the file is closed.
    code = (
        "import sys, numpy as np; from pathlib import Path; from dvtplan.core import errors\n"
        "from dvtplan.imaging import slice_buffer\n"
        "try:\n"
        "    with slice_buffer.SliceBuffer(Path(sys.argv[1])) as file:\n"
        f"        file.append(np.zeros(({slices}, 10, 10)))\n"
        "except errors.WriteFailed as error: sys.exit(str(error))"
    )
    ran = python(["-c", code, tmp_path], file_limit=400)
    assert ran.stderr == (
        f"{tmp_path}: cannot be written (File too large). Free space or fix the permissions, then run again.\n"
    )
    assert list(tmp_path.iterdir()) == []
