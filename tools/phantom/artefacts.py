"""Simulate the scan: three table stations, coils, blur, ringing, ghosts, wrap, noise. Independent of thrombus."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.fft

from phantom import signals, template
from phantom.anatomy import Anatomy
from phantom.contrast import Pulsation
from phantom.difficulty import Difficulty
from phantom.grid import Frame, SmoothField
from phantom.shapes import paint_tube, smooth_curve

STATIONS = 3
STATION_MM = 500.25
"""Height of a station: the square field of view of Huang 2019. Three stations of 345 rows with 37 rows overlap give
961 rows."""
BLEND_ROWS = (10, 37)
"""Range of the number of rows over which two stations are blended, at paper scale."""
SHIFT_MM = 4.4
"""Largest sideways motion of a patient between stations: three pixels at paper scale."""
EDGE_DROP = 0.18
"""Loss of signal at the upper and lower end of a station."""
BIAS_AP, BIAS_LR, BIAS_REST = 0.25, 0.12, 0.08
"""Largest change of coil sensitivity from front to back and from side to side, and SD of its other variation."""
FLARES, FLARE = (2, 5), (1.5, 2.5)
"""Range of the number of skin spots close to a coil element, and range of the factor on their signal."""
CROP = 0.85
"""Share of k-space that is sampled; its sharp end causes ringing."""
PSF_PIXELS = 1.2
"""Full width at half maximum of the blur in all directions."""
GHOSTS = (0.0, 0.08)
"""Range of the strength of an artery's first ghost; the second has half of it."""
WRAP = 0.25
"""Probability that an arm outside the field of view wraps into it."""
ARM = ((660, 28), (560, 24), (470, 20))
"""Template z and radius in mm of a forearm at the patient's side."""
MARGIN_ROWS = 4
"""Fewest rows beyond each end of a station that are imaged with it."""
FAINT = 0.02
"""A flare is omitted from slices where its relative strength is lower."""
UNIT = 400.0
"""Stored value of signal 1."""


@dataclass(frozen=True, slots=True)
class Station:
    """One position of the table."""

    rows: tuple[int, int]
    """First row, and the row after the last, in the composed volume."""
    gain: float
    """Factor on its signal and noise."""
    shift: tuple[int, int]
    """Motion of the patient in voxels along S and W."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Parameters of one examination."""

    stations: tuple[Station, ...]
    """Stations from head to foot."""
    blend_rows: int
    """Number of rows over which neighbours are blended."""
    bias: tuple[float, float]
    """Relative change of sensitivity at the ends, from front to back and from right to left."""
    flares: tuple[tuple[float, float, float, float, float], ...]
    """LPS x, y, z, reach in mm, and factor minus one."""
    ghost: float
    """Strength of the first ghost."""
    ghost_shift: tuple[int, ...]
    """Columns between ghosts, for each station."""
    arm: tuple[float, float, float] | None
    """LPS x and y of a wrapped arm and its strength; None without wrap."""

    def weights(self, rows: int) -> np.ndarray:
        """Return the share of each station in each row of the composed volume, float32 (stations, rows)."""
        at = np.arange(rows)
        rises = []
        for above, below in itertools.pairwise(self.stations):
            middle = (below.rows[0] + above.rows[1] - 1) / 2
            rises.append(np.clip((at - middle) / max(self.blend_rows, 1) + 0.5, 0, 1))
        edges = np.array([np.ones(rows), *rises, np.zeros(rows)])
        return (edges[:-1] - edges[1:]).astype(np.float32)

    def move(self, volume: np.ndarray) -> np.ndarray:
        """Return a volume (S, H, W), such as a label, with the motion of the composed scan.

        Each row comes from the station with the largest share in it.
        """
        leading = self.weights(volume.shape[1]).argmax(axis=0)
        moved = np.empty_like(volume)
        for number, station in enumerate(self.stations):
            rows = np.flatnonzero(leading == number)
            part = slice(rows[0], rows[-1] + 1)
            slices = np.clip(np.arange(len(volume)) + station.shift[0], 0, len(volume) - 1)
            moved[:, part] = np.roll(volume[slices, part], station.shift[1], axis=2)
        return moved


def station_rows(frame: Frame) -> list[tuple[int, int]]:
    """Return the first row, and the row after the last, of each station, evenly spaced."""
    rows = frame.shape[1]
    height = min(round(STATION_MM / frame.spacing_mm[1]), rows)
    starts = np.rint(np.linspace(0, rows - height, STATIONS)).astype(int)
    return [(int(start), int(start) + height) for start in starts]


