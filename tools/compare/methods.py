"""The record of a run: what its training was, besides its scores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method that was trained and has predicted all test patients: one run of it."""

    name: str
    """Of the run."""
    training_s: float
    """Duration of the training loop."""
    steps: int
    batch_size: int
    parameters: int
    precision: str
    """Number format of the training: 'fp32' or 'bf16'."""
    peak_bytes: int
    """Peak memory of the largest process of training and prediction."""
    prediction_s: float
    """Wall time of the command that predicted the test patients, with its start."""
    cases: int
    """Test cases."""
    processor_share: float | None = None
    """Processor time of the command that trained, over its wall time and its threads: below 1 on a busy machine.
    None: not measured."""
    commit: str = ""
    """Commit of dvtplan that began the training; empty: not recorded, or another program."""

    @property
    def slices(self) -> int:
        """Slices, or patches of slices, that the training has seen."""
        return self.steps * self.batch_size

    @property
    def prediction_s_per_case(self) -> float:
        """Wall time of the prediction for each case."""
        return self.prediction_s / self.cases
