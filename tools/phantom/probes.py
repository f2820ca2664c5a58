"""Probes of a phantom: the Dice of naive methods, and the loss of Dice by boundary errors or another rater.

Pure functions on arrays. Volumes are (S, H, W) with coronal slices; labels are uint8 with 0 background,
1 proximal and 2 distal. An "oracle" parameter is chosen on the truth itself, so that the score is an upper
bound for every method of its kind. Scores are NaN where the truth is empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize
from scipy.special import expit

REGIONS = {"proximal": 1, "distal": 2}
"""Label value of each region."""
BINS = 512
"""Intensity steps between the darkest and the brightest voxel of the truth; more steps change no Dice by 0.01."""
TOP_HAT_MM = (6.0, 10.0, 16.0, 24.0)
"""Sides of the square structuring elements: from wider than a calf vein of 2.5-4 mm to wider than the
common femoral vein of 10.5 mm with a boost of diameters up to 1.8."""
PERCENTILES = (5, 25, 50, 75, 95, 99)
"""Percentiles of the body among the global statistics."""
STATISTICS = (
    *("mean", "sd", "skewness", "maximum", "body share"),
    *(f"percentile {p}" for p in PERCENTILES),
    *("mean of the upper third", "mean of the middle third", "mean of the lower third"),
)
"""Names of the features of ``global_statistics``."""


# ---- overlap -------------------------------------------------------------------------------------


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two masks; every value except 0 is inside.

    NaN if the truth is empty; 0 if only the prediction is empty.
    """
    truth, predicted = truth.astype(bool, copy=False), predicted.astype(bool, copy=False)
    return _dice(*(int(np.count_nonzero(part)) for part in (truth & predicted, predicted, truth)))


