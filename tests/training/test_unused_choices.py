"""Choices of a recipe without an effect are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers.trainings import CPU, TINY

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.models import devices
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import override
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingRequest, open_job
from dvtplan.training.unused_choices import unused_choices


@pytest.fixture
def plan(toy_once: Workspace) -> Plan:
    """A plan whose slices may be mirrored."""
    return json_records.load(Plan, toy_once.plan, "plan")


def sided(plan: Plan) -> Plan:
    """The plan of slices that may not be mirrored."""
    return replace(plan, slice_axis="LR", variants=tuple(v for v in plan.variants if not v.mirror))


def told(plan: Plan, base: str, network: str = "gn_unet", **changes: Any) -> list[str]:
    lines = unused_choices(override(base, **changes), network, plan)
    assert all(" has no effect: " in line and line.endswith(".") and "\n" not in line for line in lines)
    return [line.partition("`")[2].partition("=")[0] for line in lines]


@pytest.mark.parametrize(
    ("base", "changes", "names"),
    [
        (
            "modern",
            {"lr_drops": (0.5,), "lr_factor": 0.3, "focal_gamma": 3.0},
            ["lr_drops", "lr_factor", "focal_gamma"],
        ),
        ("modern", {"lr_drops": (0.5,), "schedule": "drops", "focal_gamma": 3.0, "loss": "dice_focal"}, []),
        ("modern", {}, []),
        ("modern", {"dice_weight": 2.0, "width": 64}, []),
        ("paper", {"dice_weight": 2.0}, ["dice_weight"]),
        ("paper", {"topk_share": 0.5}, ["topk_share"]),
        ("paper", {"lr_drops": (0.5,), "focal_gamma": 3.0}, []),
        ("paper", {"loss": "dice_ce"}, []),
    ],
)
def test_fields_that_the_loss_or_the_schedule_does_not_use(
    plan: Plan, base: str, changes: dict[str, Any], names: list[str]
) -> None:
    assert told(plan, base, **changes) == names


def test_norm_groups_of_a_network_without_them(plan: Plan) -> None:
    assert told(plan, "paper", "unet", norm_groups=2) == ["norm_groups"]
    assert told(plan, "paper", norm_groups=2) == []


@pytest.mark.parametrize("base", ["paper", "modern"])
def test_a_mirror_that_was_asked_for_where_slices_may_not_be_mirrored(plan: Plan, base: str) -> None:
    assert told(sided(plan), base, mirror=True) == ["mirror"]
    assert told(plan, base, mirror=True) == []
    assert told(sided(plan), base) == told(sided(plan), base, mirror=False) == []


def test_only_the_main_process_tells_it(fresh: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    request = TrainingRequest(fold=0, network="gn_unet", recipe=replace(TINY, dice_weight=2.0), epochs=None)
    for rank, count in ((0, 1), (1, 0)):
        open_job(fresh, request, CPU, devices.choose("cpu"), TorchProcessGroup(rank=rank, world=2))
        assert capsys.readouterr().err.count("`dice_weight=2.0` has no effect: `loss='focal'`") == count
