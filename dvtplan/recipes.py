"""Named recipes: what decides a training beside plan and fold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dvtplan.errors import DvtError
from dvtplan.records import Recipe

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
