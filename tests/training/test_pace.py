"""A time budget is used and kept, on a machine that changes; the learning rate follows the steps."""

from __future__ import annotations

import itertools
import random

import pytest
from helpers.machines import Machine, Seconds, always, changed

from dvtplan.core.process_group import ProcessGroup
from dvtplan.models.training_run import Schedule
from dvtplan.planning.recipe import RECIPES, Recipe
from dvtplan.training.pace import Budget, Forecast, Pace

PAPER = RECIPES["paper"]


def begin(machine: Machine, budget_s: float, *, per_epoch: int, recipe: Recipe = PAPER, trial: float = 1.0) -> Pace:
    """Plan a training as ``tuning.set_pace`` does; the trial finds a step this much faster or slower than it is."""
    budget = Budget(seconds=budget_s)
    step_s, save_s = trial * machine.step_s(0.0), machine.save_s(0.0)
    forecast = Forecast(budget, step_s=step_s, save_s=save_s, steps_per_epoch=per_epoch)
    steps = forecast.fitting(0, recipe.epochs * per_epoch)
    drops = recipe.drop_steps(steps, per_epoch)
    schedule = Schedule(
        budget_s=budget_s,
        recipe_epochs=recipe.epochs,
        steps_per_epoch=per_epoch,
        planned=steps,
        steps=steps,
        taken=0,
        drops=drops,
    )
    return Pace(recipe, per_epoch, ProcessGroup(), schedule=schedule, forecast=forecast)


def train(pace: Pace, machine: Machine) -> list[float]:
    """Take all steps. Return their learning rates."""
    rates = []
    pace.check()
    while not pace.is_finished:
        rates.append(pace.learning_rate())
        machine.step()
        pace.count_step(lambda: None)
        if (pace.is_finished or pace.taken % pace.steps_per_epoch == 0) and pace.is_saving_due():
            with pace.saving():
                machine.save()
    return rates


def hiccup(now: float) -> float:
    """Return seconds of a step: half a second, but for one that takes two seconds."""
    return 2.0 if 50 <= now < 50.5 else 0.5


def noisy(seed: int) -> Seconds:
    """Return seconds of steps that differ by a factor of nine."""
    chance = random.Random(seed)
    return lambda now: chance.uniform(0.1, 0.9)


@pytest.mark.parametrize(
    ("step_s", "trial"),
    [
        (always(0.5), 1.0),
        (always(0.5), 0.5),  # the trial found a step half as long as it is
        (always(0.5), 2.0),
        (changed(0.5, 50, 1.0), 1.0),  # slower from the middle on
        (changed(0.5, 90, 5.0), 1.0),
        (changed(0.5, 50, 0.1), 1.0),
        (changed(0.1, 20, 2.0), 1.0),  # as the demo next to other programs: from 10 to 0.5 steps/s
        (hiccup, 1.0),
        (noisy(0), 1.0),
    ],
)
@pytest.mark.parametrize("per_epoch", [7, 40, 1000])
def test_a_budget_is_used_but_not_exceeded(
    monkeypatch: pytest.MonkeyPatch, step_s: Seconds, trial: float, per_epoch: int
) -> None:
    machine = Machine(step_s=step_s, save_s=always(0.3))
    machine.keep_time(monkeypatch)
    machine.now = 3.0  # a budget counts from where it began, whatever comes before the first step
    monkeypatch.setattr(machine, "step_s", lambda now: step_s(now - 3.0))
    pace = begin(machine, 100.0, per_epoch=per_epoch, trial=trial)
    machine.now += 4.0  # loading of slices
    rates = train(pace, machine)
    assert 90 < machine.now - 3.0 < 105
    assert pace.taken == pace.steps == len(rates)
    assert rates == sorted(rates, reverse=True)
    assert f"{rates[0]:.0e}, {rates[-1]:.0e}" == "1e-03, 1e-05"