def region_dice(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return the Dice of two labels by region: 'all', 'proximal' and 'distal'."""
    scores = {"all": dice(truth, predicted)}
    return scores | {region: dice(truth == value, predicted == value) for region, value in REGIONS.items()}


def positive_slices(label: np.ndarray) -> float:
    """Return the share of coronal slices (axis 0) with label."""
    return float(np.mean([bool(np.any(plane)) for plane in label]))


def moved_dice(label: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the Dice of a label with itself shifted, dilated and eroded by one pixel, by region.

    The shift is across the vessels, along W, and the mean of both directions. Dilation and erosion are 2-D,
    coronal, with the four neighbours of a pixel.

    Returns:
        'shifted', 'dilated' and 'eroded', each with the keys of ``region_dice``.
    """
    cross = ndimage.generate_binary_structure(2, 1)[None]
    scores: dict[str, dict[str, float]] = {"shifted": {}, "dilated": {}, "eroded": {}}
    for region, value in {"all": None, **REGIONS}.items():
        mask = _cropped(label > 0 if value is None else label == value, margin=1)
        right, left = np.zeros_like(mask), np.zeros_like(mask)
        right[..., 1:], left[..., :-1] = mask[..., :-1], mask[..., 1:]
        scores["shifted"][region] = (dice(mask, right) + dice(mask, left)) / 2
        scores["dilated"][region] = dice(mask, ndimage.binary_dilation(mask, cross))
        scores["eroded"][region] = dice(mask, ndimage.binary_erosion(mask, cross))
    return scores


def _dice(hits: int, predicted: int, truth: int) -> float:
    return float(2 * hits / (predicted + truth)) if truth else math.nan


def _cropped(mask: np.ndarray, margin: int) -> np.ndarray:
    """Return the bounding box of a mask with a margin of empty voxels; one empty voxel if the mask is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    return np.pad(mask[found[0]], margin) if found else np.zeros((1,) * mask.ndim, bool)


# ---- naive methods with oracle parameters ----------------------------------------------------------


def best_interval_dice(image: np.ndarray, mask: np.ndarray, bins: int = BINS) -> float:
    """Return the Dice of the best rule 'low <= intensity <= high', with ends chosen on the truth itself.

    It bounds any threshold, Otsu, and any cluster of k-means. The best ends are values of the truth, since
    a narrower interval around the same hits selects fewer other voxels. So only its range is divided into bins.

    Args:
        image: (S, H, W), any real dtype.
        mask: bool, same shape.
        bins: number of bins of equal width; the interval is a run of bins.
    """
    everything, inside = _histograms(image, mask, bins)
    if not inside.sum():
        return math.nan
    all_below, hits_below = (np.append(0, counts.cumsum()) for counts in (everything, inside))
    hits = hits_below[None, :] - hits_below[:, None]  # [low edge, high edge], negative where low > high
    chosen = all_below[None, :] - all_below[:, None]
    return float((2 * hits / (np.maximum(chosen, 0) + inside.sum())).max())


def top_hat_dice(
    image: np.ndarray,
    mask: np.ndarray,
    spacing_mm: Sequence[float],
    sizes_mm: Sequence[float] = TOP_HAT_MM,
    bins: int = 4096,
) -> float:
    """Return the Dice of the best 2-D black top-hat (dark and narrow in a coronal slice), threshold from the truth.

    Args:
        image: (S, H, W), any real dtype.
        mask: bool, same shape.
        spacing_mm: voxel size along S, H, W.
        sizes_mm: sides of the square structuring elements, of which the best counts. Each is rounded to the
            nearest odd number of pixels, at least 3.
        bins: steps of the threshold over the responses of the truth.
    """
    if not mask.any():
        return math.nan
    response = np.empty(image.shape, np.float32)
    best = 0.0
    for size in sorted({tuple(_odd(mm / step) for step in spacing_mm[1:]) for mm in sizes_mm}):
        for s, plane in enumerate(image):
            plane = plane.astype(np.float32)
            response[s] = ndimage.grey_closing(plane, size=size) - plane
        everything, inside = _histograms(response, mask, bins, open_above=True)
        hits, chosen = (counts[::-1].cumsum() for counts in (inside, everything))
        best = max(best, float((2 * hits / (chosen + inside.sum())).max()))
    return best


def atlas_dice(
    masks: Iterable[tuple[np.ndarray, Sequence[float]]], shape: Sequence[int], spacing_mm: Sequence[float]
) -> list[float]:
    """Return the Dice of each case with the mean label of the others, at the best threshold for that case.

    It bounds every method that knows where clots usually lie and ignores the image. Patients are not registered.

    Args:
        masks: for each case a bool mask (S, H, W) of any shape and its spacing along S, H, W; may be a generator.
        shape: shape of the common grid; masks are resampled to it by the nearest voxel, centre onto centre.
        spacing_mm: voxel size of that grid along S, H, W.
    """
    cases = [np.flatnonzero(_nearest(mask, spacing, shape, spacing_mm)) for mask, spacing in masks]
    places, counts = np.unique(np.concatenate([*cases, np.zeros(0, np.int64)]), return_counts=True)
    everywhere = np.bincount(counts, minlength=len(cases) + 1)
    scores = []
    for case in cases:
        own = np.bincount(counts[np.searchsorted(places, case)], minlength=len(cases) + 1)
        # Without this case, its voxels are in one label fewer.
        others = everywhere - own + np.append(own[1:], 0)
        # Thresholds from all other labels down to any other label; index 0 counts voxels without other labels.
        chosen, hits = others[:0:-1].cumsum(), own[:1:-1].cumsum()
        dices = [_dice(int(h), int(c), len(case)) for h, c in zip(np.append(0, hits), chosen, strict=True)]
        scores.append(max(dices, default=math.nan))
    return scores


def oracle_lumen_dice(image: np.ndarray, lumen_region: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the Dice of one threshold where the lumen of every vein is known.

    A voxel in the lumen that is darker than the threshold counts as clot. The threshold is the one with the
    best Dice over all regions. Truth outside the lumen is missed.

    Args:
        image: (S, H, W), any real dtype.
        lumen_region: uint8, same shape: 0 outside the veins, else the region of the vein.
        truth: uint8, same shape.

    Returns:
        The keys of ``region_dice``; a clot voxel has the region of its vein.
    """
    inside = lumen_region > 0
    values, veins, clots = image[inside], lumen_region[inside], truth[inside]
    order = np.argsort(values, kind="stable")
    values, veins, clots = values[order], veins[order], clots[order]
    total = np.count_nonzero(truth)
    if not total:
        return dict.fromkeys(("all", *REGIONS), math.nan)
    hits = np.append(0, (clots > 0).cumsum())
    dices = 2 * hits / (np.arange(len(hits)) + total)
    # A threshold cannot separate equal values.
    dices[1:-1][values[1:] == values[:-1]] = -1
    called = int(dices.argmax())
    scores = {"all": float(dices[called])}
    for region, value in REGIONS.items():
        predicted, wanted = veins[:called] == value, clots[:called] == value
        counts = (int(np.count_nonzero(p)) for p in (predicted & wanted, predicted, truth == value))
        scores[region] = _dice(*counts)
    return scores


def _odd(pixels: float) -> int:
    """Return the nearest odd number of at least 3."""
    return max(3, 2 * round((pixels - 1) / 2) + 1)


def _nearest(
    mask: np.ndarray, mask_mm: Sequence[float], shape: Sequence[int], spacing_mm: Sequence[float]
) -> np.ndarray:
    """Return a mask (S, H, W) on another grid with the same centre; empty outside the mask's grid."""
    aims, sources = [], []
    for n, mm, old, old_mm in zip(shape, spacing_mm, mask.shape, mask_mm, strict=True):
        nearest = np.floor((np.arange(n) - (n - 1) / 2) * mm / old_mm + old / 2).astype(int)
        reached = (nearest >= 0) & (nearest < old)
        aims.append(np.flatnonzero(reached))
        sources.append(nearest[reached])
    resampled = np.zeros(tuple(shape), bool)
    resampled[np.ix_(*aims)] = mask[np.ix_(*sources)]
    return resampled


def _histograms(
    values: np.ndarray, mask: np.ndarray, bins: int, open_above: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return counts (bins,) of all voxels and of those in the mask, over the range of the mask.

    Voxels outside that range are omitted; with ``open_above``, voxels above it count in the last bin.
    Works slice by slice, so that a large volume is not copied.
    """
    everything, inside = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    if not mask.any():
        return everything, inside
    of_mask = values[mask].astype(np.float64)
    low, high = float(of_mask.min()), float(of_mask.max())
    per_unit = bins / (high - low) if high > low else 0.0

    def counts(some: np.ndarray) -> np.ndarray:
        return np.bincount(np.minimum((some - low) * per_unit, bins - 1).astype(np.intp), minlength=bins)

    inside += counts(of_mask)
    for plane in values:
        kept = plane[plane >= low] if open_above else plane[(plane >= low) & (plane <= high)]
        everything += counts(kept.astype(np.float64))
    return everything, inside


# ---- the same patient without clot -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of two images outside a mask."""

    largest: float
    """Largest absolute difference of intensity."""
    voxels: int
    """Number of voxels that differ by more than the tolerance."""


def twin_difference(
    image_with: np.ndarray,
    image_without: np.ndarray,
    clot_mask: np.ndarray,
    reach_voxels: int,
    tolerance: float = 0.0,
) -> Difference:
    """Compare a patient's images with and without clot, outside the dilated clot.

    Args:
        image_with, image_without: (S, H, W), same dtype.
        clot_mask: bool, same shape.
        reach_voxels: dilation of the mask in voxels along each axis and diagonally.
        tolerance: largest difference that is not counted.
    """
    differs = image_with != image_without
    found = ndimage.find_objects(clot_mask.astype(np.uint8))
    if found:
        box = tuple(slice(max(s.start - reach_voxels, 0), s.stop + reach_voxels) for s in found[0])
        near = ndimage.maximum_filter(clot_mask[box].astype(np.uint8), size=2 * reach_voxels + 1)
        differs[box] &= near == 0
    apart = np.abs(image_with[differs].astype(np.float64) - image_without[differs])
    return Difference(float(apart.max(initial=0.0)), int(np.count_nonzero(apart > tolerance)))


# ---- information in global statistics --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Separation of patients with clot in a region from those without, by global statistics."""

    auc: float
    """AUC, 0.5 for useless statistics; NaN where it cannot be measured."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    n_with: int
    """Patients with clot in the region."""
    n_without: int
    """Patients without clot in the region."""
    reason: str = ""
    """Why the AUC could not be measured."""


def global_statistics(image: np.ndarray) -> np.ndarray:
    """Return global statistics of an image (S, H, W): float64, in the order of ``STATISTICS``.

    All except the body share are of the body: voxels brighter than an eighth of the 99th percentile.
    """
    body = image > np.percentile(image[:, ::2, ::2], 99) / 8
    values = image[body]
    if not len(values):
        return np.zeros(len(STATISTICS))
    marks = np.percentile(values, PERCENTILES)
    mean, sd = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    away = values.astype(np.float32) - np.float32(mean)
    skewness = float(np.mean(away * away * away, dtype=np.float64)) / sd**3 if sd else 0.0
    thirds = [
        float(image[:, rows][body[:, rows]].mean(dtype=np.float64)) if body[:, rows].any() else 0.0
        for rows in (slice(n * image.shape[1] // 3, (n + 1) * image.shape[1] // 3) for n in range(3))
    ]
    return np.array([mean, sd, skewness, values.max(), body.mean(), *marks, *thirds], np.float64)


def leak_auc(
    features: np.ndarray,
    has_region: np.ndarray,
    seed: int = 0,
    repeats: int = 5,
    folds: int = 5,
    permutations: int = 200,
) -> Leak:
    """Return the cross-validated AUC of a logistic regression that predicts whether a patient has clot in a region.

    Folds are stratified and drawn again for each repeat, and only patients of the same test fold are compared.
    Leave-one-out with pooled scores would be biased: the intercept moves against the omitted patient, and a
    useless model scores far below 0.5. Here one model that saw neither patient scores both patients of a pair,
    so useless features give 0.5.

    The interval is the AUC +- 1.96 standard deviations of the same AUC with permuted patients, cut to 0 to 1.
    DeLong's interval assumes a fixed model: with 43 and 15 patients and useless features it contained 0.5 in 79 %
    of 150 cohorts, with 54 and 4 patients in 60 %. The permutation interval did so in 97 and 98 % of 60 cohorts.

    Args:
        features: (n, d), one row per patient; standardised by the training patients of each fold.
        has_region: bool (n,).
        seed: seed of folds and permutations.
        repeats: number of divisions into folds.
        folds: number of folds; fewer if a class has fewer patients.
        permutations: number of permutations of ``has_region`` for the interval, at least one.
    """
    features, labels = np.asarray(features, float), np.asarray(has_region, bool)
    n_with, n_without = int(labels.sum()), int((~labels).sum())
    if min(n_with, n_without) < 2:
        scarce = f"{n_with} with the region and {n_without} without; two of each are needed"
        nan = math.nan
        return Leak(auc=nan, low=nan, high=nan, n_with=n_with, n_without=n_without, reason=scarce)
    rng = np.random.default_rng(seed)
    folds = min(folds, n_with, n_without)
    auc = _fold_auc(features, labels, rng, repeats, folds)
    permuted = [_fold_auc(features, rng.permutation(labels), rng, repeats, folds) for _ in range(permutations)]
    half = 1.96 * math.sqrt(float(np.mean((np.array(permuted) - 0.5) ** 2)))
    return Leak(auc=auc, low=max(0.0, auc - half), high=min(1.0, auc + half), n_with=n_with, n_without=n_without)


def _fold_auc(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator, repeats: int, folds: int) -> float:
    """Return the share of pairs within a test fold that a model of the other folds orders correctly; ties are half."""
    ordered, pairs = 0.0, 0
    for _ in range(repeats):
        fold = np.empty(len(labels), int)
        for members in (np.flatnonzero(labels), np.flatnonzero(~labels)):
            fold[rng.permutation(members)] = np.arange(len(members)) % folds
        for test in (fold == k for k in range(folds)):
            scores = _scores(features[~test], labels[~test], features[test])
            apart = scores[labels[test], None] - scores[~labels[test]]
            ordered += np.count_nonzero(apart > 0) + np.count_nonzero(apart == 0) / 2
            pairs += apart.size
    return float(ordered / pairs)


def _scores(train: np.ndarray, labels: np.ndarray, test: np.ndarray, penalty: float = 1.0) -> np.ndarray:
    """Return log odds (m,) of test patients by logistic regression; ``penalty`` / 2 weighs the squared weights."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    sd[sd < 1e-9 * np.maximum(np.abs(mean), 1)] = np.inf  # constant features carry no information
    train, test = (train - mean) / sd, (test - mean) / sd

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        odds = train @ weights[1:] + weights[0]
        wrong = expit(odds) - labels
        value = np.logaddexp(0, np.where(labels, -odds, odds)).sum() + penalty / 2 * weights[1:] @ weights[1:]
        return float(value), np.append(wrong.sum(), train.T @ wrong + penalty * weights[1:])

    fitted = minimize(loss, np.zeros(train.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return test @ fitted[1:] + fitted[0]
