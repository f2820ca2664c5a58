"""Simulate a rater who draws the label slice by slice: close to the truth, and never twice the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.ndimage

from phantom.grid import Frame, SmoothField
from phantom.shapes import Tube, rasterise
from phantom.thrombus import REGIONS, Clot, truth_label

JITTER_MM = 0.25 * 1.45
"""Standard deviation of a boundary drawn in one slice: 0.25 pixels at paper scale; it grows with the boost."""
WANDER_MM = 6.0
"""Correlation length of the error along a boundary; at coarse scales at least two pixels."""
END_MM = 4.0
"""Largest error of the position of an end."""
SMALL_PIXELS, MISSED = 3, 0.05
"""Size in pixels below which an island in a slice is small, and the share of small islands that is missed."""


def draw_label(frame: Frame, clots: list[Clot], boost: float, rng: np.random.Generator) -> np.ndarray:
    """Draw one rater's label, uint8 (S, H, W), of the patient before motion.

    A rater who knows of a lesion never misses all of it: where jitter would leave nothing of a region,
    the label is the truth.
    """
    label = np.zeros(frame.shape, np.uint8)
    wander_mm = max(WANDER_MM, 2 * frame.pixel_mm)
    # Slices are drawn independently, so the error has no correlation along S.
    hand = SmoothField(rng, frame, y_mm=0.3 * frame.spacing_mm[0], z_mm=wander_mm, x_mm=wander_mm)
    for clot in sorted(clots, key=lambda clot: REGIONS[clot.region]):
        tube = _with_other_ends(clot.tube, rng.uniform(-END_MM, END_MM, 2))
        box, depth, _ = rasterise(frame, tube.points, tube.radius_mm)
        for s in range(box[0].start, box[0].stop):
            part = depth[s - box[0].start]
            if part.max(initial=-1) < -2 * frame.pixel_mm:
                continue
            drawn = part + JITTER_MM * boost * hand.at_slice(s, box[1], box[2]) >= 0
            label[s, box[1], box[2]][drawn] = REGIONS[clot.region]
    _overlook(label, rng)
    for region, value in REGIONS.items():
        here = [clot for clot in clots if clot.region == region]
        if here and not np.any(label == value):
            label[truth_label(frame, here) == value] = value
    return label


def _with_other_ends(tube: Tube, longer_mm: np.ndarray) -> Tube:
    """Return the tube with its upper and lower end moved outwards, or inwards where negative."""
    arc = tube.arc_mm()
    inwards = np.minimum(np.maximum(-longer_mm, 0), 0.25 * arc[-1])
    part = tube.stretch(inwards[0], arc[-1] - inwards[1])
    points, radius = [part.points], [part.radius_mm]
    for end, inner, more_mm in ((0, 1, longer_mm[0]), (-1, -2, longer_mm[1])):
        if more_mm <= 0 or len(part.points) < 2:
            continue
        way = part.points[end] - part.points[inner]
        way = way / max(float(np.linalg.norm(way)), 1e-6)
        steps = np.linspace(0, more_mm, max(2, int(np.ceil(more_mm))) + 1)[1:]
        more = part.points[end] + np.outer(steps if end else steps[::-1], way)
        same = np.full(len(more), part.radius_mm[end])
        points, radius = ([more, *points], [same, *radius]) if end == 0 else ([*points, more], [*radius, same])
    return replace(part, points=np.concatenate(points), radius_mm=np.concatenate(radius))


def _overlook(label: np.ndarray, rng: np.random.Generator) -> None:
    """Erase some of the smallest islands of each slice, in place."""
    for slice_HW in label:
        rows = np.flatnonzero(slice_HW.any(axis=1))
        if not len(rows):
            continue
        part = slice_HW[rows[0] : rows[-1] + 1]
        islands, count = scipy.ndimage.label(part, np.ones((3, 3)))
        sizes = np.bincount(islands.reshape(-1), minlength=count + 1)
        missed = (sizes < SMALL_PIXELS) & (rng.random(count + 1) < MISSED)
        missed[0] = False
        if missed.any():
            part[missed[islands]] = 0
