"""Memory that is freed stays with the process, where the C library can do so."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from dvtplan.core import allocator

FREED = """
import ctypes, resource
from dvtplan.core import allocator
KEEP
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 100 << 20
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_pages_of_a_freed_block_are_used_again() -> None:
    """Every page of 100 MB faults at its first use; at its second only without the setting."""

    def faults(keep: str) -> list[int]:
        code = FREED.replace("KEEP", keep)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return [int(line) for line in done.stdout.split()]

    first, second = faults("allocator.keep_freed_memory()")
    assert second < first / 10
    first, second = faults("")
    assert second > first / 2


def test_a_c_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    allocator.keep_freed_memory()