def draw_scan(rng: np.random.Generator, frame: Frame, anatomy: Anatomy, difficulty: Difficulty) -> Scan:
    """Draw an examination of a patient."""
    places = station_rows(frame)
    gains = rng.uniform(*difficulty.station_gain, size=STATIONS)
    across_mm, depth_mm = rng.uniform(-1, 1, (2, STATIONS))
    stations = tuple(
        Station(
            rows,
            float(gain),
            (round(0.35 * SHIFT_MM * d / frame.spacing_mm[0]), round(SHIFT_MM * a / frame.spacing_mm[2])),
        )
        for rows, gain, a, d in zip(places, gains, across_mm, depth_mm, strict=True)
    )
    blend_mm = rng.uniform(*BLEND_ROWS) * 1.45
    overlap = min(above[1] - below[0] for above, below in itertools.pairwise(places))
    flares = []
    for _ in range(int(rng.integers(FLARES[0], FLARES[1] + 1))):
        pose = anatomy.limbs[str(rng.choice(list(anatomy.limbs)))]
        z = rng.uniform(-300, 560)
        centre_x, centre_y, half_x, half_y = (
            np.interp(z, template.LEG_PROFILE[0], c) for c in template.LEG_PROFILE[1:]
        )
        angle = rng.uniform(-0.1, np.pi / 2)  # from the outside of the leg to its front
        at = (z, centre_x + half_x * np.cos(angle), centre_y + half_y * np.sin(angle))
        x, y, z = pose.place(np.array([at]))[0]
        flares.append((float(x), float(y), float(z), float(rng.uniform(25, 45)), float(rng.uniform(*FLARE)) - 1))
    columns = frame.shape[2]
    wraps, side = rng.random() < WRAP, rng.choice((-1.0, 1.0))
    x_mm = side * (rng.uniform(0.42, 0.5)) * columns * frame.spacing_mm[2]
    arm = (float(x_mm), float(rng.uniform(-20, 20)), float(rng.uniform(0.2, 0.6)))
    return Scan(
        stations=stations,
        blend_rows=max(1, min(round(blend_mm / frame.spacing_mm[1]), overlap)),
        bias=(float(rng.uniform(-BIAS_AP, BIAS_AP)), float(rng.uniform(-BIAS_LR, BIAS_LR))),
        flares=tuple(flares),
        ghost=float(rng.uniform(*GHOSTS)),
        ghost_shift=tuple(int(n) for n in rng.uniform(0.15, 0.45, STATIONS) * columns),
        arm=arm if wraps else None,
    )


def paint_wrap(image: np.ndarray, frame: Frame, anatomy: Anatomy, scan: Scan) -> None:
    """Add a wrapped arm from outside the field of view, in place."""
    if scan.arm is None:
        return
    x, y, strength = scan.arm
    nodes = np.array([(x, y, anatomy.trunk.height_mm(z), radius) for z, radius in ARM], float)
    chain = smooth_curve(nodes, step_mm=6)
    folded = np.zeros(image.shape, np.complex64)
    box, _ = paint_tube(folded, frame, chain[:, :3], chain[:, 3], complex(signals.spgr(signals.MUSCLE, 0.1)))
    image[box] += np.complex64(strength) * folded[box]


