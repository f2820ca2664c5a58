"""Settings, rows and records for the tests of the GPU check."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_check
import pytest
import torch
from bench.inputs import Bench
from bench.results import Row
from gpucheck.record import NAME
from gpucheck.settings import Settings

TOOL = Path(gpu_check.__file__)
GPU_ONLY = {
    "compiled networks",
    "resume, as run",
    "resume modern, as run",
    "collectives, compiled",
    "out of memory",
    "auto",
    "synchronisations",
    "eager",
    "other ways",
}


def settings_of(folder: Path, seconds: float = 600.0) -> Settings:
    return Settings(out=folder, scratch=folder / "scratch", device="cpu", scale="tiny", until=time.time() + seconds)


def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the GPU code on this CPU, as far as it needs no CUDA."""
    for kind in (Settings, Bench):
        monkeypatch.setattr(kind, "on_gpu", property(lambda self: True))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123_000_000)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9))


def row_of(value: float, at_most: float | None = None) -> Row:
    return Row(section="s", what="w", value=value, unit="x", at_most=at_most)


def read(out: Path) -> dict[str, Any]:
    """Read the record; a number that JSON does not have is an error."""

    def refuse(word: str) -> float:
        raise ValueError(word)

    return json.loads((out / NAME).read_text(encoding="utf-8"), parse_constant=refuse)


def alive(out: Path) -> list[str]:
    """Return the processes with a folder in their command line; none if the system does not list processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(out).encode() in words and int(path.parent.name) != os.getpid():
            found.append(words.decode())
    return found
