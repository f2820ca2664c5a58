"""A buffer of slices in a temporary file, so that a volume needs the memory of one slice.

The file has no name, and disappears with the process.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dvtplan.core.errors import WriteFailed, cannot_write


class SliceBuffer:
    """An array (S, H, W) on disk, written slice by slice and read in blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise WriteFailed(cannot_write(folder, error)) from error
        self._count = 0
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    def append(self, slices: Iterable[np.ndarray]) -> None:
        """Append slices (H, W) of one shape and type.

        Raises:
            WriteFailed: if the disk is full.
        """
        try:
            for slice_HW in slices:
                self._shape, self._dtype = slice_HW.shape, slice_HW.dtype
                self._file.write(np.ascontiguousarray(slice_HW).tobytes())
                self._count += 1
            self._file.flush()
        except OSError as error:
            raise WriteFailed(cannot_write(self._folder, error)) from error

    def __len__(self) -> int:
        return self._count

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the slices from start to stop, all by default, as an array (S, H, W)."""
        stop = self._count if stop is None else min(stop, self._count)
        each = int(np.prod(self._shape)) * self._dtype.itemsize
        self._file.seek(start * each)
        data = self._file.read((stop - start) * each)
        self._file.seek(0, 2)
        return np.frombuffer(data, self._dtype).reshape(stop - start, *self._shape)

    def read_into(self, slices: np.ndarray) -> None:
        """Copy all slices into an array (S, H, W), which may be a view."""
        for s in range(self._count):
            slices[s] = self.read(s, s + 1)[0]

    def close(self) -> None:
        """Remove the file."""
        # On a full disk closing fails again, for buffered bytes that are not needed.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> SliceBuffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
