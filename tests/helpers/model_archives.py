"""Model archives to read and to tamper with."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvtplan.core import verified_archive
from dvtplan.inference.model import Model, load_model
from dvtplan.models import devices, model_store

CPU = devices.choose("cpu")


def members_of(path: Path) -> dict[str, bytes]:
    """Read every member but the manifest."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != verified_archive.MANIFEST}


def load(path: Path, **how: Any) -> Model:
    """Load a model for the CPU."""
    return load_model(path, setup=CPU, **how)


def rebuilt(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write an archive whose digests fit, as one would make it who knows the format."""
    with verified_archive.write_archive(path, model_store.KIND) as archive:
        for name, content in members.items():
            archive.add(name, content)
    return path
