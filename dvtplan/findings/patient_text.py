"""Sentences and table rows of a patient page."""

from __future__ import annotations

from collections.abc import Sequence

from dvtplan.core.text import plural
from dvtplan.data.dataset import display_name
from dvtplan.findings.burden import SLICE_MM, Burden
from dvtplan.findings.lesion_confidence import PLAIN_THRESHOLD, SUB_THRESHOLD, Lesion
from dvtplan.findings.level_source import LEVEL_SOURCES
from dvtplan.findings.record import NOT_RULED_OUT, Findings

READING_ORDER = ("right", "left")
"""The patient's right leg is on the left of a picture, so it comes first."""

BURDEN_TITLE, CONFIDENCE_TITLE, ORIGIN_TITLE = "Thrombus burden", "Confidence", "How this was made"
NOT_CALIBRATED = "Probabilities are the model's own and not calibrated. Folds that agree may all be wrong."
BURDEN_HEADER = ("Leg", "Part", "Volume\nmL", "Components", "Length\nmm",
                 f"Largest section\nmm² (over {SLICE_MM:g} mm)",
                 "Top above\nlevel, mm", "Bottom above\nlevel, mm", "Sub-threshold\nmL")  # fmt: skip
LESION_HEADER = ("No.", "Leg", "Part", "Volume\nmL", "Probability\nmean", "Probability\npeak", "Folds agree\nmean",
                 "Folds agree\nlowest", "Slice", "Centre (LPS)\nmm")  # fmt: skip


def in_numbers(found: Findings) -> str:
    """Return the volume of each leg, or without thrombus the highest probability, and what was removed as too small."""
    return " ".join(filter(None, (_segmented(found), removed_in_words(found))))


def _segmented(found: Findings) -> str:
    if found.volume_ml > 0:
        parts = [
            f"{b.limb} leg {_ml(b.volume_ml)} in {plural(b.components, 'component')}"
            for b in _wholes(found)
            if b.components
        ]
        return f"Segmented volume {_ml(found.volume_ml)}: {', '.join(parts)}."
    if found.highest_probability is None:
        return ""
    return (
        f"The highest probability of any voxel is {found.highest_probability:.2f}; voxels are segmented from "
        f"{_threshold(found):.2f} on."
    )


def removed_in_words(found: Findings, limb: str | None = None) -> str:
    """Return what the model's rule removed, of both legs or of one; empty if nothing."""
    removed = [one for one in found.removed if limb in (None, one.limb)]
    if not removed:
        return ""
    count, volume = sum(one.components for one in removed), _ml(sum(one.volume_ml for one in removed))
    smallest = found.model.smallest_component_mm3
    return f"Removed as smaller than {smallest:.3g} mm³: {plural(count, 'component')}, {volume}."


def _threshold(found: Findings) -> float:
    """Return the probability from which on voxels are segmented."""
    return PLAIN_THRESHOLD if found.model.threshold is None else found.model.threshold


def _wholes(found: Findings) -> list[Burden]:
    """Return the burden of each whole limb, in reading order."""
    by = {burden.limb: burden for burden in found.burden if burden.region == "all"}
    return [by[limb] for limb in READING_ORDER if limb in by]


def limb_title(found: Findings, limb: str) -> str:
    whole = next((b for b in _wholes(found) if b.limb == limb), None)
    name = f"{limb.capitalize()} leg"
    if whole is None or not whole.components:
        return f"{name}: no thrombus segmented"
    return f"{name}: {_ml(whole.volume_ml)}, {plural(whole.components, 'component')}"


def limb_empty(found: Findings, limb: str) -> str:
    """Say that no thrombus was segmented in a limb, what was removed from it, and its low-confidence volume."""
    volume, threshold = _ml(found.sub_threshold_ml.get(limb, 0.0)), _threshold(found)
    removed = removed_in_words(found, limb)
    parts = [f"The model segmented no thrombus in the {limb} leg.", removed, NOT_RULED_OUT]
    if threshold > SUB_THRESHOLD:  # else no voxel is sub-threshold
        parts.append(f"Low-confidence voxels, probability {SUB_THRESHOLD:g} to {threshold:.3g}: {volume}.")
    return " ".join(filter(None, parts))


def burden_rows(found: Findings) -> list[tuple[str, ...]]:
    ordered = sorted(found.burden, key=lambda b: READING_ORDER.index(b.limb))
    return [
        (
            b.limb,
            b.region,
            f"{b.volume_ml:.1f}",
            str(b.components),
            f"{b.length_mm:.0f}" if b.components else "–",
            f"{b.largest_section_mm2:.0f}" if b.components else "–",
            "–" if b.top_mm is None else _signed(b.top_mm),
            "–" if b.bottom_mm is None else _signed(b.bottom_mm),
            f"{found.sub_threshold_ml.get(b.limb, 0.0):.1f}" if b.region == "all" else "",
        )
        for b in ordered
    ]


def lesion_rows(lesions: Sequence[Lesion]) -> list[tuple[str, ...]]:
    return [
        (
            str(one.number),
            one.limb,
            " / ".join(filter(None, (one.label, one.region))) or "unknown",
            f"{one.volume_ml:.2f}",
            f"{one.probability_mean:.2f}",
            f"{one.probability_peak:.2f}",
            "–" if one.agreement_mean is None else f"{100 * one.agreement_mean:.0f} %",
            "–" if one.agreement_min is None else f"{100 * one.agreement_min:.0f} %",
            str(one.slice_number),
            ", ".join(_signed(c) for c in one.centre_lps_mm),
        )
        for one in lesions
    ]


def provenance(found: Findings) -> list[str]:
    """Return how the result was made, one sentence per item."""
    model = found.model
    data = display_name(model.dataset, model.phantom)
    folds = plural(len(model.folds), "fold")
    lines = [
        f"Model: {model.network or 'network'}, {folds} ({', '.join(map(str, model.folds))}), trained on {data}, digest "
        f"{model.digest[:16]}.",
        f"Software: {', '.join(f'{name} {version}' for name, version in model.versions.items())}.",
        f"Image: {', '.join(found.images)}. Mask: {found.mask}, SHA-256 {(found.mask_digest or '')[:16]}.",
    ]
    if found.levels is None:
        lines.append("Levels: none.")
    else:
        left, right = found.levels.both_mm
        origin = LEVEL_SOURCES.get(found.level_source or "none", found.level_source)
        lines.append(f"Levels ({origin}): left z {_signed(left)}, right z {_signed(right)} mm.")
    lines.append("Length is measured along the centre line. A component is a connected group of voxels.")
    if found.lesions:
        lines.append(
            "Folds agree: share of a lesion's voxels that one fold alone would segment." if len(model.folds) > 1
            else "Only one fold was used, so agreement between folds is not available."
        )  # fmt: skip
    return [*lines, NOT_CALIBRATED]


def date_line(found: Findings) -> str:
    return found.written.replace("T", " ")[:16]


def _ml(volume: float) -> str:
    return f"{volume:.1f} mL" if volume >= 0.05 or volume == 0 else "< 0.1 mL"


def _signed(value: float) -> str:
    return f"{round(value)}".replace("-", "−")


def is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in ("−", "–")
