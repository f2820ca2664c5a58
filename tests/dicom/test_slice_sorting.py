"""Images sorted into volumes: in order, on the correct grid; wrong volumes are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.dicom_frames import CORONAL, Plane, Vector, frames, only, order, refusal
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.dicom.slice_sorting import describe, sort_into_volumes


def test_images_are_sorted_by_position() -> None:
    stack = only(sort_into_volumes(frames()[::-1], "s"))
    assert order(stack) == [f"{k}.dcm" for k in range(5)] and stack.title == "" and stack.copies == ()
    assert stack.grid.shape == (5, 4, 6) and stack.grid.spacing_mm == (3.0, 2.0, 1.5)
    assert stack.grid.origin_mm == (-80.0, -60.0, 10.0)
    assert stack.grid.direction == ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    assert describe(stack) == "axial, 5x4x6, 3x2x1.5 mm"


def test_the_direction_of_numbering_does_not_matter() -> None:
    """Numbered from head to feet or from feet to head, the grid follows the positions."""
    up, down = (
        only(sort_into_volumes(frames(step=s, start=z), "s")) for s, z in ((3.0, (0, 0, 0)), (-3.0, (0, 0, 12.0)))
    )
    assert up.grid == down.grid and order(up) == order(down)[::-1]


@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    start=st.tuples(*[st.floats(-500, 500)] * 3),
    step=st.floats(0.5, 12),
    seed=st.integers(0, 99),
)
def test_every_voxel_of_any_oblique_volume_has_its_position(
    angles: Vector, start: Vector, step: float, seed: int
) -> None:
    """Feet first, tilted, in any order: voxel (s, r, c) has the position of pixel (r, c) in image s."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turned = turn @ turned
    plane: Plane = (tuple(turned[:, 0]), tuple(turned[:, 1]))
    given_frames = frames(4, step, plane, start)
    shuffled = [given_frames[k] for k in np.random.default_rng(seed).permutation(4)]
    stack = only(sort_into_volumes(shuffled, "s"))
    for s, frame in enumerate(stack.frames):
        for r, c in ((0, 0), (3, 0), (0, 5), (3, 5)):
            true = np.array(frame.position_mm) + r * 2.0 * np.array(plane[1]) + c * 1.5 * np.array(plane[0])
            assert np.abs(stack.grid.position_mm(np.array([s, r, c])) - true).max() < 1e-4


# --- split ----------------------------------------------------------------------------------------


def test_two_echoes_are_two_volumes() -> None:
    both = [
        replace(f, file=f"e{echo}{f.file}", uid=f"{f.uid}.{echo}", echo_ms=2.4 * echo)
        for echo in (1, 2)
        for f in frames()
    ]
    first, second = sort_into_volumes(both[::-1], "s").stacks
    assert (first.title, second.title) == ("echo time 2.4", "echo time 4.8")
    assert order(first) == [f"e1{k}.dcm" for k in range(5)] and first.grid == second.grid


def test_a_time_series_of_phases_and_magnitudes_is_split_by_both() -> None:
    made = sort_into_volumes(
        [
            replace(f, uid=f"{f.uid}.{kind}.{time}", image_type=kind, time_point=str(time))
            for kind in ("M", "P")
            for time in (1, 2, 3)
            for f in frames()
        ],
        "s",
    )
    assert [s.title for s in made.stacks] == [f"image type {k}, time point {t}" for k in "MP" for t in (1, 2, 3)]


def test_a_time_that_differs_in_every_image_does_not_split() -> None:
    """Every image has another trigger time. The acquisition time, later in the list, splits the series."""
    both = [
        replace(f, uid=f"{f.uid}.{a}", trigger_ms=100.0 * k + a, acquisition_time=f"10000{a}")
        for a in (1, 2)
        for k, f in enumerate(frames())
    ]
    assert [s.title for s in sort_into_volumes(both, "s").stacks] == [
        "acquisition time 100001",
        "acquisition time 100002",
    ]


