"""Describe the machine of the measurements."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path

import torch
import torch.distributed

from dvtplan import __version__
from dvtplan.models import devices

PACKAGES = ("dvtplan", "torch", "triton", "numpy", "scipy", "SimpleITK", "pandas")
ROOT = Path(__file__).parents[2]


def describe(device: str) -> dict[str, object]:
    """Return processor, memory, accelerator, versions, commit and date."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": devices.processor(),
        "memory_gib": _memory_gib(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        **(_gpu(device) if device.startswith("cuda") else {}),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _gpu(device: str) -> dict[str, object]:
    """Return memory, generation and software of a CUDA GPU."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpus": torch.cuda.device_count(),
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None,
    }


def _driver() -> str:
    """Return the version of NVIDIA's driver, or 'unknown'."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (shown.stdout.strip().splitlines() or ["unknown"])[0]


def _version(package: str) -> str | None:
    """Return the installed version of a package; dvtplan need not be installed."""
    if package == "dvtplan":
        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _commit() -> str:
    """Return the current commit, with a plus if files differ from it; 'unknown' without git."""
    try:
        named = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return named.stdout.strip()
