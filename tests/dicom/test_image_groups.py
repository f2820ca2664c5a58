"""Images of a series divided into volumes: by plane, place, tags, and gaps; with tolerances, and never in halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from helpers.dicom_frames import AXIAL, SAGITTAL, Vector, frames, only, order, refusal

from dvtplan.dicom.frame import Frame
from dvtplan.dicom.slice_sorting import sort_into_volumes


def named(images: Sequence[Frame], prefix: str, **changes: Any) -> list[Frame]:
    """Return images with other names, UIDs and properties."""
    return [replace(f, file=f"{prefix}{f.file}", uid=f"{prefix}{f.uid}", **changes) for f in images]


@pytest.mark.parametrize("digit", [0.0005, 0.00049995, 0.0014999, 0.0015])
def test_directions_that_differ_by_rounding_are_one_volume(digit: float) -> None:
    """At any digit: a direction at the edge of rounding is not another direction."""
    wobble = [digit, digit - 4e-7]
    images = [replace(f, along_row=(1.0, wobble[k % 2], 0.0)) for k, f in enumerate(frames(8))]
    images = [replace(f, along_column=(-f.along_row[1], 1.0, 0.0)) for f in images]
    assert len(only(sort_into_volumes(images, "s")).frames) == 8


def test_pixel_sizes_that_differ_by_rounding_are_one_volume() -> None:
    images = [replace(f, spacing_mm=(0.78125 + 4e-7 * (k > 3), 0.78125)) for k, f in enumerate(frames(8))]
    assert len(only(sort_into_volumes(images, "s")).frames) == 8


def test_echo_times_that_differ_by_rounding_are_one_volume() -> None:
    images = [replace(f, echo_ms=1.13 + 1e-6 * (k > 3)) for k, f in enumerate(frames(8))]
    assert len(only(sort_into_volumes(images, "s")).frames) == 8


def test_an_echo_time_that_one_image_lacks_does_not_split() -> None:
    images = [replace(f, echo_ms=None if k == 7 else 1.13) for k, f in enumerate(frames(8))]
    assert len(only(sort_into_volumes(images, "s")).frames) == 8


@pytest.mark.parametrize(
    ("one", "other", "titles"),
    [
        ({"image_type": "M"}, {"image_type": "P"}, ["image type M", "image type P"]),
        ({"echo_ms": 2.4}, {"echo_ms": 4.8}, ["echo time 2.4", "echo time 4.8"]),
        ({"b_value": 1000.0}, {"b_value": 50.0}, ["b-value 50.0", "b-value 1000.0"]),
        ({"stack": "1"}, {"stack": "2"}, ["stack 1", "stack 2"]),
    ],
    ids=["image type", "echo", "b-value", "stack"],
)
@pytest.mark.parametrize("shift", [1.5, 15.0], ids=["between", "behind"])
def test_two_kinds_of_images_are_never_one_volume(one: Any, other: Any, titles: list[str], shift: float) -> None:
    """No two of them have one position: they lie between each other, or behind each other at the same distance."""
    second = frames(start=(-80.0, -60.0, 10.0 + shift))
    made = sort_into_volumes([*named(frames(), "a", **one), *named(second, "b", **other)], "s")
    assert [s.title for s in made.stacks] == titles and [len(s.frames) for s in made.stacks] == [5, 5]
    assert all(s.grid.spacing_mm[0] == 3.0 for s in made.stacks)


# --- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["nothing", "acquisition"])
def test_stations_beside_each_other_are_separate_volumes_from_the_head_down(told: str) -> None:
    """Three coronal table stations of one series: the same places across, other heights."""
    coronal = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    images = [
        f
        for k in (2, 0, 1)
        for f in named(
            frames(plane=coronal, start=(0.0, 0.0, 200.0 - 30 * k)),
            "abc"[k],
            acquisition=str(k) if told == "acquisition" else "",
        )
    ]
    made = sort_into_volumes(images, "s")
    assert [(s.letter, s.frames[0].file[0]) for s in made.stacks] == [("a", "a"), ("b", "b"), ("c", "c")]
    assert [s.grid.origin_mm[2] for s in made.stacks] == [200.0, 170.0, 140.0] and made.faults == ()
    assert [s.title for s in made.stacks] == [f"centre at z {z} mm" for z in (197, 167, 137)]


def test_stations_with_two_echoes_each_are_four_volumes() -> None:
    images = [
        f
        for x in (0.0, 40.0)
        for echo in (2.4, 4.8)
        for f in named(frames(start=(x, 0.0, 0.0)), f"{x} {echo} ", echo_ms=echo)
    ]
    made = sort_into_volumes(images, "s")
    assert [s.frames[0].file for s in made.stacks] == [f"{x} {e} 0.dcm" for x in (0.0, 40.0) for e in (2.4, 4.8)]


def test_images_of_one_plane_that_do_not_divide_are_refused_with_their_positions() -> None:
    images = [*frames(), *named(frames(2, start=(-50.0, -60.0, 10.0)), "x")]
    message = refusal(images)
    assert "30 mm apart" in message and "(-80, -60, 10) and (-50, -60, 10)" in message


def legs(numbers: Sequence[int | None], first: Vector = (0.0, 0.0, 0.0)) -> list[Frame]:
    """Two sagittal stacks of six images, 150 mm apart."""
    right = named(frames(6, plane=SAGITTAL, start=first), "r")
    left = named(frames(6, plane=SAGITTAL, start=(first[0] - 150.0, first[1], first[2])), "l")
    return [replace(f, number=number) for f, number in zip([*right, *left], numbers, strict=True)]


def test_two_stacks_behind_each_other_are_two_volumes_if_no_image_is_missing() -> None:
    made = sort_into_volumes(legs(range(1, 13)), "s")
    assert [len(s.frames) for s in made.stacks] == [6, 6] and [s.letter for s in made.stacks] == ["a", "b"]
    assert made.stacks[0].title.startswith("centre at x -") and made.faults == ()
    one_file = [replace(f, file="e", uid="e", index=k, frames_in_file=12) for k, f in enumerate(legs([None] * 12))]
    assert [len(s.frames) for s in sort_into_volumes(one_file, "s").stacks] == [6, 6]


@pytest.mark.parametrize("numbers", [[*range(1, 7), *range(60, 66)], [None] * 12], ids=["gap", "no numbers"])
def test_a_gap_in_which_images_may_be_missing_is_refused(numbers: list[int | None]) -> None:
    assert "a gap of 135 mm" in refusal(legs(numbers))


def test_a_small_gap_is_refused_whatever_the_numbers() -> None:
    images = [replace(f, number=k) for k, f in enumerate([*frames(9)[:4], *frames(9)[5:]])]
    assert "1 slice missing" in refusal(images)


@pytest.mark.parametrize("start", [14.0, 60.0], ids=["overlap", "gap"])
def test_stations_behind_each_other_are_told_apart_by_a_tag(start: float) -> None:
    images = [
        *named(frames(6, start=(0.0, 0.0, 0.0)), "a", acquisition="1"),
        *named(frames(6, start=(0.0, 0.0, start)), "b", acquisition="2"),
    ]
    made = sort_into_volumes(images, "s")
    assert [s.title for s in made.stacks] == ["acquisition 1", "acquisition 2"]
    assert [s.grid.origin_mm[2] for s in made.stacks] == [0.0, start]
    assert "uneven" in refusal([replace(f, acquisition="") for f in images]) or start > 50


def test_one_volume_in_two_passes_is_never_two() -> None:
    """Every second slice is acquired first. A lost slice is a lost slice."""
    images = [replace(f, acquisition=str(k % 2)) for k, f in enumerate(frames(10))]
    assert len(only(sort_into_volumes(images, "s")).frames) == 10
    assert "1 slice missing" in refusal([*images[:1], *images[2:]])


@pytest.mark.parametrize("keyword", ["inversion_ms", "flip_degrees", "repetition_ms"])
def test_series_with_several_parameters_are_split_by_them(keyword: str) -> None:
    images = [f for value in (5.0, 25.0) for f in named(frames(), str(value), **{keyword: value})]
    assert [len(s.frames) for s in sort_into_volumes(images, "s").stacks] == [5, 5]


# --- letters --------------------------------------------------------------------------------------


def test_a_volume_that_cannot_be_read_keeps_its_letter() -> None:
    """So a letter means the same volume in every patient."""
    first, second, third = (named(frames(), str(k), echo_ms=2.4 * k) for k in (1, 2, 3))
    made = sort_into_volumes([*first[:2], *first[3:], *second, *third], "s")
    assert [(s.letter, s.title) for s in made.stacks] == [("b", "echo time 4.8"), ("c", "echo time 7.2")]
    assert len(made.faults) == 1 and "a gap" in made.faults[0]


def test_the_order_of_files_does_not_change_the_letters_of_planes() -> None:
    planes = [named(frames(plane=plane), name) for name, plane in (("s", SAGITTAL), ("a", AXIAL))]
    for images in ([*planes[0], *planes[1]], [*planes[1], *planes[0]]):
        made = sort_into_volumes(images, "s")
        assert [(s.letter, s.title) for s in made.stacks] == [("a", "axial 4x6"), ("b", "sagittal 4x6")]


def test_thirty_time_points_have_letters() -> None:
    images = [f for t in range(30) for f in named(frames(3), f"{t} ", time_point=str(t))]
    made = sort_into_volumes(images, "s")
    assert [s.letter for s in made.stacks][-5:] == ["z", "aa", "ab", "ac", "ad"]
    assert order(made.stacks[26])[0] == "26 0.dcm"


def test_axial_images_are_named_by_their_plane() -> None:
    assert frames(plane=AXIAL)[0].plane == "axial" and frames(plane=SAGITTAL)[0].plane == "sagittal"