def test_on_a_steady_machine_the_learning_rate_drops_at_the_shares_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(always(1.0))
    machine.keep_time(monkeypatch)
    rates = train(begin(machine, 1000.0, per_epoch=300), machine)
    lengths = [len(list(same)) for _, same in itertools.groupby(rates)]
    assert lengths == [582, 242, 146]  # .6, .25 and .15 of 970 steps, whose 3.2 epochs have no such parts


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_cosine_never_rises_and_reaches_its_end_on_a_machine_that_changes(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """After a third of the time, steps take this many times as long."""
    machine = Machine(changed(0.2, 100.0, 0.2 * factor))
    machine.keep_time(monkeypatch)
    recipe = Recipe(schedule="cosine", lr_drops=(), warm_up=50)
    pace = begin(machine, 300.0, per_epoch=500, recipe=recipe)
    planned = pace.steps
    rates = train(pace, machine)
    assert rates[50:] == sorted(rates[50:], reverse=True) and rates[-1] < 0.01 * recipe.learning_rate
    assert (len(rates) > 1.2 * planned) == (factor == 0.5) and (len(rates) < 0.8 * planned) == (factor == 3.0)


def test_a_short_disturbance_drops_no_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(step_s=hiccup)
    machine.keep_time(monkeypatch)
    rates = train(begin(machine, 100.0, per_epoch=1000), machine)
    assert rates.index(rates[-1]) / len(rates) == pytest.approx(0.85, abs=0.05)
    assert sum(rate == rates[0] for rate in rates) / len(rates) == pytest.approx(0.6, abs=0.05)


def test_a_slow_disk_shortens_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(step_s=always(1.0), save_s=changed(0.0, 100.0, 10.0))
    machine.keep_time(monkeypatch)
    pace = begin(machine, 200.0, per_epoch=10)
    assert pace.steps == 194
    train(pace, machine)
    assert pace.taken < 180 and 180 < machine.now < 210


@pytest.mark.parametrize(("save_s", "saves"), [(0.05, 300), (0.5, 13), (20.0, 2)])
def test_short_epochs_are_saved_several_at_a_time(monkeypatch: pytest.MonkeyPatch, save_s: float, saves: int) -> None:
    """Saving takes 2 % of the time, but the first and the last checkpoint always come, and quick ones do not matter."""
    machine = Machine(step_s=always(0.1), save_s=always(save_s))
    machine.keep_time(monkeypatch)
    before, write = [], machine.save
    monkeypatch.setattr(machine, "save", lambda: (before.append(machine.now), write()))
    train(Pace(Recipe(epochs=300), 10, ProcessGroup()), machine)
    assert len(before) == saves and before[0] == pytest.approx(1.0)
    assert before[-1] == pytest.approx(machine.now - save_s)


def test_without_a_limit_the_steps_are_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(always(1.0))
    machine.keep_time(monkeypatch)
    recipe = Recipe(epochs=5)
    rates = train(begin(machine, 1e6, per_epoch=6, recipe=recipe), machine)
    assert rates == train(Pace(recipe, 6, ProcessGroup()), machine) and len(rates) == 30


def test_the_clock_is_read_at_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the host waits for a GPU, and the processes of a group for each other."""
    machine, waits = Machine(always(1.0)), []
    machine.keep_time(monkeypatch)
    pace = begin(machine, 100_000.0, per_epoch=1000)
    pace.check()
    while not pace.is_finished:
        machine.step()
        pace.count_step(lambda: waits.append(pace.taken))
    assert pace.taken == 97_000 and len(waits) < 900


def test_a_long_epoch_of_a_long_budget_is_saved_every_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days and epochs of 20,000 steps of a second: a hundredth of the steps would be 40 minutes."""
    machine = Machine(always(1.0))
    machine.keep_time(monkeypatch)
    saves, pace = [machine.now], begin(machine, 3 * 86400.0, per_epoch=20_000)
    pace.check()
    while pace.taken < 10_000:
        machine.step()
        pace.count_step(lambda: None)
        if pace.must_save:
            with pace.saving():
                saves.append(machine.now)
    gaps = [late - early for early, late in itertools.pairwise(saves)]
    assert len(gaps) > 10 and max(gaps) <= 605
