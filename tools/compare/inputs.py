"""What every method needs: a planned data set, and the test cases in folders of their own."""

from __future__ import annotations

from pathlib import Path

from compare.settings import Setup
from dvtplan.data.dataset import Dataset
from dvtplan.data.paths import Workspace
from dvtplan.imaging.volume_names import WRITTEN


def plan(workspace: Workspace) -> None:
    """Plan and preprocess the data set, unless it is planned."""
    if is_planned(workspace):
        return
    from dvtplan.planning.preprocess import plan_and_preprocess

    plan_and_preprocess(workspace.root, workspace.dataset)


def is_planned(workspace: Workspace) -> bool:
    """Return whether a data set has a plan and folds."""
    return workspace.plan.exists() and workspace.splits.exists()


def link_test(setup: Setup, dataset: Dataset) -> None:
    """Link images and true masks of the test cases, which are of this data set, into folders of their own."""
    ending, test = ending_of(dataset), set(setup.fold.test)
    for case in dataset.cases:
        if case.id in test and case.label is not None:
            for channel, image in enumerate(case.images):
                link(image, setup.test_images / f"{case.id}_{channel:04d}{ending}")
            link(case.label, setup.test_labels / f"{case.id}{ending}")


def link(target: Path, place: Path) -> None:
    """Make a link to a file, unless the place exists."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(target.absolute())


def ending_of(dataset: Dataset) -> str:
    """Return the file ending of a data set's images, in lower case."""
    name = dataset.cases[0].images[0].name.lower()
    return next(ending for ending in WRITTEN if name.endswith(ending))
