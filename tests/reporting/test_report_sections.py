"""What the report says of scores, folds and trainings, from numbers known beforehand."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd
import pytest
from helpers.html_reader import Reader

from dvtplan.data.folds import Fold, Splits
from dvtplan.evaluation import table1
from dvtplan.evaluation.lesion_detection import Lesions
from dvtplan.evaluation.secondary_metrics import lesion_counts
from dvtplan.imaging.normalize import Normalization
from dvtplan.models.postprocessing import Postprocessing
from dvtplan.models.training_run import Run, Schedule
from dvtplan.planning.plan import Plan, Variant
from dvtplan.planning.recipe import Recipe
from dvtplan.reporting import methods_section, report_sections, scored_network
from dvtplan.reporting.case_figures import Picture
from dvtplan.reporting.scored_network import Chart, ScoredNetwork

FOLDS = (Fold(index=0, train=("c2", "c3"), test=("c0", "c1")), Fold(index=1, train=("c0", "c1"), test=("c2", "c3")))
SPLITS = Splits(source="seed 0", folds=FOLDS)
PLAN = Plan(
    dataset="Toy",
    preset="auto",
    slice_axis="AP",
    target_shape=(32, 48),
    normalization=Normalization(scope="volume", clip_percentiles=(0.5, 99.5)),
    variants=(Variant(angle_deg=0.0, scale=1.0, mirror=False),),
    channels=("MR",),
    labels={"thrombus": 1},
    because={"slice_axis": "fewest voxels", "target_shape": "fits", "normalization": "spread", "variants": "one"},
    fingerprint_digest="f",
)


def run(fold: int, **changes: object) -> Run:
    return Run(
        network="net", fold=fold, recipe=Recipe(**{"epochs": 8, **changes}),  # type: ignore[arg-type]
        classes={"lesion": 1}, channels=1, parameters=7_851_969, train=FOLDS[fold].train, test=FOLDS[fold].test,
        plan_digest="p", splits_digest="s", setup="CPU.", processes=1, versions={"dvtplan": "0.1.0"},
        started="2026-01-01T00:00:00+00:00", epochs_done=6, seconds=125.0, waiting_share=0.02,
    )  # fmt: skip


def one_lesion(tp: int, fp: int, fn: int) -> Lesions:
    """At most one of truth and one of prediction, which meet where they share a voxel."""
    true, detected = (0, int(tp + fn > 0), 0, 0), (0, int(tp > 0), 0, 0)
    return Lesions(
        true_by_volume=true, detected_by_volume=detected, predicted=int(tp + fp > 0), true_positives=int(tp > 0)
    )


def rows(counts: dict[str, tuple[int, int, int]], fold: int = 0) -> pd.DataFrame:
    """``metrics.csv`` of one region: patient -> tp, fp, fn of voxels of 0.1 mL; the case bears the patient's number."""
    lines = [
        {
            "fold": fold, "case_id": p.replace("p", "c"), "patient_id": p, "region": "all", "rule": "none",
            "tp": tp, "fp": fp, "fn": fn, "truth_ml": 0.1 * (tp + fn), "predicted_ml": 0.1 * (tp + fp),
            "false_positive_ml": 0.1 * fp, "assd_mm": math.nan, "hd95_mm": math.nan, "surface_dice": 0.5,
            "tolerance_mm": 2.0, "counted": tp + fn > 0,
            **lesion_counts(one_lesion(tp, fp, fn)),
        }
        for p, (tp, fp, fn) in counts.items()
    ]  # fmt: skip
    return pd.DataFrame(lines)


def results(network: str, counts: dict[str, tuple[int, int, int]], fold: int = 0) -> ScoredNetwork:
    frame = rows(counts, fold)
    table = table1.table_1(frame, subject=f"{network} on Toy", rule="none (no regions)", folds=f"fold {fold} of 2")
    runs = {fold: run(fold)}
    return ScoredNetwork(
        network=network, rows=frame, folds=(FOLDS[fold],), plan=PLAN, runs=runs, table=table, notes=("A note.",)
    )


