"""``run.json``: how a fold was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dvtplan.core.errors import require
from dvtplan.core.json_records import OMIT_DEFAULT
from dvtplan.planning.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The steps of a training that a time budget shortened. Steps are counted from the start of the training."""

    budget_s: float
    """Time budget in seconds."""
    recipe_epochs: int
    """Epochs of the recipe, which the time budget shortened."""
    steps_per_epoch: int
    planned: int
    """Steps that the training planned at its start."""
    steps: int
    """Steps that it plans now; those of a finished training."""
    taken: int
    """Steps that it has taken."""
    drops: tuple[int, ...]
    """For each drop of the learning rate, the first step, counted from 0, that has the lower rate."""
    replanned_at: int = field(default=0, metadata={OMIT_DEFAULT: True})
    """Steps that were taken when the number of steps was planned the last time."""
    progress: float = field(default=0.0, metadata={OMIT_DEFAULT: True})
    """Share of the cosine that had passed then; from there it falls to its end at the last step."""

    def __post_init__(self) -> None:
        require(self.budget_s > 0, f"budget_s must be positive, not {self.budget_s}")
        require(self.recipe_epochs >= 1, f"recipe_epochs must be at least 1, not {self.recipe_epochs}")
        require(self.steps_per_epoch >= 1, f"steps_per_epoch must be at least 1, not {self.steps_per_epoch}")
        require(self.planned >= 1, f"planned must be at least 1, not {self.planned}")
        require(0 <= self.taken <= self.steps, f"taken must be from 0 to {self.steps}, not {self.taken}")

    @property
    def epochs(self) -> int:
        """Number of epochs, of which the last may be partial."""
        return -(-self.steps // self.steps_per_epoch)

    def in_epochs(self, steps: int) -> str:
        """Return a number of steps as epochs: '3', '3.4' or '0.35'."""
        whole, rest = divmod(steps, self.steps_per_epoch)
        share = steps / self.steps_per_epoch
        return str(whole) if not rest else f"{share:.1f}" if whole else f"{share:.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """How a CPU computed a training; decides its rounding."""

    precision: str
    """'fp32' or 'bf16'."""
    channels_last: bool
    processor: str
    """``devices.processor``: on another kind of processor rounding differs in any case."""
    threads: int
    """Of each process; another number changes the last digits."""
    trial: str
    """Times of the trial that decided; empty if there was none."""

    def __post_init__(self) -> None:
        require(self.precision in ("fp32", "bf16"), f"precision must be fp32 or bf16, not {self.precision!r}")
        require(self.threads >= 1, f"threads must be at least 1, not {self.threads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a fold was trained, and how far: ``run.json``."""

    network: str
    fold: int
    recipe: Recipe
    """As used; no field is 'auto'. If a time budget shortened the training, the last of its epochs may be partial."""
    classes: dict[str, int]
    """Meaning of the outputs: class name -> value in predicted masks. One class: a sigmoid."""
    channels: int
    """Of a slice; with context the network takes more (``channels_in``)."""
    parameters: int
    train: tuple[str, ...]
    """The cases that were trained on."""
    test: tuple[str, ...]
    plan_digest: str
    splits_digest: str
    setup: str
    """Device and precision."""
    processes: int
    versions: dict[str, str]
    started: str
    epochs_done: int
    seconds: float
    """Training time over all resumes."""
    waiting_share: float
    """Share of ``seconds`` spent waiting for data."""
    arithmetic: Arithmetic | None = field(default=None, metadata={OMIT_DEFAULT: True})
    """None on other devices than a CPU, and in older files."""
    schedule: Schedule | None = field(default=None, metadata={OMIT_DEFAULT: True})
    """None: all steps of all epochs of ``recipe``."""
    held_out: tuple[str, ...] = field(default=(), metadata={OMIT_DEFAULT: True})
    """Training cases of the fold that were not trained on, see ``Recipe.held_out``."""

    @property
    def used(self) -> tuple[str, ...]:
        """The cases that decide the model: those that were trained on, and those held out to choose its mask rule."""
        return (*self.train, *self.held_out)

    @property
    def channels_in(self) -> int:
        """Number of channels that the network takes: those of each slice that it sees."""
        return self.channels * (2 * self.recipe.context + 1)

    @property
    def whole_recipe(self) -> Recipe:
        """The recipe with the epochs that it has without a time budget."""
        return self.recipe if self.schedule is None else replace(self.recipe, epochs=self.schedule.recipe_epochs)

    def with_schedule(self, schedule: Schedule) -> Run:
        """Return the record of a training of this length."""
        return replace(self, schedule=schedule, recipe=replace(self.recipe, epochs=schedule.epochs))

    @property
    def is_finished(self) -> bool:
        """Whether no step remains."""
        return self.epochs_done >= self.recipe.epochs

    @property
    def length(self) -> str:
        """The planned length: '1 epoch', '60 epochs' or '3.4 epochs'."""
        epochs = str(self.recipe.epochs) if self.schedule is None else self.schedule.in_epochs(self.schedule.steps)
        return f"{epochs} {'epoch' if epochs == '1' else 'epochs'}"

    @property
    def done(self) -> str:
        """The number of finished epochs, of which the last may be partial: '3' or '3.4'."""
        return str(self.epochs_done) if self.schedule is None else self.schedule.in_epochs(self.schedule.taken)


def training_differences(runs: Sequence[Run]) -> list[str]:
    """Return a line if folds or networks were trained by different recipes, lengths or plans; an empty list if not."""
    kinds: dict[tuple[Recipe, str, str], list[Run]] = {}
    for run in runs:
        # Two trainings of the same time budget seldom have the same number of steps.
        kinds.setdefault((replace(run.recipe, name="", epochs=1), run.length, run.plan_digest), []).append(run)
    if len(kinds) < 2:
        return []
    networks = dict.fromkeys(run.network for run in runs)
    groups = []
    for members in kinds.values():
        folds = {name: ", ".join(str(run.fold) for run in members if run.network == name) for name in networks}
        who = [f"{name} fold {k}" if len(networks) > 1 else f"fold {k}" for name, k in folds.items() if k]
        groups.append(f"{', '.join(who)}: {members[0].recipe.name}, {members[0].length}")
    parts = zip(("recipes", "lengths", "plans"), zip(*kinds, strict=True), strict=True)
    differing = " and ".join(name for name, values in parts if len(set(values)) > 1)
    what = "networks" if len(networks) > 1 else "folds"
    return [f"These {what} were trained with different {differing} ({'; '.join(groups)})."]
