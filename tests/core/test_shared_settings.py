"""Settings that worker processes share."""

from __future__ import annotations

from dvtplan.core import shared_settings
from dvtplan.core.shared_settings import using
from dvtplan.core.worker_pool import over_cases


def test_workers_have_the_settings_of_their_pool() -> None:
    """Also where processes are copied from one that an earlier pool prepared."""
    for setting in ("one", None, "two"):
        with using("kind", setting):
            assert over_cases(shared_settings.value, ["kind"] * 2, ["a", "b"], title="Ask", jobs=2) == [setting] * 2
    assert shared_settings.value("kind") is None


def test_a_setting_is_restored_after_its_context_and_after_an_error() -> None:
    with using("kind", "outer"):
        try:
            with using("kind", "inner"):
                raise RuntimeError
        except RuntimeError:
            assert shared_settings.value("kind") == "outer"