GOOD = results("gn", {"p0": (8, 2, 2), "p1": (0, 4, 0)})
"""p0: DSC 0.8, volumes equal; p1: without truth, 0.4 mL predicted."""
POOR = results("seg", {"p0": (4, 0, 6), "p1": (0, 0, 0)})
ELSEWHERE = results("gcn", {"p2": (5, 5, 0), "p3": (5, 0, 5)}, fold=1)


def test_agreement_is_mean_difference_and_196_sd_over_all_patients() -> None:
    frame = pd.DataFrame({"truth_ml": [10.0, 20.0, 0.0], "predicted_ml": [11.0, 18.0, 4.0]})
    agreed = scored_network.bland_altman(frame)
    assert agreed.bias.mean == 1.0 and agreed.bias.sd == 3.0 and agreed.bias.n == 3
    assert agreed.limits_ml == pytest.approx((1 - 5.88, 1 + 5.88))
    assert agreed.text.startswith("bias +1.0 mL, limits of agreement −4.9 mL to +6.9 mL, n 3")
    several = scored_network.bland_altman(pd.concat([frame, frame]))  # six differences from -2 to 4 mL
    low, high = several.bias.ci_low, several.bias.ci_high
    assert -2 < low < 1 < high < 4
    interval = f"(95 % BCa bootstrap CI {scored_network.ml(low)} to {scored_network.ml(high)})"
    assert several.text.startswith(f"bias +1.0 mL {interval}, limits")
    one = scored_network.bland_altman(frame[:1])
    assert math.isnan(one.limits_ml[0]) and one.text == "bias +1.0 mL, no limits of agreement with n 1"


def test_a_network_is_shown_in_one_line_with_its_notes_and_the_words_that_are_used() -> None:
    read = Reader(report_sections.overview([GOOD, POOR]))
    assert "gn 1 0.80 ± n/a 0.80 0.80 to 0.80 +0.2 mL (−0.4 mL to +0.8 mL) fold 0 of 2" in read.text
    assert "gn: A note. seg: A note." in read.text and "2 TP / (2 TP + FP + FN)" in read.text


def test_networks_with_the_same_folds_are_compared_and_the_others_named() -> None:
    found, omitted = report_sections.compared([GOOD, ELSEWHERE, POOR], "Toy")
    assert [table.reference for table in found] == ["gn"] and list(found[0].entries["all"]) == ["gn", "seg"]
    assert omitted == ["Table 2 omits gcn: no other network was scored on fold 1 of 2."]
    read = Reader(report_sections.scores([GOOD, ELSEWHERE, POOR], found, omitted))
    assert read.text.count("Table 1.") == 3 and read.text.count("Table 2. Comparison") == 1
    assert "+0.23 (no interval)" in read.text  # 0.80 - 0.57
    assert omitted[0] in read.text


def test_networks_that_were_divided_by_other_rules_are_not_compared() -> None:
    level = dataclasses.replace(POOR.table, rule="level (at the knee)")
    found, omitted = report_sections.compared([GOOD, dataclasses.replace(POOR, table=level)], "Toy")
    assert found == [] and "by the same region rule: level (at the knee)" in omitted[1]


def test_networks_that_were_not_trained_alike_are_shown_below_table_2() -> None:
    short = dataclasses.replace(POOR, runs={0: dataclasses.replace(run(0, epochs=2), network="seg")})
    (table,), _ = report_sections.compared([GOOD, short], "Toy")
    assert table.notes[0] == (
        "These networks were trained with different lengths (net fold 0: paper, 8 epochs; seg fold 0: paper, 2 epochs)."
    )


def test_surface_dice_at_two_tolerances_says_which_is_whose() -> None:
    far = dataclasses.replace(POOR, rows=POOR.rows.assign(tolerance_mm=10.0))
    text = Reader(report_sections.scores([GOOD, far], [], [])).text
    assert "Surface Dice at its tolerance 0.50 ± n/a at 2 mm 0.50 ± n/a at 10 mm" in text


