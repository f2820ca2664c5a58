"""Run one small training: ``python -m gpucheck.small_training SETTINGS ROOT OPTIONS``.

OPTIONS is JSON: ``resume`` continues after the last epoch, ``deterministic`` selects PyTorch's deterministic
algorithms, ``compiled`` compiles the network, ``recipe`` is the name of a recipe.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from dvtplan.data.paths import Workspace
from dvtplan.planning.recipe import override
from dvtplan.training.job import TrainingOptions
from dvtplan.training.train import train_fold
from gpucheck.settings import Settings

EPOCHS = 6
SMALL: dict[str, object] = {"patch": "64x32", "batch_size": 4}
"""Changes of the recipe `modern` for the small cohort."""


def main(settings_json: str, root: str, options_json: str) -> None:
    """Train fold 0 of the small cohort under a root, a copy of the prepared one."""
    settings, chosen = Settings.from_json(settings_json), json.loads(options_json)
    if chosen["deterministic"]:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It only guards against reads of uninitialized memory, and takes time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    options = TrainingOptions(device=settings.device, resume=chosen["resume"], compiled=chosen["compiled"])
    small = SMALL if chosen["recipe"] == "modern" else {}
    recipe = override(chosen["recipe"], epochs=EPOCHS, width=8, norm_groups=8, **small)
    train_fold(Workspace(Path(root), settings.small.dataset), 0, recipe=recipe, options=options)


if __name__ == "__main__":
    main(*sys.argv[1:])
