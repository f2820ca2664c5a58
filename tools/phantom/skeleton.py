"""Bones, discs, tendons and organs, painted over soft tissue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phantom import signals, template
from phantom.anatomy import Anatomy, Pose
from phantom.grid import Frame
from phantom.shapes import paint_tube, rasterise, smooth_curve
from phantom.signals import Look


def paint_bones(image: np.ndarray, frame: Frame, anatomy: Anatomy, look: Look) -> None:
    """Paint bones, discs, tendons and organs in place."""
    _paint_skeleton(image, frame, anatomy, look)
    _paint_organs(image, frame, anatomy, look.muscle_signal())


def _paint_skeleton(image: np.ndarray, frame: Frame, anatomy: Anatomy, look: Look) -> None:
    cortex = complex(signals.spgr(signals.CORTEX))
    red = complex(signals.spgr(signals.MARROW_RED)) * 0.6
    yellow = look.fat * complex(signals.spgr(signals.MARROW_YELLOW))
    for pose, bones in (
        (anatomy.trunk, template.TRUNK_BONES),
        *((p, template.LEG_BONES) for p in anatomy.limbs.values()),
    ):
        chains = []
        for spheres in bones:
            nodes = np.array(spheres, float)
            nodes = np.column_stack([pose.place(nodes[:, :3]), pose.scale * nodes[:, 3:]])
            # A distance of a third of a radius leaves ripples of 1-2 % of the radius.
            chains.append(smooth_curve(nodes, step_mm=max(float(nodes[:, 3].min()) / 3, 1.5)))
        # All shells before any marrow, so that chains that overlap in one bone are not divided by a shell.
        for chain in chains:
            paint_tube(image, frame, chain[:, :3], chain[:, 3], cortex)
        for chain in chains:
            height = pose.template_z(chain[:, 2])
            redness = np.interp(height, (300, 480), (0.05, 0.5))
            marrow = (1 - redness) * yellow + redness * red
            paint_tube(image, frame, chain[:, :3], chain[:, 3] - chain[:, 4], marrow)
    _paint_discs(image, frame, anatomy.trunk)


def _paint_discs(image: np.ndarray, frame: Frame, trunk: Pose) -> None:
    """Divide the lumbar spine into vertebrae by painting the discs between them."""
    nodes = np.array(template.LUMBAR_SPINE, float)
    nodes = np.column_stack([trunk.place(nodes[:, :3]), trunk.scale * (nodes[:, 3] - nodes[:, 4])])
    chain = smooth_curve(nodes, step_mm=3)
    box, depth, _ = rasterise(frame, chain[:, :3], chain[:, 3])
    z = trunk.template_z(frame.z[box[1]])
    lowest, step = template.DISCS_Z_MM[0], template.DISCS_Z_MM[1] - template.DISCS_Z_MM[0]
    between = (z >= lowest) & ((z - lowest) % step < template.DISC_MM)
    image[box][(depth >= 0) & between[None, :, None]] = complex(signals.spgr(signals.DISC))


def _paint_organs(image: np.ndarray, frame: Frame, anatomy: Anatomy, muscle: float) -> None:
    tendon = complex(signals.spgr(signals.TENDON))
    for pose in anatomy.limbs.values():
        for cord in template.TENDONS:
            _paint_chain(image, frame, pose, cord, tendon)
    kidney, urine = complex(signals.spgr(signals.MUSCLE, 0.7)), complex(signals.spgr(signals.FLUID))
    for pose in anatomy.limbs.values():
        for organ, signal in ((template.PSOAS, muscle), (template.KIDNEY, kidney)):
            _paint_chain(image, frame, replace(anatomy.trunk, side=pose.side), organ, signal)
    _paint_chain(image, frame, anatomy.trunk, template.BLADDER, urine)


def _paint_chain(
    image: np.ndarray, frame: Frame, pose: Pose, spheres: tuple[tuple[float, ...], ...], signal: complex
) -> None:
    nodes = np.array(spheres, float)
    chain = smooth_curve(np.column_stack([pose.place(nodes[:, :3]), pose.scale * nodes[:, 3]]), step_mm=5)
    paint_tube(image, frame, chain[:, :3], chain[:, 3], signal)
