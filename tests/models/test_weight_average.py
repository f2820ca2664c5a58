"""The average of weights: its formula, its beginning, and that it survives a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dvtplan.models import checkpoint
from dvtplan.models.weight_average import WeightAverage


def network(value: float) -> nn.Module:
    made = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def test_recent_weights_count_more_and_the_first_are_forgotten_at_the_start() -> None:
    trained = network(8.0)
    average, expected = WeightAverage(trained, 0.9), 8.0
    for step, value in enumerate([1.0, 2.0, 3.0], start=1):
        with torch.no_grad():
            trained[0].weight.fill_(value)
        average.update(trained)
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * value
    state = average.state(trained)
    assert float(state["0.weight"]) == pytest.approx(expected, rel=1e-6)
    assert set(state) == set(trained.state_dict())


def test_buffers_are_those_of_the_network() -> None:
    trained = network(1.0)
    average = WeightAverage(trained, 0.9)
    trained[1].running_mean.fill_(5.0)
    average.update(trained)
    assert float(average.state(trained)["1.running_mean"]) == 5.0


def test_a_checkpoint_predicts_with_the_average_and_resumes_with_both(tmp_path: Path) -> None:
    path, trained = tmp_path / "checkpoint.pt", network(1.0)
    optimizer, average = torch.optim.Adam(trained.parameters()), WeightAverage(trained, 0.5)
    with torch.no_grad():
        trained[0].weight.fill_(3.0)
    average.update(trained)
    checkpoint.save(path, trained, optimizer, 1, average=average)
    predicting = network(0.0)
    checkpoint.load_weights(path, predicting)
    mean = float(average.state(trained)["0.weight"])
    assert 1 < mean < 3 and predicting[0].weight.item() == mean
    assert checkpoint.weights(path)["0.weight"].item() == mean
    again = network(0.0)
    resumed = WeightAverage(again, 0.5)
    checkpoint.restore(path, again, torch.optim.Adam(again.parameters()), resumed)
    assert again[0].weight.item() == 3.0 and resumed.steps == 1
    assert torch.equal(resumed.state(again)["0.weight"], average.state(trained)["0.weight"])
