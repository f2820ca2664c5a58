"""Recipe and the named recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from dvtplan.core.errors import DvtError, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training beside the plan, the fold and the network's shape.

    The defaults are the recipe `paper`; what the paper leaves open is marked "ours".
    """

    name: str = "paper"
    """What it is called; of a changed one, which fields were."""
    epochs: int = 250
    """Passes over the training slices, each in one random variant (section 2.4)."""
    batch_size: int = 2
    """Slices per step, over all processes together (section 2.4)."""
    learning_rate: float = 1e-3
    """Adam's step size at the start (section 2.4)."""
    lr_drops: tuple[float, ...] = (0.6, 0.85)
    """Fractions of the epochs after which the learning rate falls (ours)."""
    lr_factor: float = 0.1
    """What it is multiplied with: the paper's "gamma 0.1" in the solver's sense (our reading)."""
    beta1: float = 0.9
    """Adam's first moment decay, the paper's "momentum" (section 2.4)."""
    focal_gamma: float = 2.0
    """Focusing exponent (Lin et al. 2017; the paper gives none)."""
    focal_alpha: float | None = None
    """Weight of the foreground, 1 - alpha for the background; none: both weigh 1 (ours)."""
    oversampling: float = 0.0
    """Share of the slices of an epoch that are drawn anew from those with lesions, every label equally
    often; 0: every slice comes once (ours)."""
    norm_groups: int = 32
    """Groups of a group normalization (Keras' default; the paper gives none)."""
    width: int = 32
    """Channels of the first level; 32 gives the paper's "about 7.8 million" parameters."""
    target: str = "auto"
    """'lesion' trains the union of all labels, 'labels' a class each; 'auto' is 'lesion' for a single
    label and for proximal/distal, which differ by place and not by look, else 'labels'."""
    seed: int = 0
    """Decides initial weights, the order of slices and their variants."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}")
        require(self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}")
        for name in ("learning_rate", "lr_factor", "focal_gamma"):
            value = getattr(self, name)
            require(math.isfinite(value), f"{name} must be finite, not {value}")
        require(self.learning_rate > 0, f"learning_rate must be positive, not {self.learning_rate}")
        require(
            all(0 < f < 1 for f in self.lr_drops) and list(self.lr_drops) == sorted(self.lr_drops),
            f"lr_drops must rise within 0..1, not {self.lr_drops}",
        )
        require(self.lr_factor > 0, f"lr_factor must be positive, not {self.lr_factor}")
        require(0 <= self.beta1 < 1, f"beta1 must lie in [0, 1), not {self.beta1}")
        require(self.focal_gamma >= 0, f"focal_gamma must not be negative, not {self.focal_gamma}")
        require(
            self.focal_alpha is None or 0 < self.focal_alpha < 1,
            f"focal_alpha must lie in (0, 1) or be none, not {self.focal_alpha}",
        )
        require(0 <= self.oversampling <= 1, f"oversampling must lie in [0, 1], not {self.oversampling}")
        require(self.width >= 1 and self.norm_groups >= 1, "width and norm_groups must be at least 1")
        require(
            self.width % self.norm_groups == 0,
            f"norm_groups {self.norm_groups} must divide width {self.width}",
        )
        require(self.seed >= 0, f"seed must not be negative, not {self.seed}")
        require(
            self.target in ("auto", "lesion", "labels"),
            f"target must be 'auto', 'lesion' or 'labels', not {self.target!r}",
        )
        require(self.seed >= 0, f"seed must not be negative, not {self.seed}")

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate during an epoch, counted from 0."""
        passed = sum(epoch >= round(f * self.epochs) for f in self.lr_drops)
        return self.learning_rate * self.lr_factor**passed


RECIPES = {
    "paper": Recipe(),
    "quick": Recipe(name="quick", epochs=60, batch_size=4, lr_drops=(0.75, 0.92), focal_alpha=0.75, oversampling=0.5),
}
"""By name. `quick` is the same method at a budget for a laptop: fewer epochs, a learning rate that
stays high for longer, foreground that weighs three times the background, without which few steps
find little of a sparse lesion (phantom `tiny`, seed 0, 432 steps: DSC .53 against .35), and half of
an epoch drawn from slices with lesions, proximal and distal as often: where every slice comes once,
a tenth of what is seen holds distal thrombus, of few voxels each (phantom `tiny`, 40 test patients of
two folds, 1080 steps, 2026-11-25: distal DSC .11 against .06, both together .54 against .53)."""


def override(name: str, **fields: Any) -> Recipe:
    """A named recipe with some fields changed; its name says which.

    Raises:
        DvtError: if a value is illegal.
    """
    changed = f"{name} with {', '.join(fields)}" if fields else name
    try:
        return replace(RECIPES[name], **fields, name=changed)
    except ValueError as error:
        raise DvtError(f"recipe: {error}. Mend that option.") from error
