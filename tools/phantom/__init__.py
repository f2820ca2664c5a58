"""A synthetic CE-MR venography cohort of leg vein thrombosis: docs/phantom.md says what is modelled.

Two frames, in mm. *Patient* positions are LPS (x, y, z), z = 0 at the centre of the volume. *Template*
positions describe one leg as (z up from the knee joint line, x lateral from the midline, y up from the
table). Voxel arrays are (S, H, W): S anterior to posterior, H superior to inferior, W the patient's right
to left, a coronal volume. Everything is drawn in mm and sampled last, so a seed gives nearly the same
patient at every scale.
"""

from __future__ import annotations

VERSION = "1.1"
"""Version of the generator. Equal versions, seeds and options give equal voxels."""