def acquire(
    image: np.ndarray,
    pulsation: Pulsation,
    frame: Frame,
    scan: Scan,
    difficulty: Difficulty,
    coil: np.random.Generator,
    noise: np.random.Generator,
) -> np.ndarray:
    """Image a noise-free complex volume (S, H, W), which is blurred in place; return the composed int16 volume.

    Noise does not depend on the image, so it is the same for a patient with and without clot.
    """
    _blur_slices(image)
    slices, rows, columns = image.shape
    rest = SmoothField(coil, frame, y_mm=90, z_mm=170, x_mm=150)
    bias_y = 1 + scan.bias[0] * frame.y / np.abs(frame.y).max()
    bias_x = (1 + scan.bias[1] * frame.x / np.abs(frame.x).max()).astype(np.float32)
    flares = [_flare(frame, *flare) for flare in scan.flares]
    # The coils end at the ends of the field of view.
    fade = np.sin(np.pi / 2 * np.clip((frame.z[0] + 20 - np.abs(frame.z)) / 90, 0, 1)).astype(np.float32)[:, None]
    # A station is imaged with a margin, so that its blur does not wrap from one end to the other.
    margin = [_margin(station.rows[1] - station.rows[0]) for station in scan.stations]
    windows = [
        _window(station.rows[1] - station.rows[0] + 2 * m, columns)
        for station, m in zip(scan.stations, margin, strict=True)
    ]
    sources = [
        np.clip(np.arange(station.rows[0] - m, station.rows[1] + m), 0, rows - 1)
        for station, m in zip(scan.stations, margin, strict=True)
    ]
    weights = scan.weights(rows)
    starts = np.searchsorted(pulsation.slices, np.arange(slices + 1))
    stored = np.empty(image.shape, np.int16)
    for s in range(slices):
        sensitivity = np.exp(BIAS_REST * rest.at_slice(s))
        sensitivity *= fade * (bias_x * np.float32(bias_y[s]))
        for box, along_y, around in flares:
            if along_y[s] > FAINT:
                sensitivity[box] *= 1 + along_y[s] * around
        composed = np.zeros((rows, columns), np.float32)
        for number, station in enumerate(scan.stations):
            top, bottom = station.rows
            source = min(max(s + station.shift[0], 0), slices - 1)
            beyond = margin[number]
            seen = np.roll(image[source, sources[number]], station.shift[1], axis=1)
            beat = slice(starts[source], starts[source + 1])
            _add_ghosts(
                seen[beyond : beyond + bottom - top], pulsation, beat, station, scan.ghost, scan.ghost_shift[number]
            )
            height = (np.arange(-beyond, bottom - top + beyond, dtype=np.float32) / ((bottom - top - 1) / 2) - 1)[
                :, None
            ]
            seen *= sensitivity[sources[number]] * (1 - EDGE_DROP * np.minimum(height**4, 1))
            spectrum = scipy.fft.fft2(seen, overwrite_x=True)
            spectrum *= windows[number]
            seen = scipy.fft.ifft2(spectrum, overwrite_x=True)[beyond : beyond + bottom - top]
            hiss = noise.standard_normal((bottom - top, 2 * columns), dtype=np.float32)
            hiss *= difficulty.noise
            seen += hiss.view(np.complex64)
            composed[top:bottom] += (station.gain * weights[number, top:bottom])[:, None] * np.abs(seen)
        composed *= UNIT
        stored[s] = np.rint(np.minimum(composed, np.iinfo(np.int16).max))
    return stored


def _flare(
    frame: Frame, x: float, y: float, z: float, reach: float, more: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Return the rows and columns of a flare, its relative strength in each slice (S,), and its factor minus one."""
    near = np.array((x, y, z))
    _, *box = frame.box(near - 3 * reach, near + 3 * reach)
    across, along, up = (
        np.exp(-((axis - at) ** 2) / (2 * reach**2)).astype(np.float32)
        for axis, at in ((frame.x[box[1]], x), (frame.y, y), (frame.z[box[0]], z))
    )
    return (box[0], box[1]), along, np.float32(more) * np.outer(up, across)


def _blur_slices(image: np.ndarray) -> None:
    """Apply the point spread along S, in place."""
    side = np.float32(np.exp(-0.5 / _sigma_pixels() ** 2))
    centre, side = np.float32(1 / (1 + 2 * side)), np.float32(side / (1 + 2 * side))
    before = image[0].copy()
    for s in range(len(image)):
        now = image[s].copy()
        after = image[min(s + 1, len(image) - 1)]
        image[s] = centre * now + side * (before + after)
        before = now


def _sigma_pixels() -> float:
    return PSF_PIXELS / 2.3548


def _margin(rows: int) -> int:
    """Return the rows to add at both ends of a station: at least a few, up to a length with a fast FFT."""
    return (scipy.fft.next_fast_len(rows + 2 * MARGIN_ROWS + rows % 2) - rows + 1) // 2


def _window(rows: int, columns: int) -> np.ndarray:
    """Return a k-space window, float32 (rows, columns) in FFT order: a blur with a sharp end of sampling."""
    v, u = (np.abs(scipy.fft.fftfreq(n)) for n in (rows, columns))
    blur = np.exp(-2 * (np.pi * _sigma_pixels()) ** 2 * (v[:, None] ** 2 + u**2))
    return (blur * (v[:, None] <= CROP / 2) * (u <= CROP / 2)).astype(np.float32)


def _add_ghosts(
    seen: np.ndarray, pulsation: Pulsation, beat: slice, station: Station, strength: float, shift: int
) -> None:
    """Add weaker copies of the arteries of one slice along W, in place, with wrap-around."""
    top, bottom = station.rows
    rows = pulsation.rows[beat]
    inside = (rows >= top) & (rows < bottom)
    rows, columns = rows[inside] - top, pulsation.columns[beat][inside] + station.shift[1]
    signal = pulsation.signal[beat][inside]
    for order, weaker in ((-2, 0.5), (-1, 1.0), (1, 1.0), (2, 0.5)):
        at = (rows, (columns + order * shift) % seen.shape[1])
        np.add.at(seen, at, np.complex64(strength * weaker) * signal)
