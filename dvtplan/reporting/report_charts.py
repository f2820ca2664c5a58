"""Charts of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dvtplan.core.text import plural
from dvtplan.evaluation import table_text
from dvtplan.rendering.charts import bland_altman, boxes, learning_curves, volume_against_dsc
from dvtplan.rendering.output import Figure
from dvtplan.reporting import scored_network
from dvtplan.reporting.scored_network import ScoredNetwork

OUTLIER_SPREADS = 1.5
"""A DSC this number of interquartile ranges below the first quartile is an outlier (Tukey)."""
LOWEST = 5
"""Number of patients with the lowest DSC that are named if there is no outlier."""


def named_points(dsc: Sequence[float]) -> tuple[list[int], str]:
    """Choose the patients that a chart names: outliers (Tukey), or else the lowest few.

    Returns:
        Indices into ``dsc``, and the rule in words.
    """
    values = np.asarray(dsc, float)
    if not len(values):
        return [], "no patient"
    first, third = np.percentile(values, (25, 75))
    fence = first - OUTLIER_SPREADS * (third - first)
    below = np.flatnonzero(values < fence).tolist()
    if below:
        return below, f"outliers (DSC below Q1 - {OUTLIER_SPREADS} IQR = {fence:.2f})"
    lowest = np.argsort(values, kind="stable")[:LOWEST].tolist()
    outlier = f"DSC below Q1 - {OUTLIER_SPREADS} IQR"
    return lowest, f"the {plural(len(lowest), 'patient')} with the lowest DSC; there is no outlier ({outlier})"


def volume_charts(one: ScoredNetwork, mark: str) -> Iterator[tuple[Figure, str, str, str]]:
    """Chart volume against DSC (Figure 3 of the paper) and the agreement of volumes.

    Yields:
        Figure, file name, alternative text, caption.
    """
    whole, title = one.whole, f"{one.network}{mark}"
    counted = whole[whole["counted"]]
    volume, dsc = counted["truth_ml"].tolist(), counted["dsc"].tolist()
    at, rule = named_points(dsc)
    names = {i: str(counted["patient_id"].iloc[i]) for i in at}
    reach = (
        f"DSC {table_text.span(min(dsc), max(dsc))}, volume {min(volume):.1f} to {max(volume):.1f} mL" if dsc else ""
    )
    yield (
        volume_against_dsc(volume, dsc, names, f"Volume and DSC: {title}, n {len(dsc)}"),
        f"volume_dsc_{one.network}",
        f"Scatter of DSC against true thrombus volume for {len(dsc)} patients; {reach}. Named: "
        f"{', '.join(names.values())}.",
        f"{title}: thrombus volume and DSC, as Figure 3 of Huang 2019. Each point is a patient with thrombus "
        f"(n {len(dsc)}): volume of the truth in mL (logarithmic) and DSC, both over all thrombus. Named "
        f"diamonds: {rule}. {one.table.folds[:1].upper()}{one.table.folds[1:]}.",
    )
    agreed = scored_network.bland_altman(whole)
    yield (
        bland_altman(
            whole["truth_ml"].tolist(),
            whole["predicted_ml"].tolist(),
            agreed.bias.mean,
            agreed.limits_ml,
            f"Agreement of volume: {title}, n {len(whole)}",
        ),
        f"bland_altman_{one.network}",
        f"Difference of predicted and true volume against their mean for {len(whole)} patients; {agreed.text}.",
        f"{title}: agreement of predicted and true thrombus volume (Bland and Altman). Each point is a patient, with "
        f"or without thrombus. Solid line: mean difference (bias); dashed lines: limits of agreement, bias ± 1.96 SD, "
        f"which contain about 95 % of the differences if these are normally distributed and independent of volume. "
        f"{agreed.text[:1].upper()}{agreed.text[1:]}.",
    )


def box_chart(results: Sequence[ScoredNetwork], mark: str) -> tuple[Figure, str, str, str]:
    """Chart the DSC of each region and network: figure, file name, alternative text, caption."""
    by: dict[str, dict[str, list[float]]] = {}
    for one in results:
        for region, patients in one.patients.groupby("region", sort=False):
            by.setdefault(str(region), {})[one.network] = patients.loc[patients["counted"], "dsc"].tolist()
    medians = [
        f"{region}, {network}: median {table_text.number(float(np.median(dsc))) if dsc else 'n/a'}, n {len(dsc)}"
        for region, networks in by.items()
        for network, dsc in networks.items()
    ]
    names = ", ".join(one.network for one in results)
    return (
        boxes(list(by.items()), f"DSC by region{mark}"),
        "dsc_boxes",
        f"Box plots of DSC: {'; '.join(medians)}.",
        f"DSC per region, {names}{mark}. Each point is a patient with truth in the region (n next to the name); "
        "its sideways position has no meaning. Box: first to third quartile, thick line: median, whiskers: to the "
        f"last point within {OUTLIER_SPREADS} interquartile ranges of the box.",
    )


def curve_chart(
    one: ScoredNetwork, rows: Mapping[int, list[dict[str, object]]], mark: str
) -> tuple[Figure, str, str, str]:
    """Chart the training loss of each fold: figure, file name, alternative text, caption."""
    network = one.network
    loss = " or ".join(dict.fromkeys(run.recipe.loss for run in one.runs.values()))
    ends = [f"fold {k} {float(str(r[-1]['loss'])):.2g} after {plural(len(r), 'epoch')}" for k, r in rows.items()]
    return (
        learning_curves(rows, f"Training: {network}{mark}"),
        f"learning_{network}",
        f"Training loss of each epoch for {len(rows)} folds of {network}; last: {'; '.join(ends)}.",
        f"{network}{mark}: mean {loss} loss over the training slices of each epoch (above, logarithmic) and learning "
        f"rate (below), a line per fold. This is the training loss, without any test patient. Last epoch: "
        f"{'; '.join(ends)}.",
    )