def test_each_plane_is_a_volume_if_it_has_three_images() -> None:
    mixed = [*frames(5), *frames(4, plane=CORONAL), *frames(2, plane=((0, 1, 0), (0, 0, -1)))]
    mixed = [replace(f, uid=str(k)) for k, f in enumerate(mixed)]
    made = sort_into_volumes(mixed, "s")
    assert [(s.title, len(s.frames)) for s in made.stacks] == [("axial 4x6", 5), ("coronal 4x6", 4)]
    assert sort_into_volumes(frames(2), "s").stacks == ()


def test_duplicate_files_count_once() -> None:
    stack = only(sort_into_volumes([*frames(), *(replace(f, file=f"copy_{f.file}") for f in frames())], "s"))
    assert len(stack.copies) == 5 and order(stack) == [f"{k}.dcm" for k in range(5)]


# --- refused --------------------------------------------------------------------------------------


def test_a_missing_slice_is_reported() -> None:
    whole = frames(9)
    message = refusal([*whole[:4], *whole[6:]])
    assert "series 5: a gap of 9 mm between 3.dcm and 6.dcm" in message and "2 slices missing" in message


def test_uneven_distances_are_reported() -> None:
    crooked = frames(6)
    crooked[3] = replace(crooked[3], position_mm=(-80.0, -60.0, 10.0 + 9.9))
    assert "uneven, 3.9 mm between 2.dcm and 3.dcm" in refusal(crooked)


def test_rounded_positions_are_accepted() -> None:
    rounded = [
        replace(f, position_mm=(*f.position_mm[:2], round(10 + 1.2345 * k, 2))) for k, f in enumerate(frames(20))
    ]
    assert only(sort_into_volumes(rounded, "s")).grid.spacing_mm[0] == pytest.approx(1.2345, abs=1e-3)


def test_a_tilted_gantry_is_reported() -> None:
    tilted = [replace(f, position_mm=(-80.0, -60.0 + 0.5 * k, f.position_mm[2])) for k, f in enumerate(frames())]
    assert "slices are shifted against each other, by 2 mm in 4.dcm" in refusal(tilted)


def test_images_with_the_same_position_and_no_difference_are_reported() -> None:
    twice = [*frames(), replace(frames()[2], file="other.dcm", uid="9")]
    assert "same position" in refusal(twice) and "(2.dcm and other.dcm, both at (-80, -60, 16) mm)" in refusal(twice)


