"""From probabilities to a mask: the rule of a model, and the record of its choice (``fold_K/postprocessing.json``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core import json_records
from dvtplan.core.errors import DvtError, require
from dvtplan.core.text import plural

CHOOSE_AGAIN = "Remove it, and predict the test patients of the fold again with `predict_fold`."
"""What to do about a choice in a results folder that cannot be used."""
PLAIN_THRESHOLD = 0.5
"""Threshold that stands for the plain rule in a mean over folds, and the plain rule of a network with one output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRule:
    """How probabilities become a mask. The defaults are the plain rule."""

    threshold: float | None = None
    """Lowest probability of thrombus (1 - background) of a segmented voxel, which becomes the most probable class.
    None: the most probable class or background; of a network with one output 0.5."""
    smallest_component_mm3: float = 0.0
    """Smaller 26-connected components of the mask are removed; 0 keeps all."""

    def __post_init__(self) -> None:
        require(
            self.threshold is None or 0 < self.threshold < 1,
            f"threshold must be above 0 and below 1, or null, not {self.threshold}",
        )
        require(
            self.smallest_component_mm3 >= 0,
            f"smallest_component_mm3 must be 0 or more, not {self.smallest_component_mm3}",
        )

    @property
    def is_plain(self) -> bool:
        return self == MaskRule()

    @property
    def in_words(self) -> str:
        """The rule in a phrase: 'threshold 0.45, components from 12 mm3'."""
        chosen = "most probable class" if self.threshold is None else f"threshold {self.threshold:.3g}"
        small = self.smallest_component_mm3
        return f"{chosen}, {f'components from {small:.3g} mm3' if small else 'all components'}"


PLAIN = MaskRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocessing:
    """The mask rule of a fold, chosen on patients that its network was not trained on."""

    threshold: float | None
    smallest_component_mm3: float
    patients: int
    """Held-out patients that have thrombus; only these are scored."""
    plain_score: float | None
    """Score of the plain rule; None without such patients. ``inference.choose_postprocessing`` defines it."""
    score: float | None
    """Score of the chosen rule."""
    weights: str
    """Digest of the weights with which it was chosen."""

    def __post_init__(self) -> None:
        _ = self.rule  # checks it
        require(self.patients >= 0, f"patients must be 0 or more, not {self.patients}")

    @property
    def rule(self) -> MaskRule:
        return MaskRule(threshold=self.threshold, smallest_component_mm3=self.smallest_component_mm3)

    @property
    def in_words(self) -> str:
        """The rule, and what it was chosen by."""
        if self.score is None or self.plain_score is None:
            return f"{self.rule.in_words} (no held-out patient has thrombus)"
        by = f"{plural(self.patients, 'held-out patient')}: DSC {self.score:.3f}"
        if self.rule.is_plain:
            return f"{self.rule.in_words} (best on {by})"
        return f"{self.rule.in_words} (chosen on {by}, plain rule {self.plain_score:.3f})"

    def require_weights(self, digest: str, file: Path | str, advice: str = CHOOSE_AGAIN) -> None:
        """Refuse a choice for other weights.

        Args:
            digest: of the weights.
            file: of the choice.
            advice: what to do about it.

        Raises:
            DvtError: names the file.
        """
        if self.weights != digest:
            raise DvtError(f"{file}: was chosen for other weights than those of its fold. {advice}")


def read_postprocessing(path: Path) -> Postprocessing | None:
    """Read the choice of a fold; None if there is none.

    Raises:
        DvtError: if the file is damaged.
    """
    if not path.exists():
        return None
    return json_records.load(Postprocessing, path, "`predict_fold`", CHOOSE_AGAIN)


def rule_of_folds(rules: Sequence[MaskRule]) -> MaskRule:
    """Return the rule of folds that predict together: the mean threshold and the median smallest component.

    A fold with the plain rule counts as 0.5 if another fold has a threshold.
    """
    thresholds = [rule.threshold for rule in rules]
    threshold = None
    if any(one is not None for one in thresholds):
        threshold = statistics.fmean(PLAIN_THRESHOLD if one is None else one for one in thresholds)
    return MaskRule(
        threshold=threshold,
        smallest_component_mm3=float(statistics.median(rule.smallest_component_mm3 for rule in rules)),
    )
