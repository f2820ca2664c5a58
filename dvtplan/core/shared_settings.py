"""Settings of a run that all its functions and worker processes share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_settings: dict[str, str] = {}


def value(name: str) -> str | None:
    """Return a setting, or None if it is not set."""
    return _settings.get(name)


@contextlib.contextmanager
def using(name: str, setting: str | None) -> Iterator[None]:
    """Set a value inside the context; None changes nothing."""
    before = dict(_settings)
    if setting is not None:
        _settings[name] = setting
    try:
        yield
    finally:
        restore(before)


def snapshot() -> dict[str, str]:
    """Return all settings, for ``restore`` in another process."""
    return dict(_settings)


def restore(settings: dict[str, str]) -> None:
    """Replace all settings by those of a ``snapshot``."""
    _settings.clear()
    _settings.update(settings)
