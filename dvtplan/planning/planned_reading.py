"""Read the volumes of a data set as they were read when it was planned."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace, as_workspace
from dvtplan.imaging.nifti_forms import trusting
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocessed_cases import STAGE

F = TypeVar("F", bound=Callable[..., Any])


def read_as_planned(function: F) -> F:
    """Make a function trust the form of NIfTI headers that the data set's plan trusts.

    Its first parameter must be ``workspace``, a workspace or the folder of one.
    """

    @functools.wraps(function)
    def reading(workspace: Workspace | Path | str, *args: Any, **options: Any) -> Any:
        opened = as_workspace(workspace)
        plan = json_records.load(Plan, opened.plan, STAGE) if opened.plan.exists() else None
        with trusting(None if plan is None else plan.trust):
            return function(opened, *args, **options)

    return cast("F", reading)