def test_networks_that_cannot_be_paired_are_not_an_error_but_a_sentence() -> None:
    other = results("seg", {"p0": (4, 0, 7), "p1": (0, 0, 0)})
    found, omitted = report_sections.compared([GOOD, other], "Toy")
    assert found == [] and len(omitted) == 1
    assert omitted[0].startswith("Table 2 omits gn and seg: ") and "different truth of c0" in omitted[0]


def test_one_network_needs_no_comparison() -> None:
    assert report_sections.compared([GOOD], "Toy") == ([], [])


def test_notes_that_all_networks_share_appear_once() -> None:
    text = Reader(report_sections.scores([GOOD, POOR], [], [])).text
    assert text.count("Region rule") == 1
    assert "gn: Patients without truth" in text and "seg: Patients without truth" in text


def test_further_measures_have_a_column_per_network_and_say_what_has_none() -> None:
    leveled = dataclasses.replace(POOR, rows=pd.concat([POOR.rows, POOR.rows.assign(region="distal")]))
    read = Reader(report_sections.scores([GOOD, leveled], [], []))
    text = read.text[read.text.index("Further measures over") :]
    assert "Measure gn seg" in text and "Patients with truth 1 1" in text
    assert f"IoU {8 / 12:.2f} ± n/a 0.40 ± n/a" in text
    assert "ASSD, mm: median, range n/a n/a" in text and "Surface Dice at 2 mm 0.50 ± n/a" in text
    assert "False positive lesions 1, 0.40 mL in 1 patient 0, 0.00 mL in 1 patient" in text
    assert "distal Patients with truth not scored 1" in text
    assert text.count("A lesion is a 26-connected component") == 1


def test_the_plan_is_shown_with_its_reasons_once_for_networks_that_share_it() -> None:
    text = Reader(methods_section.methods([GOOD, POOR], SPLITS, [], 1)).text
    assert text.count("fewest voxels") == 1 and "The plan of gn and seg (preset auto)" in text
    assert "coronal (AP)" in text and "32 rows × 48 columns" in text
    assert "0 to 1 by volume, percentiles 0.5, 99.5" in text and "1 variant" in text


def test_variants_that_were_not_applied_are_not_claimed() -> None:
    wide = dataclasses.replace(GOOD, runs={0: run(0, name="modern", augmentation="wide", schedule="cosine")})
    text = Reader(methods_section.methods([wide], SPLITS, [], 1)).text
    assert "1 variant, not applied" in text and "wide augmentation, not the plan's variants" in text
    assert "cosine" in text and "drops of the learning rate" not in text  # they have no effect with a cosine
    both = Reader(methods_section.methods([wide, POOR], SPLITS, [], 1)).text
    assert "1 variant, applied only by paper" in both and "not used 0.6, 0.85" in both


def test_folds_runs_and_recipes_are_shown() -> None:
    mixed = ScoredNetwork(
        network="two", rows=pd.concat([GOOD.rows, ELSEWHERE.rows]), folds=FOLDS, plan=PLAN,
        runs={0: run(0), 1: run(1, lr_drops=())}, table=GOOD.table, notes=(),
    )  # fmt: skip
    text = Reader(methods_section.methods([mixed], SPLITS, [], 1)).text
    assert "0 2 2 two c0, c1 1 2 2 two c2, c3" in text
    assert "paper, 6 of 8 epochs 7,851,969 2 min 05 s 2% waiting for data CPU. 1 process." in text
    assert "Setting two fold 0 two fold 1" in text and "0.6, 0.85 none" in text


def test_a_training_that_a_time_budget_ended_shows_its_part_of_an_epoch() -> None:
    schedule = Schedule(
        budget_s=9.0, recipe_epochs=8, steps_per_epoch=100, planned=600, steps=740, taken=740, drops=(1, 2)
    )
    short = dataclasses.replace(run(0), epochs_done=8, schedule=schedule)
    text = Reader(methods_section.methods([dataclasses.replace(GOOD, runs={0: short})], SPLITS, [], 1)).text
    assert "paper, 7.4 of 7.4 epochs" in text and "epochs (passes over the training slices) 7.4 " in text