# --- lost images ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"shape": (4, 8)}, "4x8 pixels"),
        ({"spacing_mm": (2.1, 1.5)}, "pixels of 2.1x1.5"),
        ({"along_row": (0.99995, 0.01, 0.0), "along_column": (-0.01, 0.99995, 0.0)}, "turned by 0.573 degrees"),
        ({"image_type": "P"}, "image type P"),
        ({"echo_ms": 7.0}, "echo time 7.0"),
        ({"stack": "2"}, "stack 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("k", [0, 7], ids=["first", "last"])
def test_an_image_that_differs_and_lies_where_the_volume_continues_is_not_lost(k: int, change: Any, word: str) -> None:
    images = [replace(f, image_type="M", echo_ms=2.0, stack="1") for f in frames(8)]
    images[k] = replace(images[k], **change)
    message = refusal(images)
    assert f"{k}.dcm lies where the volume continues" in message and word in message


def test_an_image_of_another_plane_is_named() -> None:
    stray = replace(frames(1, plane=CORONAL)[0], file="stray.dcm", uid="9")
    stack = only(sort_into_volumes([*frames(8), stray], "s"))
    assert len(stack.frames) == 8 and len(stack.notes) == 1 and "stray.dcm (coronal 4x6)" in stack.notes[0]
    assert only(sort_into_volumes(frames(8), "s")).notes == ()


def test_images_between_the_slices_that_differ_in_geometry_are_not_lost() -> None:
    """Every second image has another pixel size, each its own: the others would be a volume of twice the distance."""
    images = [replace(f, spacing_mm=(2.0 + 0.05 * k * (k % 2), 1.5)) for k, f in enumerate(frames(8))]
    assert "1.dcm lies between its slices" in refusal(images)


def test_an_image_that_is_not_used_is_named_where_a_slice_is_missing() -> None:
    turned = replace(frames(8)[3], along_row=(0.0, 0.0, 1.0))
    message = refusal([*frames(8)[:3], turned, *frames(8)[4:]])
    assert "1 slice missing" in message and "3.dcm (sagittal 4x6)" in message


def test_a_projection_among_the_images_is_named() -> None:
    """It lies in the same place as a slice, so it is not the slice that is missing at an end."""
    images = [replace(f, image_type="ORIGINAL") for f in frames(8)]
    projection = replace(images[3], file="mip.dcm", uid="9", image_type="DERIVED")
    stack = only(sort_into_volumes([*images, projection], "s"))
    assert len(stack.frames) == 8 and "mip.dcm" in stack.notes[0]


def test_a_volume_beside_one_that_cannot_be_read_is_not_the_only_one() -> None:
    coronal = [replace(f, uid=f"c{f.uid}") for f in frames(8, plane=CORONAL)]
    made = sort_into_volumes([*frames(8), *coronal[:3], *coronal[4:]], "s")
    assert [s.letter for s in made.stacks] == ["a"] and "1 slice missing" in made.faults[0]


def test_one_uid_at_two_positions_is_refused() -> None:
    images = frames(8)
    images[7] = replace(images[7], uid=images[0].uid)
    message = refusal(images)
    assert "0.dcm and 7.dcm have the same SOPInstanceUID" in message and "21 mm apart" in message


def test_two_series_in_one_are_recognized_by_their_numbers() -> None:
    """One lies behind the other, and no tag differs."""
    both = [*frames(), *(replace(f, file=f"b{f.file}", uid=f"b{f.uid}") for f in frames(start=(-80, -60, 25)))]
    numbered = [replace(f, number=k % 5 + 1) for k, f in enumerate(both)]
    assert "the same InstanceNumber 1" in refusal(numbered)
    for numbers in ([1] * 10, [None] * 10, list(range(10))):
        images = [replace(f, number=number) for f, number in zip(both, numbers, strict=True)]
        assert len(only(sort_into_volumes(images, "s")).frames) == 10


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"declared_images": 9}, "ImagesInAcquisition (0020,1002) is 9, but 8 images"),
        ({"declared_slices": 9}, "NumberOfSlices (0054,0081) is 9, but 8 images"),
        ({"declared_images": 8, "declared_slices": 8}, ""),
    ],
)
def test_images_that_a_tag_promises_are_missed(change: Any, word: str) -> None:
    notes = only(sort_into_volumes([replace(f, **change) for f in frames(8)], "s")).notes
    assert (word in notes[0]) if word else (notes == ())


@pytest.mark.parametrize(
    ("first", "is_noted"), [(1, False), (0, False), (2, True), (5, True), (9, True), (10, False), (101, False)]
)
def test_numbers_that_do_not_begin_at_one_are_noted(first: int, is_noted: bool) -> None:
    images = [replace(f, number=first + k) for k, f in enumerate(frames(8))]
    assert bool(only(sort_into_volumes(images, "s")).notes) == is_noted


def test_every_second_image_that_is_missing_is_noted() -> None:
    images = [replace(f, number=2 * k + 1) for k, f in enumerate(frames(8))]
    assert "numbered to 15, without 2, 4, 6" in only(sort_into_volumes(images, "s")).notes[0]


def test_an_echo_with_fewer_slices_than_the_other_is_noted() -> None:
    both = [replace(f, uid=f"{echo}{f.uid}", echo_ms=echo) for echo in (2.4, 4.8) for f in frames(8)]
    short, whole = sort_into_volumes([*both[:7], *both[8:]], "s").stacks
    assert "has 7 slices" in short.notes[0] and whole.notes == ()
