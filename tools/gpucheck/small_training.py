"""The process of one small training: ``python -m gpucheck.small_training SETTINGS ROOT OPTIONS``.

OPTIONS is JSON: ``resume`` goes on after the last epoch, ``deterministic`` asks for PyTorch's deterministic
algorithms, ``compiled`` compiles.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from dvtplan.data.paths import Workspace
from dvtplan.planning.recipe import override
from dvtplan.training.job import Options
from dvtplan.training.train import train_fold
from gpucheck.settings import Settings

EPOCHS = 6


def main(settings_json: str, root: str, options_json: str) -> None:
    """Train fold 0 of the small cohort under a root, a copy of the prepared one."""
    settings, wanted = Settings.from_json(settings_json), json.loads(options_json)
    if wanted["deterministic"]:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # A guard for reads of such memory, which takes time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    options = Options(device=settings.device, resume=wanted["resume"], compiled=wanted["compiled"])
    recipe = override("paper", epochs=EPOCHS, width=8, norm_groups=8)
    train_fold(Workspace(Path(root), settings.small.dataset), 0, recipe=recipe, options=options)


if __name__ == "__main__":
    main(*sys.argv[1:])
