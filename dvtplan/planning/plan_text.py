"""The plan of a data set and its costs, as text to print."""

from __future__ import annotations

from dvtplan.core.text import plural
from dvtplan.data.folds import Splits
from dvtplan.planning.cost import describe_cost
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan


def describe_plan(fingerprint: Fingerprint, plan: Plan, splits: Splits | None) -> str:
    """Return the data in numbers, the plan with its reasons, and the cost of a fold with the paper's recipe."""
    cases = fingerprint.cases
    slices = sum(c.shape[plan.slice_axis] for c in cases)
    positive = sum(c.positive_slices[plan.slice_axis] for c in cases)
    lines = [
        f"{fingerprint.dataset}: {len(cases)} cases of {len({c.patient for c in cases})} patients, "
        f"{slices} slices, {positive} with foreground ({positive / slices:.0%})"
    ]
    for name in fingerprint.labels:
        volumes_ml = [c.regions[name].ml for c in cases if c.regions[name].voxels]
        mean = sum(volumes_ml) / len(volumes_ml) if volumes_ml else 0.0
        lines.append(f"  {name:<14} in {len(volumes_ml)} cases, {mean:.3g} mL on average")
    lines.append(f"Plan ({plan.preset})")
    normal = plan.normalization
    clip = "no clipping" if normal.clip_percentiles is None else f"clip {normal.clip_percentiles}"
    decided = {
        "slice_axis": plan.slice_axis,
        "target_shape": f"{plan.target_shape[0]}x{plan.target_shape[1]}",
        "normalization": f"min-max by {normal.scope}, {clip}",
        "variants": f"{len(plan.variants)}, for recipes with `augmentation` variants",
    }
    for name, value in decided.items():
        lines += [f"  {name:<14} {value}", f"  {'':<14} {plan.because[name]}"]
    if splits is None:
        return "\n".join(lines)
    tests = [len(f.test) for f in splits.folds]
    lines.append(f"Folds ({splits.source}): {len(tests)}, with {', '.join(map(str, tests))} test cases")
    lines += [
        f"  fold {splits.title(fold)}: {plural(len(fold.train), 'case')} to train on, {len(fold.test)} to test"
        for fold in splits.folds
        if splits.by is not None
    ]
    lines.append(describe_cost(plan, splits, fingerprint))
    return "\n".join(lines)
