"""The training recipe: its fields, what users read about them, and the named recipes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dvtplan.core.errors import DvtError, InvalidValue, require
from dvtplan.core.json_records import OMIT_DEFAULT

MOST_CONTEXT = 8
"""Most neighbouring slices on each side."""
PATCH_STEP = 16
"""Sides of a patch are multiples of this (four poolings)."""
_PATCH = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)
SETTING = "setting"
"""Field metadata key: the ``Setting`` of a field of ``Recipe``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Describe one field of a recipe to users. The command line and the report are generated from it."""

    label: str
    """Row of the report."""
    unit: str = ""
    help: str = ""
    """Help text of the command-line option; empty: no option."""
    choices: tuple[str, ...] = ()
    """Accepted values; empty: any of the field's type."""
    minimum: int = 1
    """Smallest accepted value of an int."""

    @property
    def title(self) -> str:
        """Label with its unit: 'batch size (slices per step)'."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _setting(default: Any, *, added_later: bool = False, **described: Any) -> Any:
    return field(default=default, metadata={SETTING: Setting(**described), OMIT_DEFAULT: added_later})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training besides the plan, the fold and the network.

    The defaults are the recipe `paper`. "Ours" marks what the paper does not state.
    """

    name: str = _setting("paper", label="recipe")
    """Name; for a changed recipe also the changed fields."""
    epochs: int = _setting(250, label="epochs", unit="passes over the training slices", help="passes over the training "
                           "slices")  # fmt: skip
    """Passes over the training slices, each slice in one random variant (section 2.4)."""
    batch_size: int = _setting(
        2,
        label="batch size",
        unit="slices per step",
        help="slices per step over all processes, or auto for the fastest",
    )
    """Slices per step, over all processes together (section 2.4)."""
    learning_rate: float = _setting(
        1e-3, label="learning rate at the start", help="step size of the optimizer at the start"
    )
    """Step size of the optimizer at the start, after the warm-up (section 2.4)."""
    lr_drops: tuple[float, ...] = _setting(
        (0.6, 0.85),
        label="drops of the learning rate",
        unit="share of the epochs",
        help="shares of the epochs after which the learning rate drops",
    )
    """Shares of the epochs, or of the steps of a shorter training, after which the learning rate drops (ours)."""
    schedule: str = _setting(
        "drops",
        added_later=True,
        label="schedule of the learning rate",
        help="how the learning rate falls: in drops, or along a cosine to 0",
        choices=("drops", "cosine"),
    )
    """'drops': at ``lr_drops``; 'cosine': half a cosine from ``learning_rate`` to 0 over all steps."""
    warm_up: int = _setting(
        0,
        added_later=True,
        label="warm-up",
        unit="steps",
        help="steps over which the learning rate rises at the start",
        minimum=0,
    )
    """Steps over which the learning rate rises linearly, at most a tenth of all steps."""
    lr_factor: float = _setting(
        0.1, label="factor of each drop", help="factor by which each drop multiplies the learning rate"
    )
    """Factor of each drop: the paper's "gamma 0.1" in the solver's sense (our reading)."""
    beta1: float = _setting(0.9, label="Adam's momentum", unit="beta 1", help="Adam's momentum")
    """Adam's first moment decay, the paper's "momentum" (section 2.4)."""
    weight_decay: float = _setting(
        0.0,
        added_later=True,
        label="weight decay",
        unit="AdamW",
        help="decoupled weight decay of the optimizer (AdamW); 0: Adam",
    )
    """Decoupled weight decay (Loshchilov & Hutter 2019); 0 is Adam."""
    clip_norm: float | None = _setting(
        None,
        added_later=True,
        label="largest norm of a gradient",
        help="a gradient with a larger norm is scaled down to it",
    )
    """Gradients of a larger norm are scaled down to it; None: never."""
    averaging: float = _setting(
        0.0,
        added_later=True,
        label="average of the weights",
        unit="decay per step",
        help="predict with an exponential average of the weights, with this decay per step; 0: the last weights",
    )
    """Decay per step of the exponential average of the weights that predicts; 0: the last weights predict."""
    loss: str = _setting("focal", added_later=True, label="loss", help="loss function; an unknown name lists all")
    """A key of ``training.losses.LOSSES``. The options of a loss are the fields whose names begin with one of
    the words of its name."""
    focal_gamma: float = _setting(2.0, label="focal loss, gamma", help="focusing exponent of the focal loss")
    """Focusing exponent (Lin et al. 2017; the paper gives none)."""
    focal_alpha: float | None = _setting(
        None,
        label="focal loss, weight of the foreground",
        unit="alpha",
        help="weight of the foreground in the focal loss, from 0 to 1",
    )
    """Weight of the foreground, 1 - alpha for the background; None: both have weight 1 (ours)."""
    dice_weight: float = _setting(
        1.0,
        added_later=True,
        label="weight of the Dice part of a loss",
        help="weight of the Dice part in the losses that have one",
    )
    """Weight of the Dice part in the losses `dice_...`; the other part has weight 1."""
    topk_share: float = _setting(
        0.1,
        added_later=True,
        label="hardest pixels",
        unit="share of all pixels",
        help="share of the pixels, those with the largest loss, that count in the cross-entropy of the loss dice_topk",
    )
    """Share of the pixels of a batch, those with the largest loss, that count in the cross-entropy of `dice_topk`."""
    oversampling: float = _setting(
        0.0,
        label="share of an epoch drawn from slices with lesions, each label equally often",
        help="share of an epoch drawn from slices with lesions, each label equally often",
    )
    """Share of the slices of an epoch that are drawn from the slices with lesions, every label equally
    often; 0: every slice comes once (ours). Of patches: the share that is drawn around a lesion, every label and
    within it every lesion equally often."""
    patch: str = _setting(
        "whole",
        added_later=True,
        label="patch",
        unit="rows x columns",
        help="what a training step sees of a slice: whole, auto (by the size of the slices), or rows x columns as in "
        "96x64",
    )
    """'whole' trains on whole slices, '96x64' on patches of that size, which are then also the tiles of predictions.
    'auto': ``planning.patches``."""
    context: int = _setting(
        0,
        added_later=True,
        label="context",
        unit="neighbouring slices on each side",
        help="neighbouring slices on each side that the network sees as further channels",
        minimum=0,
    )
    """Neighbouring slices on each side that are further channels of the network. Beyond the first and the last slice,
    that slice is repeated."""
    augmentation: str = _setting(
        "variants",
        added_later=True,
        label="augmentation",
        help="variants: those of the plan; wide: also contrast, noise, blur and resolution, in wider ranges",
        choices=("variants", "wide"),
    )
    """'variants' of the plan (section 2.2), or 'wide': ``training.wide_augmentation``."""
    norm_groups: int = _setting(32, label="groups of a group normalization", help="groups of each group normalization")
    """Groups of a group normalization (Keras' default; the paper gives none)."""
    width: int = _setting(32, label="channels of the first level", help="channels of the first level")
    """Channels of the first level; 32 gives the paper's "about 7.8 million" parameters."""
    target: str = _setting(
        "auto",
        label="target",
        unit="lesion: the union of all labels",
        help="lesion: the union of all labels, labels: a class each; auto decides by the labels' names",
        choices=("auto", "lesion", "labels"),
    )
    """'lesion' trains the union of all labels, 'labels' a class each. 'auto' is 'lesion' for a single label
    and for proximal/distal, which differ by place and not by appearance, else 'labels'."""
    mirror: bool = _setting(
        False,
        added_later=True,
        label="mirrored slices in predictions",
        help="average predictions of mirrored slices: every second tile is mirrored, whole slices are predicted both "
        "ways, which takes twice as long; no effect where slices may not be mirrored",
    )
    """Whether predictions are also made on mirrored slices, where slices may be mirrored (``planning.mirroring``): of
    overlapping tiles every second one is mirrored, a whole slice is predicted both ways."""
    held_out: float = _setting(
        0.0,
        added_later=True,
        label="held out",
        unit="share of the training patients",
        help="share of the training patients on which the threshold and the smallest component are chosen instead of "
        "trained; 0: no choice",
    )
    """Share of the fold's training patients that are not trained on. The threshold and the smallest component are
    chosen on them (``inference.choose_postprocessing``). 0: no choice."""
    seed: int = _setting(0, label="seed", help="seed of weights, order and variants", minimum=0)
    """Decides initial weights, the order of slices, their variants, and which patients are held out."""

    @property
    def patch_shape(self) -> tuple[int, int] | None:
        """Rows and columns of a patch; None for whole slices.

        Raises:
            ValueError: if ``patch`` is neither a size nor 'whole'.
        """
        if self.patch == "whole":
            return None
        found = _PATCH.fullmatch(self.patch)
        require(found is not None, f"patch must be whole, auto or rows x columns as in 96x64, not {self.patch!r}")
        return int(found[1]), int(found[2])  # type: ignore[index]

    def __post_init__(self) -> None:
        try:
            self._check_types()
            self._check_values()
        except ValueError as error:
            raise InvalidValue(str(error)) from error

    def _check_types(self) -> None:
        for one in fields(self):
            value, kind = getattr(self, one.name), type(one.default)
            if kind in (int, str, bool):
                require(type(value) is kind, f"{one.name} must be {kind.__name__}, not {value!r}")
            elif kind is float or (one.default is None and value is not None):
                require(
                    isinstance(value, (int, float)) and value is not True, f"{one.name} must be a number, not {value!r}"
                )

    def _check_values(self) -> None:
        require(self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}")
        require(self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}")
        for name in ("learning_rate", "lr_factor", "focal_gamma", "weight_decay", "dice_weight"):
            value = getattr(self, name)
            require(math.isfinite(value), f"{name} must be finite, not {value}")
        require(self.learning_rate > 0, f"learning_rate must be positive, not {self.learning_rate}")
        require(
            all(0 < f < 1 for f in self.lr_drops) and list(self.lr_drops) == sorted(self.lr_drops),
            f"lr_drops must be increasing numbers between 0 and 1, not {','.join(map(str, self.lr_drops))}",
        )
        require(self.lr_factor > 0, f"lr_factor must be positive, not {self.lr_factor}")
        require(0 <= self.beta1 < 1, f"beta1 must be 0 or more and below 1, not {self.beta1}")
        require(self.focal_gamma >= 0, f"focal_gamma must be 0 or more, not {self.focal_gamma}")
        require(
            self.focal_alpha is None or 0 < self.focal_alpha < 1,
            f"focal_alpha must be above 0 and below 1, or none, not {self.focal_alpha}",
        )
        require(self.weight_decay >= 0, f"weight_decay must be 0 or more, not {self.weight_decay}")
        require(self.dice_weight >= 0, f"dice_weight must be 0 or more, not {self.dice_weight}")
        require(0 < self.topk_share <= 1, f"topk_share must be above 0 and at most 1, not {self.topk_share}")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            f"clip_norm must be above 0, or none, not {self.clip_norm}",
        )
        require(0 <= self.averaging < 1, f"averaging must be 0 or more and below 1, not {self.averaging}")
        require(self.warm_up >= 0, f"warm_up must be 0 or more, not {self.warm_up}")
        require(0 <= self.context <= MOST_CONTEXT, f"context must be from 0 to {MOST_CONTEXT}, not {self.context}")
        if self.patch != "auto" and self.patch_shape is not None:
            require(
                all(n % PATCH_STEP == 0 for n in self.patch_shape),
                f"patch must have sides that are multiples of {PATCH_STEP}, not {self.patch}",
            )
        require(0 <= self.oversampling <= 1, f"oversampling must be from 0 to 1, not {self.oversampling}")
        require(self.width >= 1 and self.norm_groups >= 1, "width and norm_groups must be at least 1")
        require(
            self.width % self.norm_groups == 0,
            f"norm_groups {self.norm_groups} must divide width {self.width}",
        )
        require(0 <= self.held_out < 1, f"held_out must be 0 or more and below 1, not {self.held_out}")
        require(self.seed >= 0, f"seed must be 0 or more, not {self.seed}")
        for name, setting in settings().items():
            value = getattr(self, name)
            require(
                not setting.choices or value in setting.choices,
                f"{name} must be one of {', '.join(setting.choices)}, not {value!r}",
            )

    def drop_steps(self, steps: int, steps_per_epoch: int) -> tuple[int, ...]:
        """Return for each drop the first step, counted from 0, that has the lower learning rate.

        With all of its epochs a training drops between two epochs. A shorter one drops between any two steps, and
        before its last one.
        """
        if steps == self.epochs * steps_per_epoch:
            return tuple(round(f * self.epochs) * steps_per_epoch for f in self.lr_drops)
        return tuple(max(1, min(round(f * steps), steps - 1)) for f in self.lr_drops)

    def learning_rate_at(self, step: int, steps: int, drops: Sequence[int], *, progress: float | None = None) -> float:
        """Return the learning rate of a step, counted from 0.

        Args:
            step: of the training.
            steps: that were planned at its start.
            drops: those of ``drop_steps``.
            progress: share of the cosine that has passed, from 0 to 1; None: ``step / steps``.
        """
        rising = max(1, min(self.warm_up, steps // 10))
        rate = self.learning_rate * min(1.0, (step + 1) / rising)
        if self.schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * (step / steps if progress is None else progress)))
        return rate * self.lr_factor ** sum(step >= drop for drop in drops)

    def describe_loss(self) -> str:
        """Return the loss and its options: 'focal (gamma 2.0, alpha None)'."""
        words = self.loss.split("_")
        names = [f.name for f in fields(self) if f.name.partition("_")[0] in words and "_" in f.name]
        options = ", ".join(f"{name.partition('_')[2]} {getattr(self, name)}" for name in names)
        return f"{self.loss} ({options})" if options else self.loss


