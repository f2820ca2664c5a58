"""What a prediction returns: masks, files, levels, and the scans that could not be analysed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.findings.level_source import LevelAssignment


class AnalysisFailed(DvtError):
    """Some scans could not be analysed; the others were.

    Attributes:
        masks: of the other scans, in order of case.
        failed: case -> reason, in one line.
        written: all files of the other scans.
    """

    def __init__(
        self, masks: Sequence[Path], failed: Mapping[str, str], scans: int, written: Sequence[Path] | None = None
    ) -> None:
        self.masks, self.failed = tuple(masks), dict(failed)
        self.written = self.masks if written is None else tuple(written)
        head = f"{len(failed)} of {plural(scans, 'scan')} could not be analysed; nothing is known about them:"
        super().__init__("\n".join([*([head] if scans > 1 else []), *self.failed.values()]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOutcome:
    """Result of predicting one input."""

    masks: tuple[Path, ...] = ()
    """Of the whole scans, in order of case."""
    files: tuple[Path, ...] = ()
    """The masks, then all other files that were written or kept."""
    levels: Mapping[str, LevelAssignment] = field(default_factory=dict)
    """Name of a mask (``volume_names.stem``) -> levels of its scan, if findings were requested."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> why it could not be analysed, in one line."""
    scans: int = 1
    """Number of scans, including the failed ones."""

    def raise_failures(self) -> None:
        """Raise if any scan could not be analysed.

        Raises:
            AnalysisFailed: with the masks and files of the others.
        """
        if self.failed:
            raise AnalysisFailed(self.masks, self.failed, self.scans, self.files)
