"""Paint soft tissue (skin, fat, muscle, abdomen) as a noise-free complex image."""

from __future__ import annotations

import numpy as np

from phantom import signals, template
from phantom.anatomy import Anatomy, Pose
from phantom.grid import Frame, SmoothField
from phantom.signals import Look

SEPTUM_MM = 0.9
"""Thickness of fat between two muscle bellies."""
SWELL = (
    (-420, -380, -300, -200, -110, -50, 30, 90, 160, 320, 400, 450, 520, 580),
    (-0.1, -0.02, 0.06, 0.16, 0.14, 0.03, 0.0, 0.06, 0.2, 0.22, 0.16, 0.2, 0.3, 0.4),
)
"""Template z, and how far bellies fill the space between them: little around joints, fully elsewhere."""
RUN_OUT_MM = 45.0
"""Length over which a belly ends beyond its last node."""
SKIN_MM = 1.6
FASCICLE = 0.1
"""Standard deviation of the texture of muscle, relative to its signal."""
ROUND_MM = 12.0
"""Width of the smooth transition from leg to trunk."""
BELLY_MM = 2.9
"""Step along the legs at which muscle bellies are computed."""
ALONG_MM = 6.0
"""Step along the legs at which the outline is computed; it is linear in between."""


def paint_tissue(frame: Frame, anatomy: Anatomy, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Return skin, fat, muscle and bowel, complex64 (S, H, W); ``rng`` draws the textures only."""
    image = np.empty(frame.shape, np.complex64)
    fibres = SmoothField(rng, frame, y_mm=3.5, z_mm=16, x_mm=3.5)
    warp = SmoothField(rng, frame, y_mm=30, z_mm=90, x_mm=30)
    gut = SmoothField(rng, frame, y_mm=11, z_mm=13, x_mm=13)
    bellies = [_Bellies(pose, frame, rng) for pose in anatomy.limbs.values()]
    outline = _Outline(anatomy, frame)
    trunk_z = anatomy.trunk.template_z(frame.z)
    abdomen = frame.z > anatomy.trunk.height_mm(template.CAVITY_PROFILE[0][0])
    above = slice(0, int(np.count_nonzero(abdomen)))
    fat_mm = (anatomy.fat_mm * np.interp(trunk_z, *template.FAT_PROFILE)).astype(np.float32)[:, None]
    swell = np.interp(trunk_z, *SWELL).astype(np.float32)[:, None]
    muscle, fat, skin = look.muscle_signal(), look.fat_signal().imag, float(signals.spgr(signals.SKIN, 0.1).real)
    per_voxel = np.float32(1 / frame.voxel_mm)
    fat_depth, skin_depth = fat_mm * per_voxel, np.float32(SKIN_MM) * per_voxel
    for s in range(frame.shape[0]):
        depth = outline.depth(s) * per_voxel
        depth += np.float32(0.5)
        lean = np.clip(depth - fat_depth, 0, 1)
        under_skin = np.clip(depth - skin_depth, 0, 1)
        body = np.clip(depth, 0, 1, out=depth)
        bend = warp.at_slice(s)
        meat, tone = np.zeros(body.shape, np.float32), np.ones(body.shape, np.float32)
        for belly in bellies:
            belly.claim(s, bend, swell, meat, tone)
        if above.stop:
            _abdomen(anatomy.trunk, frame, s, above, gut.at_slice(s, above), meat, tone)
        meat *= lean
        # water = muscle * meat * tone * (1 + FASCICLE * texture) + skin * (body - under_skin)
        water = fibres.at_slice(s)
        water *= np.float32(FASCICLE * muscle)
        water += np.float32(muscle)
        water *= tone
        water *= meat
        body -= under_skin
        body *= np.float32(skin)
        water += body
        image[s].real = water
        # lipid = fat * (under_skin - meat) * (1 + 0.04 * bend)
        under_skin -= meat
        bend *= np.float32(0.04 * fat)
        bend += np.float32(fat)
        under_skin *= bend
        image[s].imag = under_skin
    return image


class _Outline:
    """Depth below the skin, computed from elliptic sections of both legs and the trunk."""

    def __init__(self, anatomy: Anatomy, frame: Frame) -> None:
        stride = max(1, round(ALONG_MM / frame.spacing_mm[1]))
        rows = np.unique(np.append(np.arange(0, len(frame.z), stride), len(frame.z) - 1))
        self._z = frame.z[rows]
        at = np.arange(len(frame.z))
        low = np.clip(np.searchsorted(rows, at, side="right") - 1, 0, len(rows) - 2)
        self._low, self._high = low, low + 1
        self._share = ((at - rows[low]) / (rows[low + 1] - rows[low])).astype(np.float32)[:, None]
        self._limbs = [_Section(pose, template.LEG_PROFILE, self._z, frame) for pose in anatomy.limbs.values()]
        self._trunk = _Section(anatomy.trunk, template.TRUNK_PROFILE, self._z, frame)
        midline = np.asarray(anatomy.trunk.midline_mm(self._z))[:, None]
        arch = template.PERINEUM_Z_MM - np.minimum((frame.x - midline) ** 2 / 12, 150)
        fade = 0.8 * np.maximum(arch - anatomy.trunk.template_z(self._z)[:, None], 0)
        self._fade = fade.astype(np.float32)

    def depth(self, s: int) -> np.ndarray:
        """Return the depth of one slice in mm, float32 (H, W), negative in air."""
        legs = np.maximum(*(section.depth(s) for section in self._limbs))
        trunk = self._trunk.depth(s) - self._fade
        # A smooth maximum; the plain one leaves a sharp edge between leg and trunk.
        apart = legs - trunk
        mix = np.clip(0.5 + apart / (2 * ROUND_MM), 0, 1)
        coarse = trunk + mix * apart + ROUND_MM * mix * (1 - mix)
        fine = coarse[self._low]
        fine += self._share * (coarse[self._high] - fine)
        return fine


class _Section:
    """A limb or the trunk as a stack of ellipses at the given heights."""

    def __init__(self, pose: Pose, profile: tuple[tuple[float, ...], ...], z_mm: np.ndarray, frame: Frame) -> None:
        heights, *columns = profile
        z = pose.template_z(z_mm)
        centre_x, centre_y, half_x, half_y = (np.interp(z, heights, column) for column in columns)
        centre = pose.place(np.stack([z, centre_x, centre_y], axis=1))
        self.half_x, self.half_y = (pose.scale * half_x)[:, None], (pose.scale * half_y)[:, None]
        self.across = ((frame.x - centre[:, :1]) / self.half_x).astype(np.float32)
        self.along = ((frame.y - centre[:, 1:2]) / self.half_y).astype(np.float32)
        self._radius = np.minimum(self.half_x, self.half_y).astype(np.float32)
        self._sole = (pose.scale * (z - heights[0])).astype(np.float32)[:, None]

    def depth(self, s: int) -> np.ndarray:
        """Return the depth, float32 (heights, W); exact along the shorter axis of the ellipse."""
        radius = np.sqrt(self.across**2 + self.along[:, s : s + 1] ** 2)
        return np.minimum((1 - radius) * self._radius, self._sole)


class _Bellies:
    """The muscles of a leg: a power diagram of ``template.MUSCLES`` in each section."""

    def __init__(self, pose: Pose, frame: Frame, rng: np.random.Generator) -> None:
        self._stride = max(1, round(BELLY_MM / frame.spacing_mm[1]))
        z_mm = frame.z[:: self._stride]
        self._section = _Section(pose, template.LEG_PROFILE, z_mm, frame)
        self._side = pose.side
        z = pose.template_z(z_mm)
        self._mine = pose.side * (frame.x - np.asarray(pose.midline_mm(frame.z))[:, None]) >= 0
        inside = self._mine[:: self._stride] & (np.abs(self._section.across) < 1.1)
        lateral = np.flatnonzero(inside.any(axis=0))
        self._columns = slice(lateral[0], lateral[-1] + 1) if len(lateral) else slice(0, 0)
        self._mine = self._mine[:, self._columns]
        self._bellies = []
        for nodes in template.MUSCLES.values():
            heights, lateral_at, anterior, radius = np.array(sorted(nodes)).T
            tone = float(np.clip(rng.normal(1, 0.05), 0.85, 1.15))
            place = rng.normal(0, 0.025, 2)
            heights = np.concatenate([[heights[0] - RUN_OUT_MM], heights, [heights[-1] + RUN_OUT_MM]])
            lateral_at, anterior = (np.pad(column, 1, "edge") for column in (lateral_at, anterior))
            strength = np.pad(radius**2, 1, constant_values=-0.3)
            rows = np.flatnonzero((z >= heights[0]) & (z <= heights[-1]))
            if not len(rows):
                continue
            part = slice(rows[0], rows[-1] + 1)
            a = np.interp(z[part], heights, lateral_at) + place[0]
            b = np.interp(z[part], heights, anterior) + place[1]
            power = np.interp(z[part], heights, strength) - a**2 - b**2
            columns = [column.astype(np.float32)[:, None] for column in (2 * a, 2 * b, power)]
            self._bellies.append((part, *columns, np.float32(tone)))
        in_mm = 0.5 * (self._section.half_x + self._section.half_y).astype(np.float32)
        width = max(SEPTUM_MM, 0.7 * frame.voxel_mm)
        self._per_septum = in_mm / np.float32(width)
        self._septum = np.float32(min(1.0, SEPTUM_MM / width))
        # A claim decreases by about one per half width; this is the inverse of its decrease over a voxel.
        self._per_voxel = in_mm / np.float32(frame.voxel_mm)

    def claim(self, s: int, bend: np.ndarray, swell: np.ndarray, meat: np.ndarray, tone: np.ndarray) -> None:
        """Write this leg's share of muscle into ``meat`` (H, W) and its brightness into ``tone``, in place.

        Bellies run along the leg, so only rows ``BELLY_MM`` apart are computed; the rows between repeat them.
        """
        columns, stride = self._columns, self._stride
        bend, swell = bend[::stride, columns], swell[::stride]
        u = np.float32(0.05) * bend
        u += self._side * self._section.across[:, columns]
        v = np.float32(-0.04) * bend
        v -= self._section.along[:, s : s + 1]
        best = np.full(u.shape, -9, np.float32)
        second, tones = best.copy(), np.ones(u.shape, np.float32)
        for part, two_a, two_b, power, its_tone in self._bellies:
            claim = two_a * u[part]
            claim += two_b * v[part]
            claim += power
            ahead = claim > best[part]
            np.maximum(second[part], np.minimum(best[part], claim), out=second[part])
            np.copyto(best[part], claim, where=ahead)
            np.copyto(tones[part], its_tone, where=ahead)
        u *= u
        v *= v
        u += v
        septum = best - np.maximum(second, u - 9)
        septum *= self._per_septum
        septum *= septum
        np.exp(-septum, out=septum)
        septum *= -self._septum
        septum += 1
        best -= u
        np.maximum(best, np.minimum(swell, 0.3) - 0.6, out=best)
        best += swell
        best *= self._per_voxel
        best += 0.5
        np.clip(best, 0, 1, out=best)
        best *= septum
        rows = len(meat)
        np.copyto(meat[:, columns], np.repeat(best, stride, axis=0)[:rows], where=self._mine)
        np.copyto(tone[:, columns], np.repeat(tones, stride, axis=0)[:rows], where=self._mine)


def _abdomen(
    trunk: Pose, frame: Frame, s: int, rows: slice, gut: np.ndarray, meat: np.ndarray, tone: np.ndarray
) -> None:
    """Turn the inside of the trunk into fat and bowel, in place."""
    heights, centre_y, half_x, half_y = template.CAVITY_PROFILE
    z_mm = frame.z[rows]
    z = trunk.template_z(z_mm)
    centre = trunk.place(np.stack([z, np.zeros_like(z), np.interp(z, heights, centre_y)], axis=1))
    across = (frame.x - centre[:, :1]) / (trunk.scale * np.interp(z, heights, half_x))[:, None]
    along = (frame.y[s] - centre[:, 1:2]) / (trunk.scale * np.interp(z, heights, half_y))[:, None]
    radius = np.sqrt(across**2 + along**2)
    inside = np.clip((1 - radius) * 12, 0, 1).astype(np.float32)
    loops = np.clip(1.5 * gut, 0, 1)
    meat[rows] += inside * (loops - meat[rows])
    # The wall of a bowel loop takes up contrast; its content does not.
    tone[rows] += inside * (1.9 - 0.9 * np.clip(1.2 * gut, 0, 1.6) - tone[rows])