def settings() -> dict[str, Setting]:
    """Return the ``Setting`` of each field of ``Recipe``, by the field's name."""
    return {f.name: f.metadata[SETTING] for f in fields(Recipe)}


RECIPES = {
    "paper": Recipe(),
    "modern": Recipe(
        name="modern",
        batch_size=12,
        schedule="cosine",
        warm_up=50,
        lr_drops=(),
        weight_decay=0.01,
        clip_norm=1.0,
        averaging=0.995,
        loss="dice_topk",
        oversampling=0.7,
        patch="auto",
        context=2,
        augmentation="wide",
        target="labels",
        mirror=True,
    ),
}
"""Recipes by name.

`paper` is that of Huang 2019. `modern` trains the same network by newer methods; docs/developer/recipes.md gives
the reason for each.
"""


def override(name: str, **changes: Any) -> Recipe:
    """Return a named recipe with some fields changed; its name lists them.

    Raises:
        DvtError: if a value is invalid.
    """
    changed = f"{name} with {', '.join(changes)}" if changes else name
    try:
        return replace(RECIPES[name], **changes, name=changed)
    except ValueError as error:
        names = "|".join(settings())
        marked = re.sub(rf"\b({names})\b", r"`\1`", str(error))
        raise DvtError(f"{marked}. Correct this value.") from error
