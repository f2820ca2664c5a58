"""Messages of refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dvtplan.core.errors import DvtError


def refused(act: Callable[[], object]) -> str:
    """Return the message of the error, which is one line."""
    with pytest.raises(DvtError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def printable_refusal(act: Callable[[], object]) -> str:
    """Return the message of the error, which is one line that a terminal can show."""
    with pytest.raises(DvtError) as caught:
        act()
    assert str(caught.value).isprintable()
    return str(caught.value)
