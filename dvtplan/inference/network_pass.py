"""Run the networks on one case, block by block: slices in, probabilities and mask values out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import Case
from dvtplan.findings import lesion_confidence
from dvtplan.imaging import volume_checks, volume_io
from dvtplan.imaging.geometry import Grid, Reorientation, to_slice_order
from dvtplan.imaging.normalize import limits
from dvtplan.imaging.resize import triangle, weights
from dvtplan.imaging.slice_buffer import SliceBuffer
from dvtplan.inference.model import Model, slices_at_once
from dvtplan.inference.postprocessing import decide
from dvtplan.inference.tiles import predict_by_tiles
from dvtplan.models.devices import DeviceConfig
from dvtplan.planning import measurement, slice_preprocessing
from dvtplan.planning.fingerprint import ChannelFingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCase:
    """One case with its channels in slice buffers."""

    path: Path
    """Of the first image, for messages."""
    grid: Grid
    """Of the image files."""
    order: Reorientation
    """From file order to slice order."""
    channels: tuple[SliceBuffer, ...]
    """In slice order."""
    bounds: tuple[np.ndarray, ...]
    """Per channel and slice, the intensities that become 0 and 1."""
    intensities: tuple[ChannelFingerprint, ...]
    """Measured per channel; empty if the model has no training ranges."""

    @property
    def slice_grid(self) -> Grid:
        """The grid in slice order."""
        return self.order.grid(self.grid)


def open_case(case: Case, scratch: Path, model: Model, stack: contextlib.ExitStack) -> OpenedCase:
    """Read and check a case, and write its channels to slice buffers.

    Args:
        case: the case.
        scratch: folder of the buffers.
        model: the model.
        stack: closes the buffers.

    Raises:
        DvtError: if an image cannot be read or is not finite, or channels have different grids.
    """
    grid: Grid | None = None
    channels, bounds, intensities = [], [], []
    for image_path in case.images:
        array, own_grid = volume_io.read(image_path)
        faults = [*volume_checks.image_faults(image_path, array, may_be_mask=grid is not None)]
        if grid is not None:
            faults += volume_checks.grid_faults(image_path, own_grid, case.images[0], grid)
        if faults:
            raise DvtError("\n".join(faults))
        grid = grid or own_grid
        if model.training is not None:
            intensities.append(measurement.channel(array, own_grid))
        sliced = to_slice_order(grid, model.plan.slice_axis).apply(array)
        bounds.append(limits(sliced, model.plan.normalization))
        buffer = stack.enter_context(SliceBuffer(scratch))
        buffer.append(sliced)
        channels.append(buffer)
        del array, sliced
    if grid is None:
        raise ValueError(f"case {case.id} has no image")
    return OpenedCase(
        path=case.images[0],
        grid=grid,
        order=to_slice_order(grid, model.plan.slice_axis),
        channels=tuple(channels),
        bounds=tuple(bounds),
        intensities=tuple(intensities),
    )


def probabilities(
    opened: OpenedCase, model: Model, *, with_votes: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield probabilities and votes block by block, on the native in-plane grid.

    Yields:
        Mean probabilities of the foreground classes, float32 (B, classes, H, W), and votes, unsigned (B, H, W): bit
        k is set where fold k alone would segment by the threshold of the model. Votes are None without ``with_votes``
        and for a single fold.

    Raises:
        DvtError: if a network's output is not a number.
    """
    with_votes = with_votes and len(model.networks) > 1
    shape, device = model.plan.target_shape, model.setup.device
    count, native = len(opened.channels[0]), opened.channels[0].read(0, 1).shape[1:]
    rows, columns = (
        torch.from_numpy(weights(n_in, n_out, triangle).toarray().astype(np.float32)).to(device)
        for n_in, n_out in zip(shape, native, strict=True)
    )
    block = slices_at_once(shape, device)
    reader = _SliceReader(opened, shape, model.context)
    for start, stop in console.progress_in_blocks(count, block, "slices", leave=False):
        image = reader.block(start, stop)
        with torch.inference_mode():
            total, votes = torch.zeros((), device=device), None
            for k, probability in enumerate(_fold_probabilities(torch.from_numpy(image).to(device), model)):
                total = total + probability
                if with_votes:
                    alone = decide((rows @ probability @ columns.T).cpu().numpy(), model.rule.threshold) != 0
                    bits = alone.astype(lesion_confidence.vote_type(len(model.networks))) << k
                    votes = bits if votes is None else votes | bits
            native_BKHW = (rows @ (total / len(model.networks)) @ columns.T).cpu().numpy()
            if np.isnan(native_BKHW.sum()):  # would be written as background
                raise DvtError(
                    f"{opened.path}: the network gives no numbers for slices {start} to {stop - 1}, counted from 0. "
                    "Predict with `precision=fp32`; if that fails, too, train the network again."
                )
            yield native_BKHW, votes


