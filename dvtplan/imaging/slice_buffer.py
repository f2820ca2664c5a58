"""Slices on disk in a file without a name: a volume's worth of memory for the price of one slice.

The file vanishes with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.core.files import cannot_write


class SliceBuffer:
    """A (S, H, W) array, written slice after slice and read in blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise DvtError(cannot_write(folder, error)) from error
        self._count = 0
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    def append(self, slices: Iterable[np.ndarray]) -> None:
        """Add slices of one shape and type.

        Raises:
            DvtError: if the disk is full.
        """
        try:
            for one in slices:
                self._shape, self._dtype = one.shape, one.dtype
                self._file.write(np.ascontiguousarray(one).tobytes())
                self._count += 1
            self._file.flush()
        except OSError as error:
            raise DvtError(cannot_write(self._folder, error)) from error

    def __len__(self) -> int:
        return self._count

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Slices start to stop as one array; all of them by default."""
        stop = self._count if stop is None else min(stop, self._count)
        each = int(np.prod(self._shape)) * self._dtype.itemsize
        self._file.seek(start * each)
        data = self._file.read((stop - start) * each)
        self._file.seek(0, 2)
        return np.frombuffer(data, self._dtype).reshape(stop - start, *self._shape)

    def read_into(self, slices: np.ndarray) -> None:
        """All slices, one after the other, into an array or a view of one."""
        for s in range(self._count):
            slices[s] = self.read(s, s + 1)[0]

    def close(self) -> None:
        """Give the disk space back."""
        # A full disk fails once more here, for the bytes that wait in the buffer: they are not wanted.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> SliceBuffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
