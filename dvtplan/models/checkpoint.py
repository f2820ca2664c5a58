"""Checkpoints: weights and the state that a resumed training needs. Written atomically, read without executing code."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError, cannot_read
from dvtplan.core.files import atomic_write
from dvtplan.models.networks.registry import NETWORKS, build, outputs_of, parameter_count
from dvtplan.models.training_run import Run, Schedule
from dvtplan.models.weight_average import WeightAverage

SCHEMA = 1
COPY_AGAIN = "Copy the model again, or train this fold again."
"""What to do about a damaged checkpoint, which another person may have trained."""
FIELDS = {
    "schema": int,
    "epochs_done": int,
    "network": dict,
    "optimizer": dict,
    "rng_cpu": torch.Tensor,
    "rng_cuda": list,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialEpoch:
    """The steps of an epoch that has not all of them."""

    losses: torch.Tensor
    """(steps,), averaged over the processes."""
    seconds: float
    waited: float
    """Seconds of waiting for data."""


def save(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs_done: int,
    *,
    average: WeightAverage | None = None,
    schedule: Schedule | None = None,
    partial: PartialEpoch | None = None,
    before_move: Callable[[], object] | None = None,
) -> None:
    """Write weights, optimizer, random generators and how far the training is, atomically.

    Args:
        path: the file.
        network: its weights are saved.
        optimizer: its moments are saved.
        epochs_done: number of finished epochs. That which a time budget ended counts, although it is partial.
        average: of the weights; it then predicts in place of the last weights.
        schedule: of a training that a time budget shortened.
        partial: the steps of the last epoch that was begun, if it is not complete.
        before_move: called with the complete temporary file on disk, before it is moved to ``path``.
    """
    state: dict[str, Any] = {
        "schema": SCHEMA,
        "epochs_done": epochs_done,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng_cpu": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    if average is not None:
        state["average"] = {"weights": average.state(network), "steps": average.steps}
    if schedule is not None:
        state["schedule"] = json_records.to_json(schedule)
    if partial is not None:
        state["partial"] = {"losses": partial.losses.cpu(), "seconds": partial.seconds, "waited": partial.waited}
    # Through memory: torch would write the file's name into the archive, but equal states must give equal bytes. On
    # a full disk torch's own writer raises an unclear error.
    archive = io.BytesIO()
    torch.save(state, archive)
    with atomic_write(path) as draft:
        draft.write_bytes(archive.getbuffer())
        if before_move is not None:
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            before_move()


def epochs_done(path: Path) -> int:
    """Return the number of finished epochs of a checkpoint; raises as ``restore``."""
    return int(_load(path, mapped=True)["epochs_done"])


def schedule(path: Path) -> Schedule | None:
    """Return the schedule of a training that a time budget shortened; None for any other. Raises as ``restore``."""
    found = _load(path, mapped=True).get("schedule")
    try:
        return None if found is None else cast(Schedule, json_records.from_json(Schedule, found, "schedule"))
    except ValueError as error:
        raise DvtError(f"{path}: {error}. {COPY_AGAIN}") from error


def partial_epoch(path: Path) -> PartialEpoch | None:
    """Return the last epoch that was begun; None if it is complete. Raises as ``restore``."""
    found = _load(path, mapped=True).get("partial")
    return None if found is None else PartialEpoch(**{**found, "losses": found["losses"].clone()})


def steps_taken(path: Path, steps_per_epoch: int) -> int:
    """Return the number of steps that a training has taken. Raises as ``restore``."""
    shortened, partial = schedule(path), partial_epoch(path)
    if shortened is not None:
        return shortened.taken
    return epochs_done(path) * steps_per_epoch + (0 if partial is None else len(partial.losses))


def restore(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None
) -> int:
    """Load a checkpoint into a network, its optimizer, the average of its weights and the random generators.

    Returns:
        The number of finished epochs.

    Raises:
        DvtError: if the file is missing or damaged, belongs to another network, or has weights that are not finite.
    """
    state = _load(path)
    _fill(path, network, state["network"])
    optimizer.load_state_dict(state["optimizer"])
    _match_layout(optimizer)
    if average is not None:
        kept = state.get("average", {"weights": state["network"], "steps": 0})
        average.restore(network, kept["weights"], int(kept["steps"]))
    torch.set_rng_state(state["rng_cpu"])
    if state["rng_cuda"] and len(state["rng_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["rng_cuda"])
    return int(state["epochs_done"])


def load_weights(path: Path, network: nn.Module) -> None:
    """Load the weights that predict into a network; raises as ``restore``."""
    _fill(path, network, _predicting(_load(path, mapped=True)))


def weights(path: Path) -> dict[str, np.ndarray]:
    """Return the weights that predict, by name; raises as ``restore``."""
    return {name: tensor.numpy() for name, tensor in _predicting(_load(path, mapped=True)).items()}


def _predicting(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the averaged weights of a checkpoint that has them, else the last weights."""
    weights: dict[str, torch.Tensor] = state["average"]["weights"] if "average" in state else state["network"]
    return weights


def build_network(run: Run) -> nn.Module:
    """Build the network that a run trained, with initial weights."""
    recipe = run.recipe
    return build(
        run.network, run.channels_in, outputs_of(len(run.classes)), width=recipe.width, norm_groups=recipe.norm_groups
    )


def expected_weights(run: Run, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of every weight of a run's network, without allocating memory for it.

    Raises:
        DvtError: if there is no such network; ``name`` names the run's file.
    """
    if run.network not in NETWORKS:
        raise DvtError(
            f"{name}: names an unknown network {run.network!r}; known are {', '.join(NETWORKS)}. Check its version."
        )
    weights = _blank(run).state_dict()
    return {key: (str(weight.dtype).removeprefix("torch."), tuple(weight.shape)) for key, weight in weights.items()}


def count_parameters(run: Run) -> int:
    """Return the number of trainable parameters of a run's network, whatever the run states."""
    return parameter_count(_blank(run))


def _blank(run: Run) -> nn.Module:
    """Build a run's network without memory for its weights."""
    with torch.device("meta"):
        return build_network(run)


def get_weights(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the weights of a network on the CPU, by name; they share its memory."""
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}


def set_weights(network: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Load arrays into a network; they must have its ``expected_weights``."""
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})


def _load(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint; ``mapped`` reads from disk only what is used."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise DvtError(f"{path}: not found. Train this fold first, or copy the model again.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise DvtError(cannot_read(path, error, "Fix the permissions, or replace it.")) from error
    except Exception as error:  # reading a damaged archive can raise anything, with advice that does not apply here
        raise DvtError(f"{path}: is not a readable checkpoint. {COPY_AGAIN}") from error
    complete = isinstance(state, dict) and all(isinstance(state.get(k), kind) for k, kind in FIELDS.items())
    if not complete or state["schema"] != SCHEMA:
        raise DvtError(f"{path}: expected a checkpoint of schema {SCHEMA}. {COPY_AGAIN}")
    return state


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer's moments the memory layout of their weights.

    Loaded moments keep the layout of the checkpoint. If it differs from the weights' layout, the fused optimizer fails
    on a GPU and mixes up elements on a CPU.
    """
    for weight, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(value)


def _fill(path: Path, network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DvtError(f"{path}: its weights do not fit this network. Check `network` and run.json.") from error
    for name, weight in network.state_dict().items():
        if not torch.isfinite(weight).all():
            raise DvtError(f"{path}: {name} has weights that are not finite. {COPY_AGAIN}")