class _SliceReader:
    """Read slices as the networks take them. Those that are neighbours of the next block are kept."""

    def __init__(self, opened: OpenedCase, shape: tuple[int, int], context: int) -> None:
        self._opened, self._shape, self._context = opened, shape, context
        self._kept: dict[int, np.ndarray] = {}

    def block(self, start: int, stop: int) -> np.ndarray:
        """Return slices start to stop with their neighbours as further channels, float32 (B, C (2 context + 1), h, w).

        Beyond the first and the last slice, that slice is repeated, as in training.
        """
        k, last = self._context, len(self._opened.channels[0]) - 1
        seen = [[min(max(n, 0), last) for n in range(s - k, s + k + 1)] for s in range(start, stop)]
        needed = sorted({n for numbers in seen for n in numbers})
        self._kept = {n: self._kept[n] if n in self._kept else self._read(n) for n in needed}
        return np.stack([np.concatenate([self._kept[n] for n in numbers]) for numbers in seen])

    def _read(self, number: int) -> np.ndarray:
        """Return all channels of a slice, normalized and resized, float32 (C, h, w)."""
        pairs = zip(self._opened.channels, self._opened.bounds, strict=True)
        return np.stack(
            [
                slice_preprocessing.preprocess_slice(buffer.read(number, number + 1)[0], bounds[number], self._shape)
                for buffer, bounds in pairs
            ]
        )


def _fold_probabilities(image_BCHW: torch.Tensor, model: Model) -> Iterator[torch.Tensor]:
    """Yield each fold's probabilities of the foreground classes, float32 (B, classes, h, w)."""
    tile = model.tile or model.plan.target_shape
    at_once = slices_at_once(tile, model.setup.device)
    for network in model.networks:
        predict = functools.partial(_probabilities_of, network, model.setup, at_once)
        if model.tile is None and model.mirror is None:
            yield predict(image_BCHW)
        else:
            yield predict_by_tiles(predict, image_BCHW, tile, at_once, model.mirror)


def _probabilities_of(network: nn.Module, setup: DeviceConfig, at_once: int, image_BCHW: torch.Tensor) -> torch.Tensor:
    """Return a network's probabilities of the foreground classes, float32 (B, classes, h, w).

    The last images are padded for a compiled network, which would be compiled again for another size.
    """
    count = len(image_BCHW)
    if setup.compiled and count < at_once:
        image_BCHW = nn.functional.pad(image_BCHW, (0, 0, 0, 0, 0, 0, 0, at_once - count))
    with setup.autocast():
        logits = network(setup.images(image_BCHW))[:count].float()
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)[:, 1:]


def in_file_order(slices: SliceBuffer, opened: OpenedCase, dtype: type) -> np.ndarray:
    """Return all slices as one array in file order."""
    whole: np.ndarray = np.empty(opened.grid.shape, dtype)
    slices.read_into(opened.order.apply(whole))
    return whole
