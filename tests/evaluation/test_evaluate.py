"""The evaluation stage: masks on disk in, metrics.csv and tables out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.films import EMPTY, FILM, prediction, put, score, unwrapped
from helpers.volumes import move_qform

from dvtplan import cli
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.evaluate import COLUMNS, compare_networks, evaluate, evaluate_folders
from dvtplan.evaluation.options import EvaluationOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid

# --- statistics over patients ---------------------------------------------------------------------


def test_patients_are_pooled_and_those_without_truth_omitted(workspace: Workspace) -> None:
    evaluation = score(workspace, region_rule="level")
    proximal, distal, whole = evaluation.table.regions
    # Patient P holds a and b: proximal tp 3 fn 3, all tp 4 fn 4. Patient c: proximal tp 2 fp 1.
    assert (proximal.n, distal.n, whole.n) == (2, 2, 2)
    assert proximal.scores["dsc"].mean == pytest.approx((6 / 9 + 4 / 5) / 2)
    assert proximal.scores["recall"].minimum == pytest.approx(3 / 6)
    assert whole.scores["dsc"].mean == pytest.approx((8 / 12 + 6 / 7) / 2)
    assert (distal.without_truth, distal.false_positive_ml) == (1, 0.5)
    assert (whole.without_truth, whole.false_positive_ml) == (1, 0.5)


def test_a_row_counts_where_its_patient_has_truth(workspace: Workspace) -> None:
    rows = score(workspace, region_rule="level").rows.set_index(["case_id", "region"])
    assert bool(rows.loc[("b", "distal"), "counted"])  # no distal truth itself, but scan a of P has
    assert np.isnan(rows.loc[("b", "distal"), "dsc"])
    assert not bool(rows.loc[("d", "distal"), "counted"])
    assert rows.loc[("d", "distal"), "false_positive_ml"] == pytest.approx(0.5)
    assert rows.loc[("b", "proximal"), "dsc"] == 0


# --- further measures -----------------------------------------------------------------------------


def test_measures_of_patients_are_summarized_with_n(workspace: Workspace) -> None:
    put(prediction(workspace, "c"), EMPTY)
    evaluation = score(workspace, region_rule="level")
    proximal = evaluation.measures.regions[0]
    # Patient P: case a has distances, case b none (nothing predicted); patient c now has none either.
    assert (proximal.patients, proximal.measures["assd_mm"].n) == (2, 1)
    assert proximal.measures["assd_mm"].mean == pytest.approx(5 / 7)
    assert proximal.measures["surface_dice"].mean == pytest.approx((6 / 7 / 2 + 0) / 2)
    assert proximal.lesions["lesion_sensitivity"] == (3, 1)
    whole = evaluation.measures.regions[-1]
    assert (whole.without_truth, whole.false_positive_lesions, whole.false_positive_ml) == (1, 1, 0.5)
    assert "1, 0.50 mL in 1 patient" in unwrapped(evaluation.text)
    back = pd.read_csv(workspace.results("unet") / "measures.csv").set_index(["region", "measure"])
    assert back.loc[("proximal", "assd_mm"), ["n", "patients_with_truth", "undefined"]].tolist() == [1, 2, 1]


def test_the_measures_are_below_table_1(workspace: Workspace) -> None:
    text = evaluate(workspace, "unet").text
    assert text.index("Table 1.") < text.index("Further measures") < text.index("Surface Dice at 2 mm")


def test_the_tolerance_can_be_chosen_and_is_reported(workspace: Workspace, folders: tuple[Path, Path, Path]) -> None:
    evaluation = score(workspace, region_rule="level", tolerance_mm=5.0)
    row = evaluation.rows.set_index(["case_id", "region"]).loc[("a", "proximal")]
    assert (row["surface_dice"], row["tolerance_mm"]) == (1, 5)
    assert "Surface Dice at 5 mm" in evaluation.text
    labels, theirs, out = folders
    rows = evaluate_folders(
        labels,
        theirs,
        out,
        prediction_values="lesion",
        options=EvaluationOptions(region_rule="level", tolerance_mm=5.0),
    ).rows
    assert rows.set_index(["case_id", "region"]).loc[("a", "proximal"), "surface_dice"] == 1


def test_a_tolerance_that_is_not_a_distance_is_refused(workspace: Workspace) -> None:
    with pytest.raises(DvtError, match="tolerance_mm -1"):
        score(workspace, tolerance_mm=-1.0)


# --- what is written ------------------------------------------------------------------------------


def test_metrics_csv_reads_back_with_every_column(workspace: Workspace) -> None:
    evaluation = evaluate(workspace, "unet")
    assert [path.name for path in evaluation.written] == [
        "metrics.csv",
        "table1.csv",
        "table1.md",
        "table1.tex",
        "measures.csv",
        "scores.json",
    ]
    assert all(path.parent == workspace.results("unet") for path in evaluation.written)
    back = pd.read_csv(evaluation.written[0])
    assert tuple(back.columns) == COLUMNS
    assert COLUMNS[:11] == (
        "fold",
        "case_id",
        "patient_id",
        "region",
        "rule",
        "tp",
        "fp",
        "fn",
        "dsc",
        "precision",
        "recall",
    )
    assert COLUMNS[11:15] == ("truth_ml", "predicted_ml", "false_positive_ml", "counted")
    pd.testing.assert_frame_equal(back, evaluation.rows, check_dtype=False)


def test_processes_give_the_same_rows_in_the_same_order(workspace: Workspace) -> None:
    alone = score(workspace, jobs=1).rows
    pd.testing.assert_frame_equal(score(workspace, jobs=2).rows, alone)


# --- masks of any program -------------------------------------------------------------------------


def test_folders_give_the_same_numbers_as_folds(workspace: Workspace, folders: tuple[Path, Path, Path]) -> None:
    labels, theirs, out = folders
    ours = score(workspace, region_rule="level").rows
    evaluation = evaluate_folders(
        labels, theirs, out, prediction_values="lesion", options=EvaluationOptions(region_rule="level")
    )
    pd.testing.assert_frame_equal(evaluation.rows.drop(columns="fold"), ours.drop(columns="fold"))
    assert evaluation.rows["fold"].isna().all()
    assert (out / "table1.tex").exists()
    assert f"the masks in {theirs}, without folds" in unwrapped(evaluation.text)


# --- independence ---------------------------------------------------------------------------------


def test_numbers_equal_those_computed_on_whole_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    grid = Grid(shape=(6, 20, 10), spacing_mm=(3.0, 2.0, 1.5), origin_mm=(5.0, -8.0, 40.0), direction=FILM.direction)
    truth = (rng.random(grid.shape) < 0.2).astype(np.uint8)
    predicted = (rng.random(grid.shape) < 0.2).astype(np.uint8)
    for folder, mask in (("truth", truth), ("predicted", predicted)):
        (tmp_path / folder).mkdir()
        volume_io.write_mask(tmp_path / folder / "x.nii.gz", mask, grid)
    (tmp_path / "truth" / "cases.csv").write_text("case_id,level_left_mm,level_right_mm\nx,21.0,13.0\n")
    rows = evaluate_folders(tmp_path / "truth", tmp_path / "predicted", tmp_path).rows.set_index("region")

    # Rows fall by 2 mm from z 40; columns rise by 1.5 mm from x 5 to 18.5, so the middle is 11.75.
    z = 40.0 - 2.0 * np.arange(20)[None, :, None]
    left = (5.0 + 1.5 * np.arange(10) >= 11.75)[None, None, :]
    proximal = np.broadcast_to(np.where(left, z >= 21.0, z >= 13.0), grid.shape)
    for region, where in (("proximal", proximal), ("distal", ~proximal), ("all", np.ones(grid.shape, bool))):
        t, p = truth[where], predicted[where]
        assert rows.loc[region, "dsc"] == pytest.approx(2 * (t & p).sum() / (t.sum() + p.sum()))
        assert rows.loc[region, "precision"] == pytest.approx((t & p).sum() / p.sum())
        assert rows.loc[region, "recall"] == pytest.approx((t & p).sum() / t.sum())
        assert rows.loc[region, "truth_ml"] == pytest.approx(t.sum() * 0.009)


def test_evaluation_never_loads_torch() -> None:
    code = "import sys, dvtplan.evaluation.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


# --- several networks -----------------------------------------------------------------------------


@pytest.fixture
def two_networks(workspace: Workspace) -> Workspace:
    """The same predictions once more under another name, but for case c, where ``gcn`` finds nothing."""
    shutil.copytree(workspace.results("unet"), workspace.results("gcn"))
    put(workspace.fold("gcn", 1).predictions / "c.nii.gz", EMPTY)
    return workspace


def test_networks_are_compared_on_the_same_patients(two_networks: Workspace) -> None:
    done = compare_networks(two_networks, ["unet", "gcn"], options=EvaluationOptions(split=("proximal", "distal")))
    dsc = {name: scores["dsc"] for name, scores in done.table.entries["all"].items()}
    # Patients P and c: unet 8/12 and 6/7, gcn 8/12 and 0; d has no truth.
    assert dsc["unet"].summary.mean == pytest.approx((8 / 12 + 6 / 7) / 2)
    assert dsc["gcn"].summary.mean == pytest.approx(8 / 12 / 2)
    difference = dsc["gcn"].difference
    assert difference is not None and (difference.n, difference.zeros) == (2, 1)
    folder = two_networks.comparison
    assert {p.name for p in folder.iterdir()} == {"table2.csv", "table2.md", "table2.tex", "folds.csv"}
    assert (two_networks.results("gcn") / "table1.csv").exists()
    folds = pd.read_csv(folder / "folds.csv").set_index(["network", "fold", "region"])
    assert folds.loc[("gcn", 1, "all"), "dsc"] == 0
    assert "Table 2" in done.text


def test_networks_with_other_folds_are_not_compared(two_networks: Workspace) -> None:
    shutil.rmtree(two_networks.fold("gcn", 1).path)
    with pytest.raises(DvtError, match="not scored on the same cases and regions: c, d"):
        compare_networks(two_networks, ["unet", "gcn"])
    assert not two_networks.comparison.exists()
    assert compare_networks(two_networks, ["unet", "gcn"], folds=[0]).table.entries


def test_a_comparison_of_some_folds_keeps_the_scores_of_all(two_networks: Workspace) -> None:
    evaluate(two_networks, "unet")
    before = two_networks.metrics("unet").read_bytes()
    done = compare_networks(two_networks.root, ["unet", "gcn"], folds=[1])
    assert two_networks.metrics("unet").read_bytes() == before and not two_networks.metrics("gcn").exists()
    assert {path.parent for path in done.written} == {two_networks.comparison}
    assert set(done.evaluations["unet"].rows["fold"]) == {1}


def test_a_network_is_not_compared_with_itself(two_networks: Workspace) -> None:
    with pytest.raises(DvtError, match="names unet twice"):
        compare_networks(two_networks, ["unet", "gcn", "unet"])


def test_a_comparison_does_not_pass_for_a_network(two_networks: Workspace) -> None:
    compare_networks(two_networks, ["unet", "gcn"])
    with pytest.raises(DvtError, match="there are: gcn, unet\\."):
        evaluate(two_networks, "segnet")


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "dvtplan.cli", "evaluate", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


def test_the_command_compares_networks_at_a_tolerance(two_networks: Workspace) -> None:
    ran = command("--root", two_networks.root, "--compare", "unet", "gcn", "--tolerance", "7.5")
    assert ran.returncode == 0, ran.stderr
    assert "Table 2. Comparison of networks: DVT." in ran.stdout
    assert str(two_networks.comparison / "folds.csv") in ran.stdout
    assert set(pd.read_csv(two_networks.metrics("gcn"))["tolerance_mm"]) == {7.5}


@pytest.mark.parametrize(
    "flags",
    [
        "--tolerance -1",
        "--tolerance x",
        "--folds x",
        "--compare unet gcn --overlays",
        "--compare unet gcn --network unet",
        "--reference a",
        "--reference a --predictions b --overlays",
        "--reference a --predictions b --folds 0",
        "--reference a --predictions b --network unet",
        "--reference a --predictions b --root .",
        "-o out",
        "--prediction-values lesion",
    ],
)
def test_options_that_make_no_sense_are_refused(
    flags: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dvt_evaluate", *flags.split()])
    with pytest.raises(SystemExit) as caught:
        cli.evaluate()
    message = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 2 and "error:" in message
    assert any(word in message for word in flags.split() if word.startswith("-"))


def test_masks_with_contradictory_headers_are_scored_by_the_trusted_form(folders: tuple[Path, Path, Path]) -> None:
    reference, predictions, out = folders
    expected = evaluate_folders(reference, predictions, out, prediction_values="lesion").rows
    for path in [*reference.iterdir(), *predictions.glob("*.nii.gz")]:
        move_qform(path)
    with pytest.raises(DvtError, match="trust=sform"):
        evaluate_folders(reference, predictions, out, prediction_values="lesion")
    options = EvaluationOptions(trust="sform", jobs=2)
    done = evaluate_folders(reference, predictions, out, prediction_values="lesion", options=options)
    pd.testing.assert_frame_equal(done.rows, expected)
