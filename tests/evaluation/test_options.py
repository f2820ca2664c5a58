"""Options of an evaluation, and what the command line makes of their messages."""

from __future__ import annotations

from typing import Any

import pytest

from dvtplan.cli.runner import for_command_line
from dvtplan.core.errors import DvtError
from dvtplan.evaluation.options import EvaluationOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_rule": "identity"}, "--region-rule identity: not a valid choice. Choose from auto, by-label, level."),
        ({"tolerance_mm": -1.0}, "tolerance_mm -1.0: expected 0 or more"),
        ({"tolerance_mm": float("nan")}, "tolerance_mm nan"),
        ({"tolerance_mm": float("inf")}, "tolerance_mm inf"),
    ],
)
def test_an_invalid_option_is_refused_by_its_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DvtError) as refused:
        EvaluationOptions(**options)
    assert for_command_line(str(refused.value)).startswith(message)