def test_a_training_shows_who_was_held_out_and_the_mask_rule_chosen_on_them() -> None:
    chosen = Postprocessing(
        threshold=0.35, smallest_component_mm3=12.0, patients=1, plain_score=0.6, score=0.7, weights="w"
    )
    held = dataclasses.replace(run(0), train=("c2",), held_out=("c3",))
    network = dataclasses.replace(GOOD, runs={0: held}, postprocessing={0: chosen})
    text = Reader(methods_section.methods([network], SPLITS, [], 1)).text
    assert f"6 of 8 epochs 1 cases trained on, 1 held out {chosen.in_words} 7,851,969" in text
    assert "held out" not in Reader(methods_section.methods([GOOD], SPLITS, [], 1)).text.partition("Setting")[0]


def test_folds_of_one_recipe_share_a_column_that_lists_their_lengths() -> None:
    runs = {0: run(0), 1: run(1, epochs=9)}
    text = Reader(methods_section.methods([dataclasses.replace(GOOD, runs=runs)], SPLITS, [], 1)).text
    assert "Setting gn fold 0; gn fold 1" in text
    assert "epochs (passes over the training slices) 8, 9 " in text


def test_a_fold_without_a_run_is_unknown_and_not_an_error() -> None:
    bare = ScoredNetwork(
        network="gn", rows=GOOD.rows, folds=GOOD.folds, plan=PLAN, runs={}, table=GOOD.table, notes=()
    )  # fmt: skip
    text = Reader(methods_section.methods([bare], SPLITS, [], 1)).text
    assert "unknown" in text and "Setting" not in text


def test_every_patient_has_a_section_with_scores_of_all_networks_and_its_own_pictures() -> None:
    drawn = [Picture(case_id=c, image=b"jpeg", alt=f"alt {c}", caption=f"caption {c}", files=()) for c in ("c0", "c1")]
    made = report_sections.patients(GOOD, [POOR], ["p0", "p1"], drawn)
    read = Reader(made)
    assert "2 of 2 patients are drawn, the worst first" in read.text and "predictions of gn" in read.text
    assert "must never be compared with the DSC of a patient" in read.text
    ids = {section.get("id") for section in read.all("section")}
    assert {link["href"].removeprefix("#") for link in read.all("a")} <= ids
    first, second = made.index('id="patient-1"'), made.index('id="patient-2"')
    assert first < made.index("caption c0") < second < made.index("caption c1")
    assert "gn all 0.80 0.80 0.80 1.0 1.0 seg all 0.57 1.00 0.40 1.0 0.4" in read.text
    assert "gn all n/a n/a n/a 0.0 0.4 seg all n/a n/a n/a 0.0 0.0" in read.text
    assert "levels of cases.csv" not in read.text


def test_a_limited_choice_says_so() -> None:
    text = Reader(report_sections.patients(GOOD, [ELSEWHERE], ["p0"], [])).text
    assert "1 of 2 patients are drawn: the worst and the best by DSC of all thrombus" in text
    assert "gcn not scored" in text


def test_figures_are_numbered_on() -> None:
    text = Reader(report_sections.charts([Chart(image=b"", alt="a", caption="Loss.")] * 2, 6)).text
    assert "Figure 6. Loss." in text and "Figure 7. Loss." in text


def test_phantom_data_are_announced_as_such_and_nothing_else_is() -> None:
    page = Reader(report_sections.header("Toy", [GOOD], "synthetic: <phantom>", "Written today."))
    assert page.all("p")[0]["class"] == "banner" and "not evidence of clinical accuracy" in page.text
    assert "synthetic: <phantom>" in page.text
    assert "2 patients of the data set Toy and was not trained on these patients" in page.text
    assert "banner" not in report_sections.header("Toy", [GOOD, POOR], None, "")
