"""Check a data set as a whole: one scan under two names, labels that no case has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dvtplan.core.text import shorten_list
from dvtplan.data.cases_table import FILE_NAME as CASES
from dvtplan.data.dataset import Case, Dataset
from dvtplan.data.dataset_json import FILE_NAME as DESCRIPTION
from dvtplan.imaging import volume_io
from dvtplan.imaging.volume_checks import image_faults
from dvtplan.planning.fingerprint import CaseFingerprint, ChannelFingerprint


def repeated_scans(raw: Dataset, measured: Sequence[CaseFingerprint]) -> Iterator[str]:
    """Yield a line for each scan that is in the data set twice, under two patients: one could be tested by the other.

    Scans whose measurements are equal are compared voxel by voxel. Cases of one patient are in one fold, so they may
    have the same scan, for example with the masks of two readers.
    """
    cases = {case.id: case for case in raw.cases}
    for channel in range(len(raw.channels)):
        first: dict[tuple[object, ...], list[Case]] = {}
        for one in measured:
            case = cases[one.id]
            others = first.setdefault(_key(one, one.channels[channel]), [])
            same = next((o for o in others if _equal(o, case, channel)), None)
            if same is None:
                others.append(case)
            elif same.patient != case.patient:
                yield (
                    f"{case.images[channel]}: has the same voxels as {same.images[channel].name}, but {case.id} and "
                    f"{same.id} are two patients. Remove one, or give both the same patient_id in {CASES}."
                )


def _key(case: CaseFingerprint, channel: ChannelFingerprint) -> tuple[object, ...]:
    values = channel.minimum, channel.low, channel.high, channel.maximum, channel.shares_below
    return (*values, *sorted(case.shape.values()), *sorted(channel.slice_maximum_spread.values()))


def _equal(one: Case, other: Case, channel: int) -> bool:
    """Return whether two cases have the same scan. Equal masks, which a further channel may be, show nothing."""
    a, b = (volume_io.read(case.images[channel])[0] for case in (one, other))
    equal = a.shape == b.shape and all(map(np.array_equal, a, b))
    return equal and not any(image_faults(one.images[channel], a))


def unused_labels(raw: Dataset, measured: Sequence[CaseFingerprint]) -> tuple[str, ...]:
    """Warn of labels that no case has, which a network cannot learn."""
    unused = [name for name in raw.labels if not any(case.regions[name].voxels for case in measured)]
    if not unused:
        return ()
    return (
        f"{raw.folder / DESCRIPTION}: no case contains {shorten_list(unused)}. Remove the label, or check the values "
        "in the masks.",
    )
