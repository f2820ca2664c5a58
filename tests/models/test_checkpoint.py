"""Checkpoints: whole or not at all, equal for equal states, and never a way to run code."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from helpers.refusals import refused
from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.models import checkpoint
from dvtplan.models.networks.registry import build


def trainee(seed: int = 0, steps: int = 2, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network and its optimizer some steps from the start."""
    torch.manual_seed(seed)
    network = build("gn_unet", 1, 1, width=width, norm_groups=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    for _ in range(steps):
        step(network, optimizer)
    return network, optimizer


def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One that draws from torch's generator."""
    optimizer.zero_grad()
    network(torch.rand(1, 1, 16, 16)).square().mean().backward()
    optimizer.step()


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in network.parameters()])


def test_a_restored_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    network, optimizer = trainee()
    checkpoint.save(tmp_path / "a.pt", network, optimizer, 2)
    step(network, optimizer)
    other, its_optimizer = trainee(seed=1, steps=0)
    assert checkpoint.restore(tmp_path / "a.pt", other, its_optimizer) == 2
    step(other, its_optimizer)
    assert torch.equal(weights(other), weights(network))
    checkpoint.save(tmp_path / "straight.pt", network, optimizer, 3)
    checkpoint.save(tmp_path / "resumed.pt", other, its_optimizer, 3)
    assert (tmp_path / "straight.pt").read_bytes() == (tmp_path / "resumed.pt").read_bytes()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_training_resumes_in_another_memory_layout(tmp_path: Path, layout: torch.memory_format) -> None:
    """The fused optimizer takes moments and weights element by element as they lie in memory."""
    network, optimizer = trainee()
    checkpoint.save(tmp_path / "a.pt", network, optimizer, 2)
    other, its_optimizer = trainee(seed=1, steps=0)
    other.to(memory_format=layout)  # type: ignore[call-overload]
    checkpoint.restore(tmp_path / "a.pt", other, its_optimizer)
    for _ in range(3):
        image = torch.rand(1, 1, 16, 16)
        for each, its in ((network, optimizer), (other, its_optimizer)):
            its.zero_grad()
            each(image).square().mean().backward()
            its.step()
    # Three steps of 1e-3; with mixed-up moments some weights are 4e-3 apart.
    assert float((weights(other) - weights(network)).abs().max()) < 1e-4


def test_equal_states_give_equal_bytes_under_any_name(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", *trainee(), 2)
    checkpoint.save(tmp_path / "far" / "another_name.pt", *trainee(), 2)
    checkpoint.save(tmp_path / "other.pt", *trainee(seed=1), 2)
    a, same, other = ((tmp_path / n).read_bytes() for n in ("a.pt", "far/another_name.pt", "other.pt"))
    assert a == same and a != other


def test_weights_are_had_as_arrays_by_name(tmp_path: Path) -> None:
    network, optimizer = trainee()
    checkpoint.save(tmp_path / "a.pt", network, optimizer, 1)
    found = checkpoint.weights(tmp_path / "a.pt")
    other, _ = trainee(seed=1)
    checkpoint.set_weights(other, {name: array.copy() for name, array in found.items()})
    assert torch.equal(weights(other), weights(network)) and list(found) == list(checkpoint.get_weights(network))
    assert "not found" in refused(lambda: checkpoint.weights(tmp_path / "none.pt"))


def test_weights_and_epochs_can_be_had_alone(tmp_path: Path) -> None:
    network, optimizer = trainee()
    checkpoint.save(tmp_path / "a.pt", network, optimizer, 7)
    other, _ = trainee(seed=1)
    checkpoint.load_weights(tmp_path / "a.pt", other)
    assert torch.equal(weights(other), weights(network))
    assert checkpoint.epochs_done(tmp_path / "a.pt") == 7


def test_a_restored_network_does_not_hang_on_to_the_file(tmp_path: Path) -> None:
    """Checkpoints are read through memory maps; the next one takes the file's place."""
    path = tmp_path / "a.pt"
    network, optimizer = trainee()
    checkpoint.save(path, network, optimizer, 1)
    checkpoint.restore(path, network, optimizer)
    before = path.read_bytes()
    step(network, optimizer)
    assert path.read_bytes() == before
    checkpoint.save(path, network, optimizer, 2)
    assert checkpoint.epochs_done(path) == 2


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), DvtError),
    ],
)
def test_a_write_that_fails_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, expected: type[BaseException]
) -> None:
    path = tmp_path / "a.pt"
    network, optimizer = trainee()
    checkpoint.save(path, network, optimizer, 1)
    before = path.read_bytes()

    def half(draft: Path, data: memoryview) -> None:
        with draft.open("wb") as file:
            file.write(data[:1000])
        raise fault

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(expected):
        checkpoint.save(path, network, optimizer, 2)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("length", [0, 1, 100, 50_000, -1])
def test_a_cut_off_file_is_refused_in_one_line(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, *trainee(), 1)
    path.write_bytes(path.read_bytes()[:length])
    message = refused(lambda: checkpoint.restore(path, *trainee()))
    assert (
        message.startswith(f"{path}: ")
        and "not a readable checkpoint" in message
        and "rain this fold again" in message
        and "Copy" in message
    )


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    assert refused(lambda: checkpoint.epochs_done(tmp_path / "a.pt")) == (
        f"{tmp_path / 'a.pt'}: not found. Train this fold first, or copy the model again."
    )


@pytest.mark.parametrize("body", [[1, 2], {"weights": 1}, {"schema": 99}, {"schema": 1}, {"schema": 1, "network": 5}])
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, body: object) -> None:
    path = tmp_path / "a.pt"
    torch.save(body, path)
    assert "checkpoint of schema 1" in refused(lambda: checkpoint.restore(path, *trainee()))
    assert "checkpoint of schema 1" in refused(lambda: checkpoint.load_weights(path, trainee()[0]))
    path.write_text("no archive at all")
    assert "not a readable checkpoint" in refused(lambda: checkpoint.restore(path, *trainee()))


def test_a_checkpoint_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", *trainee(), 1)
    message = refused(lambda: checkpoint.restore(tmp_path / "a.pt", *trainee(width=8)))
    assert "do not fit this network" in message


class Payload:
    """Unpickling it runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.proof}",))


@pytest.mark.parametrize("writer", ["archive", "pickle", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, writer: str) -> None:
    path, proof = tmp_path / "a.pt", tmp_path / "was_run"
    body = {"schema": 1, "epochs_done": 1, "network": Payload(proof)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(body, protocol=2))
    else:
        torch.save(body, path, _use_new_zipfile_serialization=writer == "archive")
    assert "not a readable checkpoint" in refused(lambda: checkpoint.restore(path, *trainee()))
    assert not proof.exists()
