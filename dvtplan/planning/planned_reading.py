"""Read the volumes of a data set as they were read when it was planned."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace, as_workspace
from dvtplan.imaging.nifti_forms import trusting
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocessed_cases import STAGE

P = ParamSpec("P")
R = TypeVar("R")


def read_as_planned(
    function: Callable[Concatenate[Workspace | Path | str, P], R],
) -> Callable[Concatenate[Workspace | Path | str, P], R]:
    """Make a function of a workspace trust the form of NIfTI headers that the data set's plan trusts."""

    @functools.wraps(function)
    def reading(workspace: Workspace | Path | str, /, *args: P.args, **options: P.kwargs) -> R:
        opened = as_workspace(workspace)
        plan = json_records.load(Plan, opened.plan, STAGE) if opened.plan.exists() else None
        with trusting(None if plan is None else plan.trust):
            return function(opened, *args, **options)

    return reading
